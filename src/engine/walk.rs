//! A worker's walk through its slots, and its sleep through the empty ones.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::schedule::{Schedule, Slot};
use crate::clock::Time;

/// One worker's position in its schedule, and its sleep through slots without clients. Only the worker moves the
/// position. When a client registers in an empty shard, the listener calls [`Self::wake`], so that the worker serves
/// the slots from then on instead of skipping them.
#[derive(Debug)]
pub(super) struct Walk {
    position: Mutex<Position>,
    /// When the worker was first woken since its last search for slots with clients, in nanoseconds.
    woken: AtomicU64,
}

#[derive(Debug)]
struct Position {
    schedule: Schedule,
    /// The end of the sleep. `None` while the worker is awake.
    asleep_until: Option<Time>,
}

impl Walk {
    pub(super) fn new(schedule: Schedule) -> Self {
        let position = Position { schedule, asleep_until: None };
        Self { position: Mutex::new(position), woken: u64::MAX.into() }
    }

    /// Moves to the first slot that is due at `time` or later.
    pub(super) fn restart(&self, time: Time) {
        self.position().schedule.restart(time);
    }

    /// Wakes the worker, because a client registered at `now` in an empty shard.
    pub(super) fn wake(&self, now: Time) {
        self.woken.fetch_min(now.as_nanos(), AcqRel);
    }

    /// Ends the sleep, if the worker was asleep. Skips the slots it slept through, which had no clients, and
    /// returns their number. Slots after a wake-up are still served, if late.
    pub(super) fn wake_up(&self, now: Time) -> u64 {
        let mut position = self.position();
        let Some(asleep_until) = position.asleep_until.take() else { return 0 };
        let woken = Time::from_nanos(self.woken.load(Acquire));
        position.schedule.pass(asleep_until.min(woken).min(now))
    }

    /// Sleeps until the next slot whose shard is not empty, or until `latest`. Returns the end of the sleep.
    pub(super) fn fall_asleep(&self, latest: Time, is_empty: impl Fn(usize) -> bool) -> Time {
        let mut position = self.position();
        // Store before checking the shards, so that a client that registers during the check wakes the
        // worker.
        self.woken.store(u64::MAX, Release);
        let mut upcoming = position.schedule.upcoming().take_while(|(_, due)| *due < latest);
        let next = upcoming.find(|(shard, _)| !is_empty(*shard)).map_or(latest, |(_, due)| due);
        position.asleep_until = Some(next);
        next
    }

    /// When the next slot is due.
    pub(super) fn next_due(&self) -> Time {
        self.position().schedule.deadline()
    }

    /// Takes the next slot.
    pub(super) fn take(&self, now: Time) -> Slot {
        self.position().schedule.take(now)
    }

    /// The worker's shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        self.position().schedule.shards()
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
