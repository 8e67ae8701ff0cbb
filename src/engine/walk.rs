//! A worker's walk through its slots, and its sleep through the empty ones.

use std::mem;
use std::ops::Range;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wakeupd_protocol::PERIOD;

use super::layout::Layout;
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
    /// The whole seconds skipped since the last slot.
    skipped_seconds: u64,
}

impl Walk {
    pub(super) fn new(schedule: Schedule) -> Self {
        let position = Position { schedule, asleep_until: None, skipped_seconds: 0 };
        Self { position: Mutex::new(position), woken: u64::MAX.into() }
    }

    /// Moves to the first slot that is due at `time` or later, in a second with this `layout`.
    pub(super) fn restart(&self, time: Time, layout: Layout) {
        self.position().schedule.restart(time, layout);
    }

    /// Wakes the worker, because a client registered at `now` in an empty shard.
    pub(super) fn wake(&self, now: Time) {
        self.woken.fetch_min(now.as_nanos(), AcqRel);
    }

    /// Takes the next slot, if it is due at `now`. `layout` gives the layout of a second.
    ///
    /// The worker skips the slots through which it slept, which had no clients. Slots after a wake-up are served, if
    /// late.
    pub(super) fn poll(&self, now: Time, layout: impl Fn(Time) -> Layout) -> Option<Slot> {
        let mut position = self.position();
        if let Some(asleep_until) = position.asleep_until.take() {
            let woken = Time::from_nanos(self.woken.load(Acquire));
            let until = asleep_until.min(woken).min(now);
            if position.schedule.deadline() < until {
                position.schedule.restart(until, layout(until.second()));
            }
        }
        position.poll(now, layout)
    }

    /// Falls asleep until the next slot with clients, or the end of the second, but no longer than until `latest`. If
    /// `rests` finds that there is nothing to do until a wake-up, falls asleep until `latest`; its argument is whether
    /// the worker has slots in this second. Returns the end of the sleep.
    pub(super) fn fall_asleep(
        &self,
        latest: Time,
        rests: impl FnOnce(bool) -> bool,
        is_empty: impl Fn(Range<usize>) -> bool,
    ) -> Time {
        let mut position = self.position();
        let schedule = &position.schedule;
        // Store before checking the shards, so that a client that registers during the check wakes the
        // worker.
        self.woken.store(u64::MAX, Release);
        let until = if rests(schedule.has_work()) {
            latest
        } else {
            let next = schedule.rest().find(|(shards, _)| !is_empty(shards.clone()));
            next.map_or(schedule.second() + PERIOD, |(_, due)| due).min(latest)
        };
        position.asleep_until = Some(until);
        until
    }

    /// When the next slot is due. If no slot is left in this second, when the next second begins.
    pub(super) fn next_due(&self) -> Time {
        self.position().schedule.deadline()
    }

