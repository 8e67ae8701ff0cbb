//! Checks whether the service's user can read and write the configured files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::diagnosis::Diagnosis;
use super::settings::Theirs;
use super::user::User;
use crate::config::{Config, named_path};
use crate::disk;
use crate::machine::Machine;
use crate::output::shell_word;
use crate::snapshot::lock_path;

const SNAPSHOT: &str = "snapshot";
const DENY: &str = "deny file";

/// The content of the trial write, large enough to reveal a full disk.
const TRIAL: [u8; 4096] = [0; 4096];

/// The files that the daemon reads or writes.
#[derive(Debug)]
pub(super) struct Paths {
    snapshot: Option<PathBuf>,
    deny_file: Option<PathBuf>,
}

impl Paths {
    /// Takes the paths from the running daemon's environment where it sets them, because a unit sets some that
    /// the operator's files do not. Otherwise takes them from `config`.
    pub(super) fn new(config: &Config, theirs: Option<&Theirs>) -> Self {
        let path = |name, ours| {
            let value = theirs.and_then(|theirs| theirs.value(name));
            value.map_or(ours, named_path)
        };
        let deny_file = config.deny_file.as_ref().map(|file| file.path().into());
        Self {
            snapshot: path("SNAPSHOT_PATH", config.snapshot_path.clone()),
            deny_file: path("DENY_FILE", deny_file),
        }
    }

    /// The folder of the snapshot, if snapshots are enabled.
    pub(super) fn snapshot_folder(&self) -> Option<PathBuf> {
        let folder = self.snapshot.as_ref()?.parent()?;
        let is_here = folder.as_os_str().is_empty();
        Some(if is_here { Path::new(".").to_owned() } else { folder.to_owned() })
    }
}

/// Tries to write a file in the folder of the snapshot, and removes it again.
pub(super) fn check_snapshot(machine: &Machine, paths: &Paths, user: User) -> Diagnosis {
    let (Some(path), Some(folder)) = (&paths.snapshot, paths.snapshot_folder()) else {
        return Diagnosis::ok(SNAPSHOT, "SNAPSHOT_PATH is none, so a restart forgets the clients");
    };
    if is_mount_point(machine, path) {
        return Diagnosis::finding(
            SNAPSHOT,
            format!("{} is a mount point, so it cannot be replaced", path.display()),
            "the daemon starts but writes no snapshot, so a restart forgets the clients",
            "# mount its folder instead",
        );
    }
    let opened = {
        let folder = folder.clone();
        disk::within_patience(move || open_folder(&folder))
    };
    let tried = match opened {
        // Root can open a folder even if its parent is closed to the service, such as /var/lib/private outside
        // of the service's namespace.
        Ok(opened) => {
            let lock = lock_path(path).file_name().unwrap_or_default().to_owned();
            user.act(move || write_in(&opened, &lock))
        }
        // The service may still reach the folder: systemd keeps the state of DynamicUser= below a folder that
        // is closed to others.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !user.shares_reach() => None,
        Err(error) => Some(Err(error)),
    };
    match tried {
        Some(tried) => judge_snapshot(&folder, user, tried),
        None => someone_elses(SNAPSHOT, &folder, user),
    }
}

/// Whether the file itself is a mount point, as with `docker run -v file:file`.
fn is_mount_point(machine: &Machine, path: &Path) -> bool {
    let mounts = machine.text("proc/self/mountinfo").unwrap_or_default();
    // The fifth column escapes spaces and the like, so such paths do not match.
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == path))
}

fn judge_snapshot(folder: &Path, user: User, tried: io::Result<()>) -> Diagnosis {
    let name = folder.display();
    let error = match tried {
        Ok(()) if user.is_unknown() => {
            return Diagnosis::unknown(
                SNAPSHOT,
                format!(
                    "root can write to {name}, but a service with another user may not: run this while the daemon runs"
                ),
            );
        }
        Ok(()) => return Diagnosis::ok(SNAPSHOT, format!("{user} can write to {name}")),
        Err(error) => error,
    };
    let (uid, gid, word) = (user.uid, user.gid, shell_word(&name.to_string()));
    let mend = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => format!(
            "# for the unit with StateDirectory=, start the service once; elsewhere:\nsudo install -d -m 700 -o {uid} -g {gid} {word}"
        ),
        Some(Errno::EACCES | Errno::EPERM) => {
            format!("sudo chown {uid}:{gid} {word}\nsudo chmod u+rwx {word}")
        }
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            format!("# free some space, or set another SNAPSHOT_PATH\nsudo df -h {word}")
        }
        Some(Errno::EROFS) => {
            format!(
                "# mount it for writing, or set another SNAPSHOT_PATH\nsudo findmnt --target {word}"
            )
        }
        None if error.kind() == ErrorKind::PermissionDenied => {
            "# give that file to this user, or set another SNAPSHOT_PATH".to_owned()
        }
        _ => "# set another SNAPSHOT_PATH".to_owned(),
    };
    Diagnosis::finding(
        SNAPSHOT,
        format!("{user} cannot write to {name}: {error}"),
        "the daemon starts but keeps no clients, so a restart forgets them",
        mend,
    )
}

