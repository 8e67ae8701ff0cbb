//! Reads `DENY_FILE` again: at each SIGHUP, and until the disk has answered once.

use std::future;
use std::io;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::{DenyFile, DenyFileError};
use crate::disk;

/// How long to wait before the next attempt while the file has never been read.
const RETRY: Duration = Duration::from_secs(5);

/// One read at a time, in a thread, so a disk that does not answer blocks neither the daemon nor more than
/// that thread.
#[derive(Debug)]
pub(super) struct Denials {
    file: DenyFile,
    reading: Option<JoinHandle<Result<DenyFile, DenyFileError>>>,
    /// When the present read is reported as unanswered. It goes on.
    deadline: Option<Instant>,
    /// Whether to read once more after the present read, which may have begun before the last change.
    is_outdated: bool,
    retry: Option<Instant>,
}

impl Denials {
    /// Begins to read the file if the start could not.
    pub(super) fn new(file: DenyFile) -> Self {
        let mut denials =
            Self { file, reading: None, deadline: None, is_outdated: false, retry: None };
        if denials.file.networks().is_none() {
            denials.begin();
            denials.deadline = None;
        }
        denials
    }

    pub(super) fn file(&self) -> &DenyFile {
        &self.file
    }

    /// Reads the file again.
    pub(super) fn read_again(&mut self) {
        if self.reading.is_some() {
            self.is_outdated = true;
        } else {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let file = self.file.clone();
        self.reading = Some(spawn_blocking(move || file.read()));
        self.deadline = Some(Instant::now() + disk::PATIENCE);
        self.retry = None;
    }

    /// Waits for the outcome of a read, or until one is unanswered for too long. Safe to cancel.
    pub(super) async fn news(&mut self) -> Result<DenyFile, DenyFileError> {
        if let Some(retry) = self.retry {
            sleep_until(retry).await;
            self.begin();
        }
        let Some(reading) = &mut self.reading else { return future::pending().await };
        let read = match self.deadline {
            None => Ok(reading.await),
            Some(deadline) => timeout_at(deadline, reading).await,
        };
        let Ok(read) = read else {
            self.deadline = None;
            return Err(disk::no_answer().into());
        };
        self.reading = None;
        let read = read.unwrap_or_else(|panic| Err(io::Error::other(panic).into()));
        if std::mem::take(&mut self.is_outdated) {
            self.begin();
        }
        match read {
            Ok(file) => self.file = file,
            Err(error) => {
                let is_to_retry = self.file.networks().is_none() && self.reading.is_none();
                self.retry = is_to_retry.then(|| Instant::now() + RETRY);
                return Err(error);
            }
        }
        Ok(self.file.clone())
    }
}
