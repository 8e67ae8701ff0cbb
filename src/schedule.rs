//! When each shard is due.
//!
//! A second is divided into as many slots as the registry has shards: shard *s* of *S* is due at
//! phase *s / S* of each second. Worker *w* of *N* owns the shards *s ≡ w (mod N)*. Deadlines are
//! absolute (start + *k* seconds + phase), so that neither lateness nor rounding ever adds up.

use std::time::Duration;

use crate::clock::Time;
use crate::wire::PERIOD;

const PERIOD_NANOS: u64 = PERIOD.as_secs() * 1_000_000_000;

/// A shard whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The shard to serve.
    pub shard: usize,
    /// How long after its deadline it is served; always less than a second.
    pub lateness: Duration,
    /// How many of the worker's slots before it were a whole second late and are left out for good.
    pub skipped: u64,
}

/// One worker's endless walk through its shards.
#[derive(Debug)]
pub struct Schedule {
    start: Time,
    shards: usize,
    worker: usize,
    workers: usize,
    /// Counts seconds from the start.
    second: u64,
    /// The shard that is due next.
    shard: usize,
}

impl Schedule {
    /// The walk of worker number `worker` of `workers` through a registry of `shards`.
    ///
    /// # Panics
    /// Where the worker would have no shard of its own.
    #[must_use]
    pub fn new(start: Time, shards: usize, worker: usize, workers: usize) -> Self {
        assert!(worker < workers && workers <= shards, "each worker owns at least one shard");
        Self { start, shards, worker, workers, second: 0, shard: worker }
    }

    /// When the next slot is due.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let phase = Duration::from_nanos(PERIOD_NANOS * self.shard as u64 / self.shards as u64);
        self.start + Duration::from_secs(self.second) + phase
    }

    /// Takes the next slot that is not a whole second late.
    pub fn take(&mut self, now: Time) -> Slot {
        let mut skipped = 0;
        // After a long stop go by whole seconds, then slot by slot.
        let seconds = now.since(self.deadline()).as_secs().saturating_sub(1);
        self.second += seconds;
        skipped += seconds * self.slots_per_second();
        while now.since(self.deadline()) >= PERIOD {
            self.advance();
            skipped += 1;
        }
        let slot = Slot { shard: self.shard, lateness: now.since(self.deadline()), skipped };
        self.advance();
        slot
    }

    fn advance(&mut self) {
        self.shard += self.workers;
        if self.shard >= self.shards {
            self.shard = self.worker;
            self.second += 1;
        }
    }

    fn slots_per_second(&self) -> u64 {
        (self.shards - self.worker).div_ceil(self.workers) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_nanos(5_000_000_123);

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_worker_walks_its_own_shards_at_their_phases() {
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
    fn the_workers_share_all_shards_out() {
        for workers in [1, 2, 3, 10, 1023, 1024] {
            let mut served = vec![0; 1024];
            for worker in 0..workers {
                let mut schedule = Schedule::new(START, 1024, worker, workers);
                while schedule.deadline() < START + PERIOD {
                    served[schedule.take(schedule.deadline()).shard] += 1;
                }
            }
            assert_eq!(served, vec![1; 1024], "{workers} workers");
        }
    }

    #[test]
    fn lateness_is_told_and_moves_no_deadline() {
        let mut schedule = Schedule::new(START, 4, 0, 1);
        let slot = schedule.take(at(700));
        assert_eq!(slot, Slot { shard: 0, lateness: Duration::from_millis(700), skipped: 0 });
        assert_eq!(schedule.deadline(), at(250));
    }

    #[test]
    fn a_slot_that_is_a_whole_second_late_is_skipped() {
        let mut schedule = Schedule::new(START, 4, 0, 1);
        let slot = schedule.take(at(1_250));
        // Those due at 0 and 250 ms are gone; the one due at 500 ms is served late.
        assert_eq!(slot, Slot { shard: 2, lateness: Duration::from_millis(750), skipped: 2 });
    }

    #[test]
    fn a_stop_of_a_year_is_skipped_at_once() {
        let year = 365 * 24 * 3600;
        let mut schedule = Schedule::new(START, 1024, 3, 10);
        let slot = schedule.take(START + Duration::from_secs(year));
        assert!(slot.lateness < PERIOD);
        assert_eq!(slot.skipped, (year - 1) * schedule.slots_per_second());
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
