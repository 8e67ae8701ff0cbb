//! The daemon's counters.

mod deny_file;
mod snapshots;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::counter::Counter;
use crate::engine::Counters;
use crate::engine::guard::Refused;
use crate::engine::registry::Removal;
use crate::net::SendFailure;
pub use deny_file::{DenyFileReads, FailedRead};
pub use snapshots::{Failure, LastSnapshot, Snapshots};

/// The inclusive upper bounds of the lateness histogram. One more bucket holds everything beyond.
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
    /// Errors that the network reported.
    pub network_errors: Counter,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub receive_drops: Counter,
    /// Failed receive calls.
    pub failed_receives: Counter,
    /// Datagrams and ICMP errors with truncated control messages.
    pub truncated_control: Counter,
    /// Pings that the kernel accepted, by lateness bucket.
    lateness: [Counter; LATENESS_BUCKETS],
    /// The summed lateness of these pings, in microseconds.
    lateness_micros: Counter,
    /// The maximum lateness since the last [`Self::take_worst_lateness`], in nanoseconds.
    worst_lateness: AtomicU64,
    /// Pings that the kernel rejected, by [`SendFailure`].
    pub failed_sends: [Counter; SendFailure::ALL.len()],
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
        Totals {
            heartbeats: engine.heartbeats.get(),
            registered: engine.registered.get(),
            restored: engine.restored.get(),
            removed: engine.removed.each_ref().map(Counter::get),
            muted: engine.muted.get(),
            network_errors: self.network_errors.get(),
            receive_drops: self.receive_drops.get(),
            failed_receives: self.failed_receives.get(),
            truncated_control: self.truncated_control.get(),
            refused: engine.refused.each_ref().map(Counter::get),
            lateness: self.lateness.each_ref().map(Counter::get),
            lateness_micros: self.lateness_micros.get(),
            failed_sends: self.failed_sends.each_ref().map(Counter::get),
            skipped_pings: engine.skipped_pings.get(),
            skipped_slots: engine.skipped_slots.get(),
            served_slots: engine.served_slots.get(),
            wrong_tokens: self.wrong_tokens.get(),
        }
    }
}

/// Counter values, since the start or over a period. Each field matches [`Metrics`] or [`Counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of `Metrics` and `Counters`")]
pub struct Totals {
    pub heartbeats: u64,
    pub registered: u64,
    pub restored: u64,
    pub removed: [u64; Removal::ALL.len()],
    pub muted: u64,
    pub network_errors: u64,
    pub receive_drops: u64,
    pub failed_receives: u64,
    pub truncated_control: u64,
    pub refused: [u64; Refused::ALL.len()],
    pub lateness: [u64; LATENESS_BUCKETS],
    pub lateness_micros: u64,
    pub failed_sends: [u64; SendFailure::ALL.len()],
    pub skipped_pings: u64,
    pub skipped_slots: u64,
    pub served_slots: u64,
    pub wrong_tokens: u64,
}

impl Totals {
    /// Returns the counts since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        fn each<const N: usize>(now: &[u64; N], then: &[u64; N]) -> [u64; N] {
            std::array::from_fn(|index| now[index] - then[index])
        }
        Self {
            heartbeats: self.heartbeats - earlier.heartbeats,
            registered: self.registered - earlier.registered,
            restored: self.restored - earlier.restored,
            removed: each(&self.removed, &earlier.removed),
            muted: self.muted - earlier.muted,
            network_errors: self.network_errors - earlier.network_errors,
            receive_drops: self.receive_drops - earlier.receive_drops,
            failed_receives: self.failed_receives - earlier.failed_receives,
            truncated_control: self.truncated_control - earlier.truncated_control,
            refused: each(&self.refused, &earlier.refused),
            lateness: each(&self.lateness, &earlier.lateness),
            lateness_micros: self.lateness_micros - earlier.lateness_micros,
            failed_sends: each(&self.failed_sends, &earlier.failed_sends),
            skipped_pings: self.skipped_pings - earlier.skipped_pings,
            skipped_slots: self.skipped_slots - earlier.skipped_slots,
            served_slots: self.served_slots - earlier.served_slots,
            wrong_tokens: self.wrong_tokens - earlier.wrong_tokens,
        }
    }

    /// Returns the number of pings that the kernel accepted.
    #[must_use]
    pub fn pings(&self) -> u64 {
        self.lateness.iter().sum()
    }

    /// Returns the number of refused datagrams, for any reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Returns the number of pings that the kernel rejected, for any reason.
    #[must_use]
    pub fn failed_sends(&self) -> u64 {
        self.failed_sends.iter().sum()
    }

    /// Returns the percentage of slots that were skipped, which is how far the machine fell behind.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far fewer slots than 2^52")]
    pub fn short_percent(&self) -> f64 {
        let slots = self.skipped_slots + self.served_slots;
        100.0 * self.skipped_slots as f64 / slots.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_since_is_the_difference() {
        let (metrics, engine) = (Metrics::default(), Counters::default());
        metrics.pinged(5, Duration::from_micros(300));
        engine.refused[0].add(2);
        let first = metrics.totals(&engine);
        assert_eq!((first.pings(), first.refused()), (5, 2));
        assert_eq!(first.since(&Totals::default()), first);
        engine.heartbeats.add(1);
        let recent = metrics.totals(&engine).since(&first);
        assert_eq!(recent, Totals { heartbeats: 1, ..Totals::default() });
        let now = metrics.totals(&engine);
        assert_eq!(now.since(&now), Totals::default());
    }

    #[test]
    fn a_ping_counts_in_the_first_bucket_that_is_not_below_its_lateness() {
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
    fn the_machine_is_short_by_the_share_of_the_slots_that_were_skipped() {
        let short = |skipped_slots, served_slots| {
            Totals { skipped_slots, served_slots, ..Totals::default() }.short_percent()
        };
        let shares = [short(0, 0), short(0, 9), short(1, 3), short(5, 0)];
        assert_eq!(shares.map(|share| format!("{share}")), ["0", "0", "25", "100"]);
    }
}
