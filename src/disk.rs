//! File access on a disk that may never answer, such as a network file system without its server.
//!
//! A blocked file operation cannot be cancelled. So each operation that the start depends on runs in its own
//! thread, which is abandoned at the deadline. Abandoned threads do not keep the process from exiting.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::threads;

/// The maximum time that the start waits for a file.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `act` in a thread and waits up to [`TIMEOUT`] for its result.
///
/// # Errors
/// If `act` fails, if the deadline passes ([`ErrorKind::TimedOut`]) or if the thread cannot be started.
pub fn within_patience<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    threads::start("disk", move || {
        let _ = done.send(act());
    })?;
    result.recv_timeout(TIMEOUT).map_err(|_| no_answer())?
}

/// Returns the error for an operation that missed its deadline.
#[must_use]
pub fn no_answer() -> io::Error {
    let message = format!("the disk did not answer within {} s", TIMEOUT.as_secs());
    io::Error::new(ErrorKind::TimedOut, message)
}

/// Reads a regular file. Refuses anything else, such as a FIFO, instead of waiting for a writer.
///
/// # Errors
/// If the file is not regular ([`ErrorKind::InvalidInput`]), or cannot be opened or read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let nonblocking = OFlag::O_NONBLOCK.bits();
    let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    check_regular(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_regular(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let message = format!("the path names {}, not a regular file", name(kind));
    Err(io::Error::new(ErrorKind::InvalidInput, message))
}

fn name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = std::env::temp_dir().join(format!("wakeupd-disk-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (file, fifo) = (folder.join("file"), folder.join("fifo"));
        std::fs::write(&file, "text").unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reads = [&file, &fifo, &folder, Path::new("/dev/null")].map(read);
        std::fs::remove_dir_all(&folder).unwrap();
        let reads = reads.map(|read| read.map_err(|error| error.to_string()));
        let refused = |kind| Err(format!("the path names {kind}, not a regular file"));
        let expected = ["a FIFO", "a folder", "a device"].map(refused);
        assert_eq!(reads[0].as_deref(), Ok(&b"text"[..]));
        assert_eq!(reads[1..], expected);
    }

    #[test]
    fn a_disk_that_does_not_answer_times_out() {
        assert_eq!(within_patience(|| Ok(7)).unwrap(), 7);
        let (_never, forever) = mpsc::channel::<()>();
        let error = within_patience(move || Ok(forever.recv())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "the disk did not answer within 5 s");
    }
}