    /// The worker's shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        self.position().schedule.shards()
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Position {
    fn poll(&mut self, now: Time, layout: impl Fn(Time) -> Layout) -> Option<Slot> {
        loop {
            let due = self.schedule.deadline();
            if due > now {
                return None;
            }
            if !self.schedule.has_slot() {
                let next = self.schedule.second() + PERIOD;
                let has_work = self.schedule.has_work();
                let second = if has_work { next } else { next.max(now.second()) };
                self.schedule.enter(second, layout(second));
                continue;
            }
            let skipped = now.since(due).as_secs();
            if skipped == 0 {
                let skipped_seconds = mem::take(&mut self.skipped_seconds);
                return Some(Slot { skipped_seconds, ..self.schedule.take() });
            }
            self.skipped_seconds += skipped;
            let resumed = due + Duration::from_secs(skipped);
            self.schedule.restart(resumed, layout(resumed.second()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_secs(5);
    const SLOTS: usize = 4;

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    fn layout(_second: Time) -> Layout {
        Layout { slots: SLOTS, workers: 1 }
    }

    fn walk() -> Walk {
        Walk::new(Schedule::new(0, SLOTS, START, layout(START)))
    }

    #[test]
    fn a_late_start_keeps_the_phases_of_the_slots() {
        for (from, due, shard) in
            [(0, 0, 0), (1, 250, 1), (250, 250, 1), (751, 1_000, 0), (9_999, 10_000, 0)]
        {
            let walk = walk();
            walk.restart(at(from), layout(START));
            assert_eq!(walk.poll(at(due).before(Duration::from_nanos(1)), layout), None);
            let slot = walk.poll(at(due), layout).unwrap();
            let found = (slot.shards, slot.due, slot.skipped_seconds);
            assert_eq!(found, (shard..shard + 1, at(due), 0), "{from}");
        }
    }

    #[test]
    fn a_late_slot_does_not_move_the_next_deadline() {
        let walk = walk();
        let slot = Slot { shards: 0..1, due: START, next_due: at(250), skipped_seconds: 0 };
        assert_eq!(walk.poll(at(700), layout), Some(slot));
        assert_eq!(walk.next_due(), at(250));
    }

    #[test]
    fn whole_seconds_of_lateness_are_skipped() {
        for (now, due, seconds) in [(1_249, 250, 0), (1_250, 1_250, 1), (3_900, 3_250, 3)] {
            let walk = walk();
            walk.poll(START, layout);
            let next_due = at(seconds * 1_000 + 500);
            let slot = Slot { shards: 1..2, due: at(due), next_due, skipped_seconds: seconds };
            assert_eq!(walk.poll(at(now), layout), Some(slot));
            assert_eq!(walk.next_due(), next_due);
        }
    }

    #[test]
    fn an_overload_skips_slots_of_all_shards_equally() {
        const SHARDS: usize = 64;
        let layout = |_| Layout { slots: SHARDS, workers: 8 };
        let walk = Walk::new(Schedule::new(3, SHARDS, START, layout(START)));
        let owned: Vec<_> = walk.shards().collect();
        let mut now = START;
        let (mut taken, mut skipped) = (0, 0);
        let mut served = [0_u64; SHARDS];
        while now < START + Duration::from_secs(100) {
            let Some(slot) = walk.poll(now, layout) else {
                now = walk.next_due();
                continue;
            };
            assert!(now.since(slot.due) < PERIOD);
            taken += 1;
            skipped += slot.skipped_seconds * owned.len() as u64;
            slot.shards.for_each(|shard| served[shard] += 1);
            let counts = owned.iter().map(|shard| served[*shard]);
            assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1, "{served:?}");
            // Serving a slot takes 2.5 times the length of a slot.
            now = now + PERIOD * 5 / 2 / 8;
        }
        assert_eq!(taken, 40 * owned.len() as u64);
        let due = 100 * owned.len() as u64;
        assert!((taken + skipped).abs_diff(due) <= owned.len() as u64, "{skipped} skipped");

        for _ in 0..100 {
            let _ = walk.poll(now, layout);
            now = now + PERIOD / 2 / 8;
        }
        let now = walk.next_due();
        let slot = walk.poll(now, layout).unwrap();
        assert_eq!((slot.due, slot.skipped_seconds), (now, 0));
    }

    #[test]
    fn a_pause_of_a_year_is_skipped_at_once() {
        let year = 365 * 24 * 3600;
        let walk = walk();
        let now = START + Duration::from_secs(year);
        let slot = walk.poll(now, layout).unwrap();
        assert_eq!((slot.due, slot.skipped_seconds), (now, year));
    }

    #[test]
    fn deadlines_do_not_drift() {
        let walk = walk();
        let mut now = START;
        for _ in 0..100_000 {
            now = walk.next_due();
            // The last poll of a second only enters the next one.
            let _ = walk.poll(now, layout);
        }
        assert_eq!(now.since(START).subsec_nanos() % 250_000_000, 0);
    }

    #[test]
    fn a_sleeper_skips_the_slots_through_which_it_slept_unless_it_was_woken() {
        for (woken, due) in [(None, 750), (Some(300), 500)] {
            let walk = walk();
            assert!(walk.poll(START, layout).is_some());
            let is_empty = |shards: Range<usize>| shards != (3..4);
            assert_eq!(walk.fall_asleep(at(60_000), |_| false, is_empty), at(750));
            if let Some(woken) = woken {
                walk.wake(at(woken));
            }
            assert_eq!(walk.poll(at(760), layout).unwrap().due, at(due));
        }
    }

    #[test]
    fn a_worker_without_work_enters_the_present_second_at_once() {
        let layout =
            |second| Layout { slots: SLOTS, workers: if second < at(9_000) { 1 } else { 2 } };
        let walk = Walk::new(Schedule::new(1, SLOTS, START, layout(START)));
        let rests = |has_work: bool| !has_work;
        for now in [0, 7_100] {
            assert_eq!(walk.poll(at(now), layout), None);
            assert_eq!(walk.fall_asleep(at(60_000), rests, |_| false), at(60_000));
        }
        walk.wake(at(8_300));
        assert_eq!(walk.poll(at(8_300), layout), None);
        assert_eq!(walk.fall_asleep(at(60_000), |_| false, |_| false), at(9_000));
        assert_eq!(walk.poll(at(9_000), layout), None);
        let slot = Slot { shards: 1..2, due: at(9_250), next_due: at(9_750), skipped_seconds: 0 };
        assert_eq!(walk.poll(at(9_250), layout), Some(slot));
    }
}
