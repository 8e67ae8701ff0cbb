//! The user that the daemon runs as, and what that user may do.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

use crate::disk;
use crate::machine::Machine;

/// An overflow user that owns nothing: what it may read, every user may read.
const NOBODY: u32 = 65_534;

/// Whether the service's user is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Daemon,
    Folder,
    Caller,
}

/// A user to try the access to files as.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    source: Source,
}

/// The user of the running daemon; else the owner of the snapshot's folder, unless that is root, because
/// `StateDirectory=` gives the folder to the user of the unit; else the caller.
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
    /// A user with no rights but those of everybody.
    pub(super) const fn nobody() -> Self {
        Self { uid: NOBODY, gid: NOBODY, source: Source::Caller }
    }

    /// Whether root runs this and the user of the service is unknown.
    pub(super) fn is_unknown(self) -> bool {
        self.source == Source::Caller && self.uid == 0
    }

    /// Whether a folder that the caller cannot enter is out of the daemon's reach too.
    pub(super) fn shares_reach(self) -> bool {
        let is_the_callers = self.source == Source::Daemon && self.uid == geteuid().as_raw();
        is_the_callers || geteuid().is_root()
    }

    /// Whether root tries in the place of this other user.
    pub(super) fn is_impersonated(self) -> bool {
        geteuid().is_root() && self.uid != 0
    }

    /// Does something with files as this user does it, unless the disk does not answer. None if the caller
    /// is another user, and not root.
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

    /// Gives this thread, and no other, the user's access to files. Without root's id the kernel takes its
    /// privileges over files from the thread.
    fn take_over_thread(self) -> io::Result<()> {
        let (gid, uid) = (Gid::from_raw(self.gid), Uid::from_raw(self.uid));
        setfsgid(gid);
        setfsuid(uid);
        // The calls return the id of before, also when they fail.
        if (setfsgid(gid), setfsuid(uid)) == (gid, uid) {
            return Ok(());
        }
        let reason = format!("root may not act as user {uid} here (CAP_SETUID, CAP_SETGID)");
        Err(io::Error::other(reason))
    }
}

impl Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = self.uid;
        match self.source {
            Source::Daemon => write!(f, "user {uid}, which the daemon runs as,"),
            Source::Folder => write!(f, "user {uid}, which owns the folder of SNAPSHOT_PATH,"),
            Source::Caller => write!(f, "user {uid}, which runs this,"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn the_daemons_user_goes_first_and_then_the_owner_of_the_folder() {
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
