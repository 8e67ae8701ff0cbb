//! What the daemon counts.

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

/// The upper bounds of the histogram of lateness. One bucket more holds what is beyond.
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

/// The number of buckets of the histogram of lateness.
pub const LATENESS_BUCKETS: usize = LATENESS_BOUNDS.len() + 1;

/// What the tasks of the daemon count, besides the engine's own [`Counters`].
#[derive(Debug, Default)]
pub struct Metrics {
    /// Errors that the network told.
    pub network_errors: Counter,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub receive_drops: Counter,
    /// Failed receive calls.
    pub failed_receives: Counter,
    /// Datagrams and ICMP errors with truncated control messages.
    pub truncated_control: Counter,
    /// Pings that the kernel took, each in the bucket of its lateness.
    lateness: [Counter; LATENESS_BUCKETS],
    /// The lateness of all these together, in microseconds.
    lateness_micros: Counter,
    /// The worst since it was last asked for, in nanoseconds.
    worst_lateness: AtomicU64,
    /// Pings that the kernel did not take, by [`SendFailure`].
    pub failed_sends: [Counter; SendFailure::ALL.len()],
    /// HTTP requests that showed a wrong `ADMIN_TOKEN`.
    pub wrong_tokens: Counter,
    /// What became of the snapshots.
    pub snapshots: Snapshots,
    /// The reads of `DENY_FILE`.
    pub deny_file: DenyFileReads,
}

impl Metrics {
    /// Counts pings that the kernel took so long after they were due.
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

    /// The worst lateness of a ping since this was last asked.
    pub fn take_worst_lateness(&self) -> Duration {
        Duration::from_nanos(self.worst_lateness.swap(0, Relaxed))
    }

    /// All counts as they are now, those of the engine included.
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

/// What was counted since the start or in some time. Each field is that of [`Metrics`] or [`Counters`].
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
    /// What was counted after `earlier`.
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

    /// The pings that the kernel took.
    #[must_use]
    pub fn pings(&self) -> u64 {
        self.lateness.iter().sum()
    }

    /// Datagrams not let in, for any reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Pings that the kernel did not take, for any reason.
    #[must_use]
    pub fn failed_sends(&self) -> u64 {
        self.failed_sends.iter().sum()
    }

    /// By how many per cent the machine was too slow: the share of the slots that were skipped.
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
