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
use crate::catalogue::machine;
use crate::config::{Config, named_path};
use crate::disk;
use crate::machine::Machine;
use crate::output::shell_word;
use crate::snapshot::{lock_path, remedy};

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
    /// Takes each path from the running daemon's environment (`theirs`) if it is set there, because a unit
    /// sets some paths that the operator's files do not. Otherwise takes the path from `config`.
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
        return Diagnosis::ok(
            SNAPSHOT,
            "SNAPSHOT_PATH is none, so after a restart clients get no pings until their next heartbeat",
        );
    };
    if is_mount_point(machine, path) {
        let problem = machine::SNAPSHOT_MOUNT_POINT.with(&[("path", &path.display())]);
        return Diagnosis::finding(SNAPSHOT, problem);
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
        None => untested(SNAPSHOT, &folder, user),
    }
}

/// Whether the file itself is a mount point, as with `docker run -v file:file`.
fn is_mount_point(machine: &Machine, path: &Path) -> bool {
    let mounts = machine.text("proc/self/mountinfo").unwrap_or_default();
    // The fifth column escapes spaces and the like, so such paths do not match.
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == path))
}

pub(super) fn judge_snapshot(folder: &Path, user: User, tried: io::Result<()>) -> Diagnosis {
    let name = folder.display();
    let error = match tried {
        Ok(()) if user.is_unknown() => {
            return Diagnosis::unknown(
                SNAPSHOT,
                format!(
                    "the doctor runs as root and does not know the service's user, so it cannot tell whether that user can write to {name}: run the doctor again while the daemon runs, because it then tests as the daemon's user"
                ),
            );
        }
        Ok(()) => return Diagnosis::ok(SNAPSHOT, format!("{name} is writable by {user}")),
        Err(error) => error,
    };
    let word = shell_word(&name.to_string());
    let commands = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => format!(
            "# With StateDirectory= in the unit, systemd creates the folder at the first start. Otherwise:\nsudo install -d -m 700 -o {} -g {} {word}",
            user.uid, user.gid
        ),
        Some(Errno::EACCES | Errno::EPERM) => {
            format!("sudo chown {}:{} {word}\nsudo chmod u+rwx {word}", user.uid, user.gid)
        }
        Some(Errno::ENOSPC | Errno::EDQUOT) => format!("sudo df -h {word}"),
        Some(Errno::EROFS) => format!("sudo findmnt --target {word}"),
        _ => String::new(),
    };
    let problem = machine::SNAPSHOT_NOT_WRITABLE.with(&[
        ("folder", &name),
        ("user", &user),
        ("error", &error),
        ("remedy", &remedy(&error)),
        ("commands", &commands),
    ]);
    Diagnosis::finding(SNAPSHOT, problem)
}

/// Opens a folder with `O_PATH`, as a base for relative paths.
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
        return Diagnosis::ok(DENY, "DENY_FILE is none, so there is no file to read");
    };
    let reader = if user.is_unknown() { User::nobody() } else { user };
    let name = path.display().to_string();
    match reader.act(move || disk::read(&path).map(drop)) {
        Some(tried) => judge_deny_file(&name, user, tried),
        None => untested(DENY, Path::new(&name), user),
    }
}

pub(super) fn judge_deny_file(path: &str, user: User, tried: io::Result<()>) -> Diagnosis {
    match tried {
        Ok(()) if user.is_unknown() => {
            Diagnosis::ok(DENY, format!("{path} is readable by every user"))
        }
        Ok(()) => Diagnosis::ok(DENY, format!("{path} is readable by {user}")),
        Err(error) if user.is_unknown() && error.kind() == ErrorKind::PermissionDenied => {
            Diagnosis::unknown(
                DENY,
                format!(
                    "the doctor runs as root and does not know the service's user, so it cannot tell whether that user can read {path}: run the doctor again while the daemon runs, because it then tests as the daemon's user"
                ),
            )
        }
        Err(error) => {
            let problem = machine::DENY_FILE_UNREADABLE.with(&[
                ("path", &path),
                ("user", &user),
                ("error", &error),
                ("word", &shell_word(path)),
            ]);
            Diagnosis::finding(DENY, problem)
        }
    }
}

fn untested(check: &'static str, path: &Path, user: User) -> Diagnosis {
    let path = path.display();
    Diagnosis::unknown(
        check,
        format!("cannot test access to {path} as {user}: run the doctor as root"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::super::user;
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn each_file_error_has_a_remedy() {
        let fake = Fake::new(&[("proc/7/status", "Uid:\t0\t991\t0\t0\nGid:\t0\t991\t0\t0\n")]);
        let user = user::of_service(&fake.0, Some(7), None);
        let (folder, path) = (Path::new("/var/lib/it's here"), "/etc/a b");
        for (errno, mend) in [
            (Errno::ENOENT, "sudo install -d -m 700 -o 991 -g 991 '/var/lib/it'\\''s here'"),
            (Errno::EACCES, "sudo chown 991:991 '/var/lib/it'\\''s here'"),
            (Errno::ENOSPC, "sudo df -h"),
            (Errno::EROFS, "sudo findmnt"),
            (Errno::EIO, "set SNAPSHOT_PATH to another disk"),
        ] {
            let diagnosis = judge_snapshot(folder, user, Err(errno.into()));
            assert_eq!(diagnosis.result, Outcome::Finding);
            assert!(diagnosis.mend().contains(mend), "{errno}");
            let diagnosis = judge_deny_file(path, user, Err(errno.into()));
            assert!(diagnosis.mend().contains("sudo chmod a+r '/etc/a b'"), "{errno}");
        }
        assert_eq!(judge_snapshot(folder, user, Ok(())).result, Outcome::Ok);
        assert_eq!(judge_deny_file(path, user, Ok(())).result, Outcome::Ok);
    }
}
