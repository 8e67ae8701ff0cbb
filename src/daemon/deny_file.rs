//! Reloads `DENY_FILE` at each SIGHUP, and retries until the first successful read.

use std::future;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::{DenyFile, DenyFileError};
use crate::disk;
use crate::threads;

/// The delay between attempts to read the file, until it has been read once.
const RETRY: Duration = Duration::from_secs(5);

/// Reads the file in a thread of its own, one read at a time. A disk that does not answer blocks only that
/// thread.
#[derive(Debug)]
pub(super) struct DenyFileReader {
    file: DenyFile,
    /// Each file sent here is read by the thread.
    requests: Sender<DenyFile>,
    reads: UnboundedReceiver<Result<DenyFile, DenyFileError>>,
    is_reading: bool,
    /// When the current read is reported as timed out. The read itself continues. `None` if the timeout has
    /// already been reported.
    deadline: Option<Instant>,
    /// Whether to read again after the current read, which may have begun before the last change.
    is_outdated: bool,
    retry: Option<Instant>,
}

impl DenyFileReader {
    /// Starts the thread. Begins to read the file if it was not read during the start.
    ///
    /// # Errors
    /// If the system refuses a new thread.
    pub(super) fn start(file: DenyFile) -> io::Result<Self> {
        let (requests, requested) = mpsc::channel::<DenyFile>();
        let (done, reads) = unbounded_channel();
        threads::start("deny-file", move || {
            for file in requested {
                let _ = done.send(file.read());
            }
        })?;
        let mut deny_file_reader = Self {
            file,
            requests,
            reads,
            is_reading: false,
            deadline: None,
            is_outdated: false,
            retry: None,
        };
        if deny_file_reader.file.networks().is_none() {
            deny_file_reader.begin();
            deny_file_reader.deadline = None;
        }
        Ok(deny_file_reader)
    }

    pub(super) fn file(&self) -> &DenyFile {
        &self.file
    }

    /// Reloads the file, once the current read has ended.
    pub(super) fn reload(&mut self) {
        if self.is_reading {
            self.is_outdated = true;
        } else {
            self.begin();
        }
    }

    fn begin(&mut self) {
        // If the thread has panicked, `reads` has ended.
        let _ = self.requests.send(self.file.clone());
        self.is_reading = true;
        self.deadline = Some(Instant::now() + disk::TIMEOUT);
        self.retry = None;
    }

    /// Waits for the outcome of a read, or for its timeout. Cancel-safe.
    pub(super) async fn next_read(&mut self) -> Result<DenyFile, DenyFileError> {
        if let Some(retry) = self.retry {
            sleep_until(retry).await;
            self.begin();
        }
        if !self.is_reading {
            return future::pending().await;
        }
        let reading = self.reads.recv();
        let read = match self.deadline {
            None => Ok(reading.await),
            Some(deadline) => timeout_at(deadline, reading).await,
        };
        let Ok(read) = read else {
            self.deadline = None;
            return Err(disk::no_answer().into());
        };
        self.is_reading = false;
        let read = read.unwrap_or_else(|| {
            Err(io::Error::other("the thread that reads the file has ended: restart the daemon")
                .into())
        });
        if std::mem::take(&mut self.is_outdated) {
            self.begin();
        }
        match read {
            Ok(file) => self.file = file,
            Err(error) => {
                let is_to_retry = self.file.networks().is_none() && !self.is_reading;
                self.retry = is_to_retry.then(|| Instant::now() + RETRY);
                return Err(error);
            }
        }
        Ok(self.file.clone())
    }
}

/// Waits for the next read of `DENY_FILE`. On failure, returns the previous file with the error.
pub(super) async fn next_read(
    deny_file_reader: &mut Option<DenyFileReader>,
) -> Result<DenyFile, (DenyFile, DenyFileError)> {
    let Some(deny_file_reader) = deny_file_reader else { return future::pending().await };
    let read = deny_file_reader.next_read().await;
    let before = deny_file_reader.file().clone();
    read.map_err(|error| (before, error))
}
