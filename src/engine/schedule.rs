//! When each slot is due.
//!
//! Each of the *n* slots of a second serves an *n*-th of the shards, and is due at the phase of its last shard: shard
//! *i* of *m* has the phase *i / m* of each second of the clock. The [`Layout`] of the second sets *n* and the worker of
//! each slot. Deadlines are absolute, so neither lateness nor rounding accumulates, and a restarted daemon on the same
//! machine has the same deadlines.
//!
//! A worker that is at least a second late skips whole seconds and continues at the same phase. So even a
//! worker that never catches up serves all its shards equally often.

use std::ops::Range;
use std::time::Duration;

use wakeupd_protocol::PERIOD;

use super::layout::Layout;
use crate::clock::Time;

const PERIOD_NANOS: u64 = PERIOD.as_secs() * 1_000_000_000;

/// A slot of the second that a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The shards to serve.
    pub shards: Range<usize>,
    /// When the slot was due, less than a second ago.
    pub due: Time,
    /// When the worker's next slot is due, or the next second begins.
    pub next_due: Time,
    /// The whole seconds by which the worker was late. It skips its slots of those seconds.
    pub skipped_seconds: u64,
}

/// One worker's position in its walk through the slots.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    worker: usize,
    shards: usize,
    /// The start of the second that contains the next slot.
    second: Time,
    layout: Layout,
    /// The next slot. If it is not below `layout.slots`, the worker has no slot left in this second.
    slot: usize,
}

impl Schedule {
    /// Creates the schedule of worker number `worker`, which begins with the first slot that is due at `time` or later.
    /// `layout` is the layout of the second of `time`.
    pub(super) fn new(worker: usize, shards: usize, time: Time, layout: Layout) -> Self {
        let mut schedule = Self { worker, shards, second: time, layout, slot: 0 };
        schedule.restart(time, layout);
        schedule
    }

    /// Moves to the worker's first slot that is due at `time` or later, in a second with this `layout`.
    pub(super) fn restart(&mut self, time: Time, layout: Layout) {
        self.enter(time.second(), layout);
        self.pass(time);
    }

    /// Moves to the worker's first slot in `second`, which has this `layout`.
    pub(super) fn enter(&mut self, second: Time, layout: Layout) {
        let has_work = self.worker < layout.workers;
        let slot = if has_work { self.worker } else { layout.slots };
        (self.second, self.layout, self.slot) = (second, layout, slot);
    }

    /// Moves on to the worker's first slot in this second that is due at `time` or later.
    fn pass(&mut self, time: Time) {
        while self.has_slot() && self.deadline() < time {
            self.slot += self.layout.workers;
        }
    }

    /// The start of the second that contains the next slot.
    pub(super) fn second(&self) -> Time {
        self.second
    }

    /// Whether the worker serves any slot in this second.
    pub(super) fn has_work(&self) -> bool {
        self.worker < self.layout.workers
    }

    /// Whether the worker has a slot left in this second.
    pub(super) fn has_slot(&self) -> bool {
        self.slot < self.layout.slots
    }

    /// When the next slot is due. If no slot is left in this second, when the next second begins.
    pub(super) fn deadline(&self) -> Time {
        if !self.has_slot() {
            return self.second + PERIOD;
        }
        let (last, shards) = (self.slot_shards().end as u64 - 1, self.shards as u64);
        self.second + Duration::from_nanos(PERIOD_NANOS * last / shards)
    }

    /// The worker's slots that are left in this second: the shards of each, and when it is due.
    pub(super) fn rest(&self) -> impl Iterator<Item = (Range<usize>, Time)> + use<> {
        let mut walk = self.clone();
        std::iter::from_fn(move || {
            let slot = walk.has_slot().then(|| (walk.slot_shards(), walk.deadline()));
            walk.slot += walk.layout.workers;
            slot
        })
    }

    /// Takes the next slot, of which there must be one in this second.
    pub(super) fn take(&mut self) -> Slot {
        let (shards, due) = (self.slot_shards(), self.deadline());
        self.slot += self.layout.workers;
        Slot { shards, due, next_due: self.deadline(), skipped_seconds: 0 }
    }

    /// The shards of all slots of the worker.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        let mut all = self.clone();
        all.enter(self.second, self.layout);
        all.rest().flat_map(|(shards, _)| shards)
    }

    /// The shards of the next slot.
    fn slot_shards(&self) -> Range<usize> {
        let width = self.shards / self.layout.slots;
        self.slot * width..(self.slot + 1) * width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_secs(5);

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    fn schedule(worker: usize, shards: usize, layout: (usize, usize)) -> Schedule {
        Schedule::new(worker, shards, START, Layout { slots: layout.0, workers: layout.1 })
    }

    #[test]
    fn a_worker_visits_its_slots_at_their_phases() {
        for (shards, width, phases) in [(8, 1, [125, 500, 875]), (1_000, 125, [249, 624, 999])] {
            let mut schedule = schedule(1, shards, (8, 3));
            let mut walk = Vec::new();
            while schedule.has_slot() {
                let slot = schedule.take();
                walk.push((slot.shards, slot.due, slot.next_due));
            }
            let shards = |slot: usize| slot * width..(slot + 1) * width;
            let [one, two, three] = phases.map(at);
            let expected =
                [(shards(1), one, two), (shards(4), two, three), (shards(7), three, at(1_000))];
            assert_eq!(walk, expected);
            assert_eq!(schedule.deadline(), at(1_000));
        }
    }

    #[test]
    fn each_shard_is_served_by_exactly_one_worker() {
        for workers in [1, 2, 3, 10, 1023, 1024] {
            for slots in [8, 256, 1024] {
                let mut served = vec![0; 1024];
                for worker in 0..1024 {
                    let mut schedule = schedule(worker, 1024, (slots, workers));
                    assert_eq!(schedule.has_work(), worker < workers);
                    let shards: Vec<_> = schedule.shards().collect();
                    let mut walk = Vec::new();
                    while schedule.has_slot() {
                        walk.extend(schedule.take().shards);
                    }
                    assert_eq!(walk, shards);
                    for shard in shards {
                        served[shard] += 1;
                    }
                }
                assert_eq!(served, vec![1; 1024], "{slots} slots, {workers} workers");
            }
        }
    }

    #[test]
    fn pass_skips_only_the_slots_due_before_a_time() {
        let mut schedule = schedule(1, 8, (8, 3));
        schedule.pass(at(125));
        assert_eq!(schedule.deadline(), at(125));
        schedule.pass(at(501));
        assert_eq!(schedule.deadline(), at(875));
        schedule.pass(at(999));
        assert!(!schedule.has_slot() && schedule.deadline() == at(1_000));
    }
}
