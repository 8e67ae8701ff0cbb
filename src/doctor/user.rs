//! The daemon's user and its access rights.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

use crate::disk;
use crate::machine::Machine;

/// The overflow user, which owns nothing: a file that it can read is world-readable.
const NOBODY: u32 = 65_534;

/// The source from which the user was derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Daemon,
    Folder,
    Caller,
}

/// The user for trial accesses to files.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    source: Source,
}

/// Determines the service's user: the user of the running daemon, else the owner of the snapshot's folder, else
/// the caller. `StateDirectory=` gives the folder to the unit's user, so a folder of root is ignored.
pub(super) fn of_service(machine: &Machine, daemon: Option<u32>, folder: Option<&Path>) -> User {
    let of_daemon = daemon.and_then(|pid| {
        let id = |name| {
            let line = machine.line(&format!("proc/{pid}/status"), name).ok()?;
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        Some(User { uid: id("Uid:")?, gid: id("Gid:")?, source: Source::Daemon })
    });
    let of_folder = || {
        let folder = folder?.to_owned();
        let owner = disk::within_patience(move || fs::metadata(folder)).ok()?;
        let owner = Some(owner).filter(|folder| folder.uid() != 0)?;
        Some(User { uid: owner.uid(), gid: owner.gid(), source: Source::Folder })
    };
    let caller = User { uid: geteuid().as_raw(), gid: getegid().as_raw(), source: Source::Caller };
    of_daemon.or_else(of_folder).unwrap_or(caller)
}

impl User {
    /// The overflow user, with only the rights that all users have.
    pub(super) const fn nobody() -> Self {
        Self { uid: NOBODY, gid: NOBODY, source: Source::Caller }
    }

    /// Whether the doctor runs as root and the service's user is unknown.
    pub(super) fn is_unknown(self) -> bool {
        self.source == Source::Caller && self.uid == 0
    }

    /// Whether the daemon, too, cannot enter a folder that the caller cannot enter.
    pub(super) fn shares_reach(self) -> bool {
        let is_the_callers = self.source == Source::Daemon && self.uid == geteuid().as_raw();
        is_the_callers || geteuid().is_root()
    }

    /// Whether the doctor runs as root and acts on behalf of this user, who is not root.
    pub(super) fn is_impersonated(self) -> bool {
        geteuid().is_root() && self.uid != 0
    }

    /// Runs a file operation as this user, with the timeout of [`disk::within_patience`]. Returns `None` if the
    /// caller is neither this user nor root.
    pub(super) fn act<T: Send + 'static>(
        self,
        action: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Option<io::Result<T>> {
        let is_caller = self.uid == geteuid().as_raw();
        if !is_caller && !geteuid().is_root() {
            return None;
        }
        Some(disk::within_patience(move || {
            if !is_caller {
                self.take_over_thread()?;
            }
            action()
        }))
    }

    /// Gives only the current thread the user's access to files. When the file system uid changes from 0, the
    /// kernel also drops the thread's privileges over files.
    fn take_over_thread(self) -> io::Result<()> {
        let (gid, uid) = (Gid::from_raw(self.gid), Uid::from_raw(self.uid));
        setfsgid(gid);
        setfsuid(uid);
        // The calls return the previous id even if they fail.
        if (setfsgid(gid), setfsuid(uid)) == (gid, uid) {
            return Ok(());
        }
        let reason =
            format!("the doctor lacks CAP_SETUID or CAP_SETGID, so it cannot act as user {uid}");
        Err(io::Error::other(reason))
    }
}

impl Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = self.uid;
        match self.source {
            Source::Daemon => write!(f, "user {uid} (of the running daemon)"),
            Source::Folder => write!(f, "user {uid} (owner of the folder of SNAPSHOT_PATH)"),
            Source::Caller => write!(f, "user {uid} (of the doctor)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn the_user_is_the_daemons_or_else_the_folder_owner() {
        let fake = Fake::new(&[("proc/7/status", "Uid:\t1\t65532\t1\t1\nGid:\t1\t65533\t1\t1\n")]);
        let daemon = of_service(&fake.0, Some(7), None);
        assert_eq!((daemon.uid, daemon.gid, daemon.source), (65_532, 65_533, Source::Daemon));
        let folder = fake.0.path("proc");
        let owner = of_service(&fake.0, Some(8), Some(&folder));
        assert_eq!(owner.uid, fs::metadata(&folder).unwrap().uid());
        let caller = of_service(&fake.0, None, Some(Path::new("/")));
        assert_eq!((caller.uid, caller.source), (geteuid().as_raw(), Source::Caller));
    }
}
