//! The snapshot file. It is written under a temporary name and renamed when complete, read at startup, and put
//! aside if it cannot be used.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use tracing::{info, warn};

use super::keeper::FINAL_SNAPSHOT_TIMEOUT;
use super::{Moment, Snapshot, Written};
use crate::catalogue::daemon::SNAPSHOT_UNUSED;
use crate::clock;
use crate::disk;

/// Only the daemon's user may read the file: it holds the clients' addresses and the seed.
const MODE: u32 = 0o600;

/// How long startup waits for the lock. The previous daemon releases it after its last snapshot.
const HANDOVER_TIMEOUT: Duration =
    FINAL_SNAPSHOT_TIMEOUT.saturating_add(Duration::from_millis(500));

/// The time between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The result of looking for a snapshot at startup.
#[derive(Debug, Default)]
pub struct Found {
    /// The snapshot, if this daemon can use it.
    pub snapshot: Option<Snapshot>,
    /// Why an existing file was not used.
    pub unused: Option<String>,
}

/// The snapshot file, which only one daemon at a time can use. The lock is on a separate file, because each
/// new snapshot replaces the previous snapshot file. The kernel releases the lock when the process ends.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    lock: Lock,
    /// True if the file at the path was not used and must be preserved.
    has_unused: bool,
}

#[derive(Debug)]
enum Lock {
    /// The lock is not taken: no attempt has been made, or the last attempt failed.
    Free,
    Taken {
        _file: Flock<File>,
    },
    /// The file system does not support locks.
    Unsupported,
    /// Another daemon held the lock at startup, so the file holds that daemon's clients.
    Foreign,
}

impl SnapshotFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, lock: Lock::Free, has_unused: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the snapshot if a daemon at `port` can use it. An unusable snapshot is put aside, unless it
    /// belongs to another daemon.
    pub(super) fn find(&mut self, port: u16) -> Found {
        let path = self.path.display().to_string();
        if let Err(error) = self.lock_at_the_start()
            && error.kind() == ErrorKind::ResourceBusy
        {
            self.lock = Lock::Foreign;
            warn!(
                path,
                "{FOREIGN}, so this daemon starts without the clients in the snapshot and writes no snapshot: {OWN_PATH}"
            );
            return Found::default();
        }
        let unused = match self.read(port) {
            Ok(snapshot) => return Found { snapshot: Some(snapshot), unused: None },
            Err(None) => {
                info!(path, "no snapshot exists yet, so the daemon starts without clients");
                return Found::default();
            }
            Err(Some(reason)) => reason,
        };
        self.has_unused = true;
        let kept = match self.put_aside() {
            Ok(()) => format!("kept as {}", with_ending(&self.path, ".bad").display()),
            Err(error) => format!("not yet renamed, because of this error: {error}"),
        };
        let problem = SNAPSHOT_UNUSED.with(&[("reason", &unused)]);
        warn!(path, reason = unused, kept, "{problem}");
        Found { snapshot: None, unused: Some(unused) }
    }

    /// Preserves a snapshot that was read too late to be used.
    pub(super) fn found_too_late(&mut self) {
        if !matches!(self.lock, Lock::Foreign) {
            self.has_unused = true;
        }
    }

    /// Fails with the reason why the snapshot is unusable, or with `None` if there is no file.
    fn read(&self, port: u16) -> Result<Snapshot, Option<String>> {
        let bytes = match disk::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(None),
            Err(error) => return Err(Some(format!("the file cannot be read ({error})"))),
        };
        let snapshot = Snapshot::parse(bytes).and_then(|snapshot| {
            snapshot.suits(port, &Moment::now())?;
            Ok(snapshot)
        });
        snapshot.map_err(|reason| Some(reason.to_string()))
    }

    fn put_aside(&mut self) -> io::Result<()> {
        if self.has_unused {
            // Without the lock the file may belong to another daemon.
            self.lock()?;
            match fs::rename(&self.path, with_ending(&self.path, ".bad")) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => self.has_unused = false,
            }
        }
        Ok(())
    }

    fn lock_at_the_start(&mut self) -> io::Result<()> {
        let end = clock::now() + HANDOVER_TIMEOUT;
        loop {
            match self.lock() {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && clock::now() < end => {
                    thread::sleep(LOCK_RETRY);
                }
                result => return result,
            }
        }
    }

    /// Takes the lock, unless this daemon holds it already.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`] if another daemon holds the lock. Other kinds if the lock file cannot be
    /// opened.
    fn lock(&mut self) -> io::Result<()> {
        match self.lock {
            Lock::Free => {}
            Lock::Taken { .. } | Lock::Unsupported => return Ok(()),
            Lock::Foreign => return Err(foreign()),
        }
        let path = lock_path(&self.path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE);
        let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))
        })?;
        self.lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Lock::Taken { _file: file },
            Err((_, Errno::EWOULDBLOCK)) => return Err(foreign()),
            Err((_, error)) => {
                let path = path.display();
                info!(%path, %error, "cannot lock the snapshot, so the daemon runs without the lock. Make sure that no other wakeupd uses this SNAPSHOT_PATH: it could overwrite the snapshot.");
                Lock::Unsupported
            }
        };
        Ok(())
    }

    /// Atomically replaces the snapshot by the output of `write`. If `is_last` is true, syncs the snapshot to
    /// the disk before returning.
    pub(super) fn replace(
        &mut self,
        is_last: bool,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<Option<Written>>,
    ) -> io::Result<Option<Written>> {
        self.lock()?;
        self.put_aside()?;
        let beside = with_ending(&self.path, ".tmp");
        // A daemon that was killed during a write leaves this file behind. A link made by another user is not
        // followed.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let written = write(&mut out).and_then(|written| {
            if written.is_some() {
                let file = out.get_ref();
                if is_last {
                    file.sync_all()?;
                }
                fs::rename(&beside, &self.path)?;
                if is_last {
                    File::open(folder(&self.path))?.sync_all()?;
                }
            }
            Ok(written)
        });
        if !matches!(written, Ok(Some(_))) {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

const FOREIGN: &str = "another wakeupd uses this snapshot";
const OWN_PATH: &str = "give each daemon its own SNAPSHOT_PATH and restart this daemon";

fn foreign() -> io::Error {
    io::Error::new(ErrorKind::ResourceBusy, FOREIGN)
}

/// The remedy for an error of writing the snapshot, as the end of a sentence such as "To fix this, …".
#[must_use]
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space on the disk of SNAPSHOT_PATH"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "remount the disk of SNAPSHOT_PATH read-write, or set SNAPSHOT_PATH to another disk"
        }
        ErrorKind::NotFound => "create the folder of SNAPSHOT_PATH, or correct SNAPSHOT_PATH",
        ErrorKind::PermissionDenied => {
            "give the daemon's user write access to the folder of SNAPSHOT_PATH and the files in it, or set SNAPSHOT_PATH to another folder"
        }
        // EBUSY from the kernel: a mount point cannot be renamed or replaced.
        ErrorKind::ResourceBusy if error.raw_os_error().is_some() => {
            "mount the folder of SNAPSHOT_PATH instead of the file: a mount point cannot be replaced"
        }
        ErrorKind::ResourceBusy => OWN_PATH,
        _ => "check the disk of SNAPSHOT_PATH, or set SNAPSHOT_PATH to another disk",
    }
}

/// The lock file that a daemon holds while it uses the snapshot at `path`.
#[must_use]
pub fn lock_path(path: &Path) -> PathBuf {
    with_ending(path, ".lock")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
