//! A snapshot's file: written beside its place and put there when it is whole, read at the start, and put
//! aside if it cannot be used.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{Moment, Snapshot, Unusable, Written};

/// Others have no business with it: it tells who the clients are, and the seed.
const MODE: u32 = 0o600;

/// The snapshot at `path`, if there is one that a daemon at `port` can use. One that it cannot use is put
/// aside.
#[must_use]
pub fn find(path: &Path, port: u16, now: &Moment) -> Option<Snapshot> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            info!(path = %path.display(), "there is no snapshot yet");
            return None;
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "cannot read the snapshot, so its clients are forgotten until their next heartbeats");
            return None;
        }
    };
    let snapshot = Snapshot::parse(bytes).and_then(|snapshot| {
        snapshot.suits(port, now)?;
        Ok(snapshot)
    });
    snapshot.map_err(|reason| put_aside(path, &reason)).ok()
}

fn put_aside(path: &Path, reason: &Unusable) {
    let aside = with_ending(path, ".bad");
    let kept = match fs::rename(path, &aside) {
        Ok(()) => format!("kept as {}", aside.display()),
        Err(error) => format!("not put aside: {error}"),
    };
    warn!(path = %path.display(), %reason, kept, "cannot use the snapshot, so its clients are forgotten until their next heartbeats");
}

/// Puts what `write` writes at `path`, in one step. With `is_last` it is on the disk when this returns.
pub(super) fn replace(
    path: &Path,
    is_last: bool,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<Option<Written>>,
) -> io::Result<Option<Written>> {
    let beside = with_ending(path, ".tmp");
    // Another one may have been killed in the middle. A link that somebody else made is not followed.
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
            fs::rename(&beside, path)?;
            if is_last {
                File::open(folder(path))?.sync_all()?;
            }
        }
        Ok(written)
    });
    if !matches!(written, Ok(Some(_))) {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
