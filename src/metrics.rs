//! The daemon's counters.

mod deny_file;
mod snapshots;
mod totals;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::counter::Counter;
use crate::engine::Counters;
use crate::net::SendFailure;
pub use deny_file::{DenyFileReads, FailedRead};
pub use snapshots::{Failure, LastSnapshot, Snapshots};
pub use totals::{Definition, Report, Totals, definitions};

/// The inclusive upper bounds of the lateness histogram. One more bucket holds all greater latenesses.
pub const LATENESS_BOUNDS: [Duration; 11] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// The number of buckets of the lateness histogram.
pub const LATENESS_BUCKETS: usize = LATENESS_BOUNDS.len() + 1;

/// Counters of the daemon's tasks, complementing the engine's [`Counters`].
#[derive(Debug, Default)]
pub struct Metrics {
    /// ICMP errors received for pings.
    pub network_errors: Counter,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub receive_drops: Counter,
    /// Failed receive calls.
    pub failed_receives: Counter,
    /// Datagrams and ICMP errors with truncated control messages.
    pub truncated_control: Counter,
    /// Pings that the kernel accepted, by lateness bucket.
    lateness: [Counter; LATENESS_BUCKETS],
    /// The summed lateness of the pings that the kernel accepted, in microseconds.
    lateness_micros: Counter,
    /// The maximum lateness since the last [`Self::take_worst_lateness`], in nanoseconds.
    worst_lateness: AtomicU64,
    /// Pings that the kernel rejected, by [`SendFailure`].
    pub failed_pings: [Counter; SendFailure::ALL.len()],
    /// HTTP requests with a wrong `ADMIN_TOKEN`.
    pub wrong_tokens: Counter,
    /// The writes of the snapshot.
    pub snapshots: Snapshots,
    /// The reads of `DENY_FILE`.
    pub deny_file: DenyFileReads,
}

impl Metrics {
    /// Counts pings that the kernel accepted `lateness` after they were due.
    pub fn pinged(&self, pings: u64, lateness: Duration) {
        if pings == 0 {
            return;
        }
        let nanos = u64::try_from(lateness.as_nanos()).unwrap_or(u64::MAX);
        let bucket = LATENESS_BOUNDS.partition_point(|bound| *bound < lateness);
        self.lateness[bucket].add(pings);
        self.lateness_micros.add((nanos / 1_000).saturating_mul(pings));
        self.worst_lateness.fetch_max(nanos, Relaxed);
    }

    /// Returns the maximum lateness of a ping and resets it.
    pub fn take_worst_lateness(&self) -> Duration {
        Duration::from_nanos(self.worst_lateness.swap(0, Relaxed))
    }

    /// Returns the current values of all counters, including the engine's.
    #[must_use]
    pub fn totals(&self, engine: &Counters) -> Totals {
        Totals::read(engine, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_returns_the_difference_of_two_totals() {
        let (metrics, engine) = (Metrics::default(), Counters::default());
        metrics.pinged(5, Duration::from_micros(300));
        engine.refused[0].add(2);
        let first = metrics.totals(&engine);
        assert_eq!((first.pings, first.refused()), (5, 2));
        assert_eq!(first.since(&Totals::default()), first);
        engine.heartbeats.add(1);
        let recent = metrics.totals(&engine).since(&first);
        assert_eq!(recent, Totals { heartbeats: 1, ..Totals::default() });
        let now = metrics.totals(&engine);
        assert_eq!(now.since(&now), Totals::default());
    }

    #[test]
    fn a_ping_counts_in_the_first_bucket_not_below_its_lateness() {
        let metrics = Metrics::default();
        let mut expected = [0; LATENESS_BUCKETS];
        for (micros, bucket) in
            [(0, 0), (500, 0), (501, 1), (1_000, 1), (2_500, 3), (1_000_000, 10), (1_000_001, 11)]
        {
            metrics.pinged(3, Duration::from_micros(micros));
            expected[bucket] += 3;
        }
        let totals = metrics.totals(&Counters::default());
        assert_eq!((totals.lateness, totals.lateness_micros), (expected, 3 * 2_004_502));
        assert_eq!(metrics.take_worst_lateness(), Duration::from_micros(1_000_001));
        assert_eq!(metrics.take_worst_lateness(), Duration::ZERO);
    }

    #[test]
    fn short_percent_is_the_share_of_skipped_slots() {
        let short = |skipped_slots, served_slots| {
            Totals { skipped_slots, served_slots, ..Totals::default() }.short_percent()
        };
        let shares = [short(0, 0), short(0, 9), short(1, 3), short(5, 0)];
        assert_eq!(shares.map(|share| format!("{share}")), ["0", "0", "25", "100"]);
    }
}