/// Opens a folder only as a base for paths.
fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    Ok(open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens the lock file, if it exists, and writes an unnamed file, which disappears when it is closed.
fn write_in(folder: &OwnedFd, lock: &OsStr) -> io::Result<()> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(folder.as_fd(), lock, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
        Ok(_) | Err(Errno::ENOENT) => {}
        Err(errno) => {
            let error = io::Error::from(errno);
            return Err(io::Error::new(error.kind(), format!("{}: {error}", lock.display())));
        }
    }
    match openat(folder.as_fd(), ".", flags | OFlag::O_TMPFILE, mode) {
        Ok(file) => write_to(file),
        // Not all file systems support unnamed files.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
            let name = format!(".wakeupd-doctor-{}", process::id());
            let name = name.as_str();
            let file = openat(folder.as_fd(), name, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode)?;
            let written = write_to(file);
            unlinkat(folder.as_fd(), name, UnlinkatFlags::NoRemoveDir)?;
            written
        }
        Err(error) => Err(error.into()),
    }
}

fn write_to(file: OwnedFd) -> io::Result<()> {
    File::from(file).write_all(&TRIAL)
}

/// Tries to read `DENY_FILE` as the user. The caller has already read its content.
pub(super) fn check_deny_file(paths: &Paths, user: User) -> Diagnosis {
    let Some(path) = paths.deny_file.clone() else {
        return Diagnosis::ok(DENY, "DENY_FILE is none");
    };
    let reader = if user.is_unknown() { User::nobody() } else { user };
    let name = path.display().to_string();
    match reader.act(move || disk::read(&path).map(drop)) {
        Some(tried) => judge_deny_file(&name, user, tried),
        None => someone_elses(DENY, Path::new(&name), user),
    }
}

fn judge_deny_file(path: &str, user: User, tried: io::Result<()>) -> Diagnosis {
    match tried {
        Ok(()) if user.is_unknown() => Diagnosis::ok(DENY, format!("every user can read {path}")),
        Ok(()) => Diagnosis::ok(DENY, format!("{user} can read {path}")),
        Err(error) if user.is_unknown() && error.kind() == ErrorKind::PermissionDenied => {
            Diagnosis::unknown(
                DENY,
                format!(
                    "root can read {path}, but a service with another user may not: run this while the daemon runs"
                ),
            )
        }
        Err(error) => Diagnosis::finding(
            DENY,
            format!("{user} cannot read {path}: {error}"),
            "the daemon does not start, or keeps the networks of its start",
            format!(
                "# let every user read it, and enter the folders above it\nsudo chmod a+r {}\nsudo namei -l {0}",
                shell_word(path)
            ),
        ),
    }
}

fn someone_elses(check: &'static str, path: &Path, user: User) -> Diagnosis {
    let path = path.display();
    Diagnosis::unknown(check, format!("only {user} and root can try {path}: run this as root"))
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::super::user;
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn each_reason_has_a_remedy() {
        let fake = Fake::new(&[("proc/7/status", "Uid:\t0\t991\t0\t0\nGid:\t0\t991\t0\t0\n")]);
        let user = user::of_service(&fake.0, Some(7), None);
        let (folder, path) = (Path::new("/var/lib/it's here"), "/etc/a b");
        for (errno, mend) in [
            (Errno::ENOENT, "sudo install -d -m 700 -o 991 -g 991 '/var/lib/it'\\''s here'"),
            (Errno::EACCES, "sudo chown 991:991 '/var/lib/it'\\''s here'"),
            (Errno::ENOSPC, "sudo df -h"),
            (Errno::EROFS, "sudo findmnt"),
            (Errno::EIO, "another SNAPSHOT_PATH"),
        ] {
            let diagnosis = judge_snapshot(folder, user, Err(errno.into()));
            assert_eq!(diagnosis.result, Outcome::Finding);
            assert!(diagnosis.mend.unwrap().contains(mend), "{errno}");
            let diagnosis = judge_deny_file(path, user, Err(errno.into()));
            assert!(diagnosis.mend.unwrap().contains("sudo chmod a+r '/etc/a b'"), "{errno}");
        }
        assert_eq!(judge_snapshot(folder, user, Ok(())).result, Outcome::Ok);
        assert_eq!(judge_deny_file(path, user, Ok(())).result, Outcome::Ok);
    }
}
