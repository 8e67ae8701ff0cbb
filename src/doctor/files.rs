//! Whether the service's user can read and write the files that the settings name.

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
use super::user::User;
use super::words::quoted;
use crate::config::{Config, DenyFile};

const SNAPSHOT: &str = "snapshot";
const DENY: &str = "deny file";

/// What is written on trial, so that a full disk shows.
const TRIAL: [u8; 4096] = [0; 4096];

/// The folder of the snapshot, if there is to be one.
pub(super) fn snapshot_folder(config: &Config) -> Option<PathBuf> {
    let folder = config.snapshot_path.as_ref()?.parent()?;
    let is_here = folder.as_os_str().is_empty();
    Some(if is_here { Path::new(".").to_owned() } else { folder.to_owned() })
}

/// Tries to write a file where the snapshot is to be, and leaves none.
pub(super) fn check_snapshot(config: &Config, user: User) -> Diagnosis {
    let Some(folder) = snapshot_folder(config) else {
        return Diagnosis::ok(SNAPSHOT, "SNAPSHOT_PATH is none, so a restart forgets the clients");
    };
    let tried = match open_folder(&folder) {
        // Root may open a folder below one that is closed to the service, as /var/lib/private is outside
        // of its namespace.
        Ok(opened) => match user.act(|| write_in(&opened)) {
            Some(tried) => tried,
            None => return someone_elses(SNAPSHOT, &folder, user),
        },
        Err(error) => Err(error),
    };
    judge_snapshot(&folder, user, tried)
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
    let (uid, gid, word) = (user.uid, user.gid, quoted(&name.to_string()));
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
        _ => "# set another SNAPSHOT_PATH".to_owned(),
    };
    Diagnosis::finding(
        SNAPSHOT,
        format!("{user} cannot write to {name}: {error}"),
        "the daemon starts but keeps no clients, so a restart forgets them",
        mend,
    )
}

/// Opens a folder for nothing but what is in it.
fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    Ok(open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Writes a file without a name, which is gone in any case when it is closed.
fn write_in(folder: &OwnedFd) -> io::Result<()> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(folder.as_fd(), ".", flags | OFlag::O_TMPFILE, mode) {
        Ok(file) => write_to(file),
        // Not every file system has such files.
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

/// Tries to read the file of the networks that are denied, which the caller has read already.
pub(super) fn check_deny_file(config: &Config, user: User) -> Diagnosis {
    let Some(path) = config.deny_file.as_ref().map(DenyFile::path) else {
        return Diagnosis::ok(DENY, "DENY_FILE is none");
    };
    let reader = if user.is_unknown() { User::nobody() } else { user };
    let Some(tried) = reader.act(|| File::open(&path).map(drop)) else {
        return someone_elses(DENY, Path::new(&path), user);
    };
    judge_deny_file(&path, user, tried)
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
                quoted(path)
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
