//! Counts the pings of one client.
//!
//! A ping carries no number, so what is missed and what came twice is told by the time alone: the
//! pings are due a second apart.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::clock::Time;

/// What a ping is, by the time at which it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arrival {
    /// Nothing came before it.
    First,
    /// The next one, with the time since the last, how many must have been missed in between, and
    /// by how many seconds it deviates from when it was due.
    Next { gap: Duration, missed: u64, deviation: f64 },
    /// None was due.
    Duplicate { gap: Duration },
}

/// What came so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: u64,
    missed: u64,
    duplicated: u64,
    last: Option<Time>,
    /// Whether the last ping seemed to be later than the next one was due.
    may_have_been_late: bool,
    /// In seconds.
    deviations: Vec<f64>,
}

impl Tally {
    /// The number of pings that came.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Counts a ping.
    pub(super) fn ping(&mut self, now: Time) -> Arrival {
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
        self.deviations.push(deviation.abs());
        Arrival::Next { gap, missed, deviation }
    }

    /// Counts as missed what was due until `now` and did not come.
    pub(super) fn end(&mut self, now: Time) {
        if let Some(last) = self.last {
            self.missed += whole_periods(now.since(last)).saturating_sub(1);
        }
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, missed, duplicated, .. } = self;
        write!(f, "{received} pings received, {missed} missed, {duplicated} duplicated")?;
        let mut sorted = self.deviations.clone();
        sorted.sort_by(f64::total_cmp);
        if let (Some(min), Some(max)) = (sorted.first(), sorted.last()) {
            #[expect(clippy::cast_precision_loss, reason = "far fewer pings than 2^52")]
            let average = sorted.iter().sum::<f64>() / sorted.len() as f64;
            let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
            let [min, average, p99, max] = [*min, average, p99, *max].map(|seconds| seconds * 1e3);
            write!(
                f,
                "\ndeviation from 1 s: min/avg/p99/max = {min:.3}/{average:.3}/{p99:.3}/{max:.3} ms"
            )?;
        }
        Ok(())
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
    fn tally(arrivals: &[u64], end: u64) -> Tally {
        let at = |ms| Time::from_nanos(1 << 40) + Duration::from_millis(ms);
        let mut tally = Tally::default();
        for ms in arrivals {
            tally.ping(at(*ms));
        }
        tally.end(at(end));
        tally
    }

    fn counts(arrivals: &[u64], end: u64) -> (u64, u64, u64) {
        let Tally { received, missed, duplicated, .. } = tally(arrivals, end);
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

    #[test]
    fn deviations_are_summed_up() {
        let text = tally(&[0, 1_000, 2_004, 3_002], 3_002).to_string();
        assert_eq!(
            text,
            "4 pings received, 0 missed, 0 duplicated\n\
             deviation from 1 s: min/avg/p99/max = 0.000/2.000/4.000/4.000 ms"
        );
        let one = tally(&[0], 0).to_string();
        assert_eq!(one, "1 pings received, 0 missed, 0 duplicated");
    }
}
