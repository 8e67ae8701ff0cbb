//! The effect of a daemon restart on the pings.

use std::time::Duration;

use hdrhistogram::Histogram;

use wakeupd::clock::Time;

use crate::histogram::{histogram, nanos};

/// A ping is early, or a duplicate, if it comes sooner than this after the previous ping.
const EARLY: Duration = Duration::from_millis(900);

/// The number of pings of each client after the restart that are checked for being early.
const NEXT: u8 = 2;

/// The pings to the clients that had been pinged before the restart.
#[derive(Debug)]
pub(crate) struct Gaps {
    /// From the last ping of the first process to the first ping of the second process, in nanoseconds.
    pub(crate) lengths: Histogram<u64>,
    pub(crate) early: u64,
    /// Pings that were due within the gaps.
    pub(crate) missed: u64,
    pub(crate) pinged_before: u64,
    pub(crate) never_again: u64,
}

/// The pings of one client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pinged {
    last: Option<Time>,
    was_before: bool,
    /// Pings after the restart, up to [`NEXT`].
    after: u8,
}

impl Pinged {
    /// Records a ping. `ended_at` is the time at which the first process ended. `missed` is the client's
    /// count of missed pings before and after this ping. The count drops if the last ping was only late.
    pub(crate) fn ping(&mut self, at: Time, ended_at: Time, missed: (u64, u64), gaps: &mut Gaps) {
        let last = self.last.replace(at);
        if at < ended_at {
            self.was_before = true;
            return;
        }
        let Some(gap) = last.map(|last| at.since(last)) else { return };
        if self.after == NEXT || !self.was_before {
            return;
        }
        self.after += 1;
        gaps.early += u64::from(gap < EARLY);
        let (before, after) = missed;
        if self.after == 1 {
            gaps.lengths.saturating_record(nanos(gap));
            gaps.missed += after.saturating_sub(before);
        } else {
            gaps.missed = gaps.missed.saturating_sub(before.saturating_sub(after));
        }
    }

    /// Adds the figures of a client that can receive no more pings.
    pub(crate) fn conclude(self, gaps: &mut Gaps) {
        gaps.pinged_before += u64::from(self.was_before);
        gaps.never_again += u64::from(self.was_before && self.after == 0);
    }
}

impl Default for Gaps {
    fn default() -> Self {
        Self { lengths: histogram(), early: 0, missed: 0, pinged_before: 0, never_again: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wakeupd::ping_stats::PingStats;

    /// The gaps of one client with pings at these milliseconds, if the first process ended at 5 s.
    fn gaps(pings: &[u64]) -> Gaps {
        let at = |ms| Time::from_nanos(1 << 40) + Duration::from_millis(ms);
        let mut gaps = Gaps::default();
        let mut stats = PingStats::default();
        let mut client = Pinged::default();
        for ms in pings {
            let missed = stats.missed();
            stats.ping(at(*ms));
            client.ping(at(*ms), at(5_000), (missed, stats.missed()), &mut gaps);
        }
        client.conclude(&mut gaps);
        gaps
    }

    #[test]
    fn a_gap_spans_from_the_last_ping_before_a_restart_to_the_next() {
        let gaps = gaps(&[3_400, 4_400, 7_400, 8_400, 9_400, 11_400]);
        assert_eq!((gaps.lengths.len(), gaps.missed, gaps.early), (1, 2, 0));
        assert!(gaps.lengths.equivalent(gaps.lengths.max(), 3_000_000_000));
        assert_eq!((gaps.pinged_before, gaps.never_again), (1, 0));
    }

    #[test]
    fn early_pings_are_counted() {
        assert_eq!(gaps(&[4_900, 5_100, 6_100]).early, 1, "another phase");
        assert_eq!(gaps(&[4_400, 5_400, 5_500, 6_400]).early, 1, "twice");
        assert_eq!(gaps(&[4_100, 4_400, 5_400, 6_400, 6_500]).early, 0, "not by the restart");
    }

    #[test]
    fn a_late_ping_is_not_missed() {
        let late = gaps(&[3_400, 4_400, 6_000, 6_400, 7_400]);
        assert_eq!((late.missed, late.early), (0, 1));
    }

    #[test]
    fn only_clients_pinged_before_the_restart_count_as_lost() {
        let lost = gaps(&[3_400, 4_400]);
        assert_eq!((lost.lengths.len(), lost.pinged_before, lost.never_again), (0, 1, 1));
        let new = gaps(&[5_300, 6_300]);
        assert_eq!((new.lengths.len(), new.pinged_before, new.never_again), (0, 0, 0));
    }
}
