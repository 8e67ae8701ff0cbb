//! Statistics on snapshots.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Counter;
use crate::clock::Time;

/// Counts the snapshots written to disk and keeps the outcome of the last write.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The snapshot interval, if snapshots are enabled.
    pub interval: Option<Duration>,
    /// The number of successful writes.
    pub written: Counter,
    /// The number of failed writes.
    pub failed: Counter,
    /// Why the snapshot found at startup was not used. `None` if it was used, or no snapshot existed.
    pub unused: Option<String>,
    last: Mutex<(Option<LastSnapshot>, Option<Failure>)>,
}

/// A failed write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error message.
    pub reason: String,
    /// The remedy, as the end of a sentence such as "To fix this, …".
    pub remedy: &'static str,
}

/// The snapshot on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSnapshot {
    /// The time at which the write began.
    pub begun: Time,
    /// The duration of the write.
    pub took: Duration,
    /// The number of clients in the snapshot.
    pub clients: u64,
    /// The size of the file in bytes.
    pub bytes: u64,
}

impl Snapshots {
    /// Records a successful write.
    pub fn wrote(&self, snapshot: LastSnapshot) {
        self.written.add(1);
        *self.locked() = (Some(snapshot), None);
    }

    /// Records a failed write. The previous snapshot is still in place.
    pub fn fail(&self, failure: Failure) {
        self.failed.add(1);
        self.locked().1 = Some(failure);
    }

    /// Marks the last snapshot as current at `now`, because nothing has changed since.
    pub fn confirm(&self, now: Time) {
        if let Some(snapshot) = &mut self.locked().0 {
            snapshot.begun = now;
        }
    }

    /// Returns the last snapshot.
    pub fn last(&self) -> Option<LastSnapshot> {
        self.locked().0
    }

    /// Returns the failure of the last write. `None` if the last write succeeded.
    pub fn failure(&self) -> Option<Failure> {
        self.locked().1.clone()
    }

    fn locked(&self) -> MutexGuard<'_, (Option<LastSnapshot>, Option<Failure>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
