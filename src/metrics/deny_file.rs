//! The reads of `DENY_FILE`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Counter;
use crate::clock::Time;

/// How often `DENY_FILE` could not be read, and the outcome of the last read.
#[derive(Debug, Default)]
pub struct DenyFileReads {
    /// Whether there is such a file.
    pub is_set: bool,
    /// Failed reads.
    pub failed: Counter,
    last: Mutex<(Option<Time>, Option<FailedRead>)>,
}

/// A failed read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRead {
    /// When it failed, by the wall clock.
    pub wall: Time,
    /// Why.
    pub reason: String,
    /// The wrong line, from 1, if the content is the reason.
    pub line: Option<usize>,
}

impl DenyFileReads {
    /// A read succeeded at this time of the wall clock.
    pub fn succeed(&self, wall: Time) {
        *self.locked() = (Some(wall), None);
    }

    /// A read failed.
    pub fn fail(&self, failed: FailedRead) {
        self.failed.add(1);
        self.locked().1 = Some(failed);
    }

    /// When a read succeeded last, by the wall clock, and the failure if a later one failed.
    pub fn last(&self) -> (Option<Time>, Option<FailedRead>) {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, (Option<Time>, Option<FailedRead>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
