//! Statistics on the reads of `DENY_FILE`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Counter;
use crate::clock::Time;

/// Counts failed reads of `DENY_FILE` and keeps the outcome of the last one.
#[derive(Debug, Default)]
pub struct DenyFileReads {
    /// Whether `DENY_FILE` is set.
    pub is_set: bool,
    /// The number of failed reads.
    pub failed: Counter,
    last: Mutex<(Option<Time>, Option<FailedRead>)>,
}

/// A failed read of `DENY_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRead {
    /// The wall-clock time of the failure.
    pub wall: Time,
    /// The cause.
    pub reason: String,
    /// The number of the invalid line, from 1, if the content is the cause.
    pub line: Option<usize>,
}

impl DenyFileReads {
    /// Records a successful read at wall-clock time `wall`.
    pub fn succeed(&self, wall: Time) {
        *self.locked() = (Some(wall), None);
    }

    /// Records a failed read.
    pub fn fail(&self, failed: FailedRead) {
        self.failed.add(1);
        self.locked().1 = Some(failed);
    }

    /// Returns the wall-clock time of the last successful read, and the failure if a later read failed.
    pub fn last(&self) -> (Option<Time>, Option<FailedRead>) {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, (Option<Time>, Option<FailedRead>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
