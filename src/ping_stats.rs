//! Counts the pings of one client.
//!
//! A ping carries no sequence number. Missed and duplicate pings are inferred from the arrival times alone,
//! because pings are due a second apart.

use std::time::Duration;

use crate::clock::Time;

/// Classifies a ping by its arrival time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// The first ping.
    First,
    /// The next ping, perhaps after missed pings.
    Next {
        /// Time since the last ping.
        gap: Duration,
        /// Pings that were due in between.
        missed: u64,
        /// Delay in seconds from the due time. Negative if the ping is early.
        deviation: f64,
    },
    /// A ping that was not due.
    Duplicate {
        /// Time since the last ping that was due.
        gap: Duration,
    },
}

/// The counts of one client's pings.
#[derive(Clone, Copy, Debug, Default)]
pub struct PingStats {
    received: u64,
    missed: u64,
    duplicated: u64,
    last: Option<Time>,
    /// True if pings were counted as missed just before the last ping. In that case, the last ping can be one
    /// of them that arrived late.
    may_have_been_late: bool,
}

impl PingStats {
    /// Pings that arrived, duplicates included.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Pings that were due and did not arrive.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Pings that arrived when no ping was due.
    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Arrival time of the last ping that was due.
    #[must_use]
    pub fn last(&self) -> Option<Time> {
        self.last
    }

    /// Resets the counts, as if the last ping had arrived at `last`.
    pub fn restart(&mut self, last: Time) {
        *self = Self { last: Some(last), ..Self::default() };
    }

    /// Counts and classifies a ping that arrives at `now`.
    pub fn ping(&mut self, now: Time) -> Arrival {
        self.received += 1;
        let Some(last) = self.last.replace(now) else {
            return Arrival::First;
        };
        let gap = now.since(last);
        let periods = whole_periods(gap);
        let was_late = std::mem::replace(&mut self.may_have_been_late, periods > 1);
        let missed = match periods {
            // The ping before was a late one, and this is the next.
            0 if was_late => {
                self.missed -= 1;
                0
            }
            0 => {
                self.duplicated += 1;
                self.last = Some(last);
                return Arrival::Duplicate { gap };
            }
            periods => periods - 1,
        };
        self.missed += missed;
        let due = Duration::from_secs(missed + 1);
        let deviation = gap.as_secs_f64() - due.as_secs_f64();
        Arrival::Next { gap, missed, deviation }
    }

    /// Counts the pings that were due until `now` and did not arrive as missed.
    pub fn end(&mut self, now: Time) {
        if let Some(last) = self.last {
            self.missed += whole_periods(now.since(last)).saturating_sub(1);
        }
    }
}

/// Rounds `gap` to whole seconds.
fn whole_periods(gap: Duration) -> u64 {
    (gap + Duration::from_millis(500)).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts pings that arrive at these milliseconds, until `end`.
    fn stats(arrivals: &[u64], end: u64) -> PingStats {
        let at = |ms| Time::from_nanos(1 << 40) + Duration::from_millis(ms);
        let mut stats = PingStats::default();
        for ms in arrivals {
            stats.ping(at(*ms));
        }
        stats.end(at(end));
        stats
    }

    fn counts(arrivals: &[u64], end: u64) -> (u64, u64, u64) {
        let PingStats { received, missed, duplicated, .. } = stats(arrivals, end);
        (received, missed, duplicated)
    }

    #[test]
    fn missed_and_duplicate_pings_are_counted_by_arrival_time() {
        assert_eq!(counts(&[], 10_000), (0, 0, 0));
        assert_eq!(counts(&[300, 1_300, 2_310, 3_290], 4_200), (4, 0, 0));
        assert_eq!(counts(&[300, 1_300, 4_300], 4_400), (3, 2, 0), "a gap of two");
        assert_eq!(counts(&[300, 310, 1_300, 1_400, 2_300], 2_400), (5, 0, 2), "two doubles");
        assert_eq!(counts(&[300, 1_300, 2_900, 3_300, 4_300], 4_400), (5, 0, 0), "one late");
        assert_eq!(counts(&[300, 1_300], 5_900), (2, 4, 0), "silence at the end");
    }

    #[test]
    fn clock_drift_causes_no_missed_pings() {
        let hours = 3 * 3600;
        let arrivals: Vec<_> = (0..hours).map(|second| second * 1000 + second / 10).collect();
        assert_eq!(counts(&arrivals, *arrivals.last().unwrap()), (hours, 0, 0));
    }
}
