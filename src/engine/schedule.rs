//! When each shard is due.
//!
//! A second has as many slots as the registry has shards: shard *s* of *S* is due at phase *s / S* of each
//! second of the clock. Worker *w* of *N* owns the shards *s ≡ w (mod N)*. Deadlines are absolute, so neither
//! lateness nor rounding accumulates, and a restarted daemon on the same machine has the same deadlines.
//!
//! A worker that is at least a second late skips whole seconds and continues at the same shard. So even a
//! worker that never catches up serves all its shards equally often.

use std::time::Duration;

use wakeupd_protocol::PERIOD;

use crate::clock::Time;

const PERIOD_NANOS: u64 = PERIOD.as_secs() * 1_000_000_000;

/// A slot of the second that a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The shard to serve.
    pub shard: usize,
    /// When the slot was due, less than a second ago.
    pub due: Time,
    /// When the worker's next slot is due.
    pub next_due: Time,
    /// The whole seconds by which the worker was late. It skips its slots of those seconds.
    pub skipped_seconds: u64,
}

/// The number of the worker that owns `shard`, of `workers` workers.
#[must_use]
pub const fn owner(shard: usize, workers: usize) -> usize {
    shard % workers
}

/// One worker's endless walk through its shards.
#[derive(Clone, Debug)]
pub struct Schedule {
    shards: usize,
    worker: usize,
    workers: usize,
    /// The start of the second that contains the next slot.
    second: Time,
    /// The shard of the next slot.
    shard: usize,
}

impl Schedule {
    /// Creates the walk of worker number `worker` of `workers` through `shards` shards. It starts at the
    /// first slot due at `from` or later.
    ///
    /// # Panics
    /// If the worker would own no shard.
    #[must_use]
    pub fn new(from: Time, shards: usize, worker: usize, workers: usize) -> Self {
        assert!(worker < workers && workers <= shards, "each worker owns at least one shard");
        let mut walk = Self { shards, worker, workers, second: from, shard: worker };
        walk.restart(from);
        walk
    }

    /// Moves to the first slot that is due at `from` or later.
    pub fn restart(&mut self, from: Time) {
        (self.second, self.shard) = (from.second(), self.worker);
        self.pass(from);
    }

