//! Counts the pings of one client.
//!
//! A ping carries no number, so what is missed and what came twice is told by the time alone: the
//! pings are due a second apart.

use std::time::Duration;

use crate::clock::Time;

/// What a ping is, by the time at which it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// Nothing came before it.
    First,
    /// The next one, or one after some that were missed.
    Next {
        /// The time since the last.
        gap: Duration,
        /// How many were due in between.
        missed: u64,
        /// By how many seconds it is later than it was due.
        deviation: f64,
    },
    /// None was due.
    Duplicate {
        /// The time since the last.
        gap: Duration,
    },
}

/// What came so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct PingStats {
    received: u64,
    missed: u64,
    duplicated: u64,
    last: Option<Time>,
    /// Whether the last ping seemed to be later than the next one was due.
    may_have_been_late: bool,
}

impl PingStats {
    /// The number of pings that came.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The number of pings that were due and did not come.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The number of pings that came though none was due.
    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// When the last ping came that was due.
    #[must_use]
    pub fn last(&self) -> Option<Time> {
        self.last
    }

    /// Counts from zero again, for the pings that follow one at `last`.
    pub fn restart(&mut self, last: Time) {
        *self = Self { last: Some(last), ..Self::default() };
    }

    /// Counts a ping.
    pub fn ping(&mut self, now: Time) -> Arrival {
        self.received += 1;
        let Some(last) = self.last.replace(now) else {
            return Arrival::First;
        };
        let gap = now.since(last);
        let periods = whole_periods(gap);
        let was_late = std::mem::replace(&mut self.may_have_been_late, periods > 1);
        let missed = match periods {
            // The one before was not the next but a late one, and this is the next.
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

    /// Counts as missed what was due until `now` and did not come.
    pub fn end(&mut self, now: Time) {
        if let Some(last) = self.last {
            self.missed += whole_periods(now.since(last)).saturating_sub(1);
        }
    }
}

/// The number of seconds that is nearest to `gap`.
fn whole_periods(gap: Duration) -> u64 {
    (gap + Duration::from_millis(500)).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts pings that come at these milliseconds, until `end`.
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
    fn what_is_missing_and_what_is_too_many_is_told_by_the_time() {
        assert_eq!(counts(&[], 10_000), (0, 0, 0));
        assert_eq!(counts(&[300, 1_300, 2_310, 3_290], 4_200), (4, 0, 0));
        assert_eq!(counts(&[300, 1_300, 4_300], 4_400), (3, 2, 0), "a gap of two");
        assert_eq!(counts(&[300, 310, 1_300, 1_400, 2_300], 2_400), (5, 0, 2), "two doubles");
        assert_eq!(counts(&[300, 1_300, 2_900, 3_300, 4_300], 4_400), (5, 0, 0), "one late");
        assert_eq!(counts(&[300, 1_300], 5_900), (2, 4, 0), "silence at the end");
    }

    #[test]
    fn the_clocks_of_two_machines_may_drift() {
        let hours = 3 * 3600;
        let arrivals: Vec<_> = (0..hours).map(|second| second * 1000 + second / 10).collect();
        assert_eq!(counts(&arrivals, *arrivals.last().unwrap()), (hours, 0, 0));
    }
}
