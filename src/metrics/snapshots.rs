//! What became of the snapshots.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Counter;
use crate::clock::Time;

/// How often the clients were written to the disk, and how it went the last time.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The time in which one is to be written, if any is.
    pub interval: Option<Duration>,
    /// How often it went well.
    pub written: Counter,
    /// How often it did not.
    pub failed: Counter,
    /// Why the file found at the start was not used, if it was not.
    pub unused: Option<String>,
    last: Mutex<(Option<LastSnapshot>, Option<Failure>)>,
}

/// A snapshot that could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the system said.
    pub reason: String,
    /// What to do about it, as the end of a sentence.
    pub remedy: &'static str,
}

/// The snapshot that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSnapshot {
    /// When it was begun.
    pub begun: Time,
    /// How long it took.
    pub took: Duration,
    /// The clients in it.
    pub clients: u64,
    /// Its size.
    pub bytes: u64,
}

impl Snapshots {
    /// The last one was written.
    pub fn wrote(&self, snapshot: LastSnapshot) {
        self.written.add(1);
        *self.locked() = (Some(snapshot), None);
    }

    /// One could not be written. The last one is still there.
    pub fn fail(&self, failure: Failure) {
        self.failed.add(1);
        self.locked().1 = Some(failure);
    }

    /// The last one still tells all there is to tell.
    pub fn confirm(&self, now: Time) {
        if let Some(snapshot) = &mut self.locked().0 {
            snapshot.begun = now;
        }
    }

    /// The last one.
    pub fn last(&self) -> Option<LastSnapshot> {
        self.locked().0
    }

    /// Why there is no younger one, if one failed after it.
    pub fn failure(&self) -> Option<Failure> {
        self.locked().1.clone()
    }

    fn locked(&self) -> MutexGuard<'_, (Option<LastSnapshot>, Option<Failure>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