    /// When the next slot is due.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let phase = Duration::from_nanos(PERIOD_NANOS * self.shard as u64 / self.shards as u64);
        self.second + phase
    }

    /// The endless sequence of slots from the next one on: the shard of each, and when it is due.
    pub fn upcoming(&self) -> impl Iterator<Item = (usize, Time)> + use<> {
        let mut walk = self.clone();
        std::iter::repeat_with(move || {
            let slot = (walk.shard, walk.deadline());
            walk.advance();
            slot
        })
    }

    /// The shards that the worker owns.
    pub fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        (self.worker..self.shards).step_by(self.workers)
    }

    /// Takes the next slot. If it is at least a second late, takes the same shard's latest due slot instead.
    pub fn take(&mut self, now: Time) -> Slot {
        let seconds = now.since(self.deadline()).as_secs();
        self.second = self.second + Duration::from_secs(seconds);
        let (shard, due) = (self.shard, self.deadline());
        self.advance();
        Slot { shard, due, next_due: self.deadline(), skipped_seconds: seconds }
    }

    /// Skips the slots due before `until`, and returns their number.
    pub fn pass(&mut self, until: Time) -> u64 {
        let mut passed = 0;
        while self.deadline() < until {
            self.advance();
            passed += 1;
        }
        passed
    }

    fn advance(&mut self) {
        self.shard += self.workers;
        if self.shard >= self.shards {
            self.shard = self.worker;
            self.second = self.second + PERIOD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_secs(5);

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_worker_visits_its_shards_at_their_phases() {
        let mut schedule = Schedule::new(START, 8, 1, 3);
        let mut walk = Vec::new();
        for _ in 0..6 {
            let deadline = schedule.deadline();
            walk.push((deadline, schedule.take(deadline).shard));
        }
        let expected = [(125, 1), (500, 4), (875, 7), (1125, 1), (1500, 4), (1875, 7)]
            .map(|(ms, s)| (at(ms), s));
        assert_eq!(walk, expected);
    }

    #[test]
    fn a_late_start_keeps_the_phases_of_the_slots() {
        for (from, due, shard) in
            [(0, 0, 0), (1, 250, 1), (250, 250, 1), (751, 1_000, 0), (9_999, 10_000, 0)]
        {
            let mut walk = Schedule::new(at(from), 4, 0, 1);
            let slot = walk.take(at(from));
            assert_eq!((slot.shard, slot.due, slot.skipped_seconds), (shard, at(due), 0), "{from}");
        }
    }

    #[test]
    fn each_shard_is_served_by_exactly_one_worker() {
        for workers in [1, 2, 3, 10, 1023, 1024] {
            let mut served = vec![0; 1024];
            for worker in 0..workers {
                let mut schedule = Schedule::new(START, 1024, worker, workers);
                while schedule.deadline() < START + PERIOD {
                    served[schedule.take(schedule.deadline()).shard] += 1;
                }
                assert!(schedule.shards().all(|shard| owner(shard, workers) == worker));
            }
            assert_eq!(served, vec![1; 1024], "{workers} workers");
        }
    }

    #[test]
    fn pass_skips_only_the_slots_due_before_a_time() {
        let mut schedule = Schedule::new(START, 8, 1, 3);
        assert_eq!(schedule.pass(at(125)), 0);
        assert_eq!(schedule.pass(at(875)), 2);
        assert_eq!(schedule.take(at(880)).due, at(875));
        assert_eq!((schedule.pass(at(1_200)), schedule.deadline()), (1, at(1_500)));
    }

    #[test]
    fn a_late_slot_does_not_move_the_next_deadline() {
        let mut schedule = Schedule::new(START, 4, 0, 1);
        let slot = Slot { shard: 0, due: START, next_due: at(250), skipped_seconds: 0 };
        assert_eq!(schedule.take(at(700)), slot);
        assert_eq!(schedule.deadline(), at(250));
    }

    #[test]
    fn whole_seconds_of_lateness_are_skipped() {
        for (now, due, seconds) in [(1_249, 250, 0), (1_250, 1_250, 1), (3_900, 3_250, 3)] {
            let mut schedule = Schedule::new(START, 4, 0, 1);
            schedule.take(START);
            let next_due = at(seconds * 1_000 + 500);
            let slot = Slot { shard: 1, due: at(due), next_due, skipped_seconds: seconds };
            assert_eq!(schedule.take(at(now)), slot);
            assert_eq!(schedule.deadline(), next_due);
        }
    }

    #[test]
    fn an_overload_skips_slots_of_all_shards_equally() {
        let (shards, worker, workers) = (64, 3, 8);
        let mut schedule = Schedule::new(START, shards, worker, workers);
        let slots = schedule.shards().count() as u64;
        let mut now = START;
        let (mut taken, mut skipped) = (0, 0);
        let mut served = vec![0_u64; shards];
        while now < START + Duration::from_secs(100) {
            now = now.max(schedule.deadline());
            let slot = schedule.take(now);
            assert!(now.since(slot.due) < PERIOD);
            served[slot.shard] += 1;
            taken += 1;
            skipped += slot.skipped_seconds * slots;
            let least = served.iter().skip(worker).step_by(workers).min().unwrap();
            let most = served.iter().max().unwrap();
            assert!(most - least <= 1, "{served:?}");
            // Serving a slot takes 2.5 times the length of a slot.
            now = now + PERIOD * 5 / 2 / u32::try_from(slots).unwrap();
        }
        assert_eq!(taken, 40 * slots);
        assert!((taken + skipped).abs_diff(100 * slots) <= slots, "{skipped} skipped");

        for _ in 0..3 * slots {
            now = now.max(schedule.deadline());
            schedule.take(now);
            now = now + PERIOD / 2 / u32::try_from(slots).unwrap();
        }
        let deadline = schedule.deadline();
        assert!(now < deadline, "still late");
        let slot = schedule.take(deadline);
        assert_eq!((slot.due, slot.skipped_seconds), (deadline, 0));
    }

    #[test]
    fn a_pause_of_a_year_is_skipped_at_once() {
        let year = 365 * 24 * 3600;
        let mut schedule = Schedule::new(START, 1024, 3, 10);
        let now = START + Duration::from_secs(year);
        let slot = schedule.take(now);
        assert!(now.since(slot.due) < PERIOD);
        assert_eq!(slot.skipped_seconds, year - 1);
    }

    #[test]
    fn deadlines_do_not_drift() {
        let mut schedule = Schedule::new(START, 1024, 1023, 1024);
        let first = schedule.deadline();
        for _ in 0..100_000 {
            schedule.take(schedule.deadline());
        }
        assert_eq!(schedule.deadline(), first + Duration::from_secs(100_000));
    }
}
