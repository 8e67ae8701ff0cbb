//! What the daemon counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::guard::Refused;
use crate::net::SendFailure;
use crate::registry::Removal;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count since the start.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Every counter of the daemon. All threads share one of these.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Heartbeats that were let in.
    pub heartbeats: Counter,
    /// Clients that came.
    pub registered: Counter,
    /// Clients that went, by [`Removal`].
    pub removed: [Counter; Removal::ALL.len()],
    /// Clients muted because their port is closed.
    pub muted: Counter,
    /// Errors that the network told.
    pub network_errors: Counter,
    /// Datagrams not let in, or that would not have been if the guard enforced its rules, by [`Refused`].
    pub refused: [Counter; Refused::ALL.len()],
    /// Pings that the kernel took.
    pub pings: Counter,
    /// Pings that the kernel did not take, by [`SendFailure`].
    pub failed_sends: [Counter; SendFailure::ALL.len()],
    /// Slots left out because their worker was a whole second late.
    pub skipped_slots: Counter,
    /// Slots that were not skipped.
    pub served_slots: Counter,
    worst_lateness: AtomicU64,
}

impl Metrics {
    /// Records how late a slot was served.
    pub fn served(&self, lateness: Duration) {
        let nanos = u64::try_from(lateness.as_nanos()).unwrap_or(u64::MAX);
        self.worst_lateness.fetch_max(nanos, Relaxed);
    }

    /// The worst lateness since this was last asked.
    pub fn take_worst_lateness(&self) -> Duration {
        Duration::from_nanos(self.worst_lateness.swap(0, Relaxed))
    }

    fn totals(&self) -> Totals {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::get).sum();
        Totals {
            heartbeats: self.heartbeats.get(),
            pings: self.pings.get(),
            refused: sum(&self.refused),
            failed_sends: sum(&self.failed_sends),
            skipped_slots: self.skipped_slots.get(),
            served_slots: self.served_slots.get(),
        }
    }
}

/// The sums that the summary line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// See [`Metrics::heartbeats`].
    pub heartbeats: u64,
    /// See [`Metrics::pings`].
    pub pings: u64,
    /// Datagrams not let in, for any reason.
    pub refused: u64,
    /// Pings that the kernel did not take, for any reason.
    pub failed_sends: u64,
    /// See [`Metrics::skipped_slots`].
    pub skipped_slots: u64,
    /// See [`Metrics::served_slots`].
    pub served_slots: u64,
}

impl Totals {
    /// By how many per cent the machine was too slow: the share of the slots that were skipped.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far fewer slots than 2^52")]
    pub fn short_percent(&self) -> f64 {
        let slots = self.skipped_slots + self.served_slots;
        100.0 * self.skipped_slots as f64 / slots.max(1) as f64
    }
}

/// Tells what was counted since it was last asked.
#[derive(Debug, Default)]
pub struct Recent {
    last: Totals,
}

impl Recent {
    /// What was counted since the last call, or since the start.
    pub fn take(&mut self, metrics: &Metrics) -> Totals {
        let now = metrics.totals();
        let last = std::mem::replace(&mut self.last, now);
        Totals {
            heartbeats: now.heartbeats - last.heartbeats,
            pings: now.pings - last.pings,
            refused: now.refused - last.refused,
            failed_sends: now.failed_sends - last.failed_sends,
            skipped_slots: now.skipped_slots - last.skipped_slots,
            served_slots: now.served_slots - last.served_slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_is_what_came_since_the_last_time() {
        let metrics = Metrics::default();
        let mut recent = Recent::default();
        metrics.pings.add(5);
        metrics.refused[0].add(2);
        let first = recent.take(&metrics);
        assert_eq!((first.pings, first.refused), (5, 2));
        metrics.pings.add(1);
        assert_eq!(recent.take(&metrics), Totals { pings: 1, ..Totals::default() });
    }

    #[test]
    fn what_is_short_is_the_share_of_skipped_slots() {
        let short = |skipped_slots, served_slots| {
            Totals { skipped_slots, served_slots, ..Totals::default() }.short_percent()
        };
        let shares = [short(0, 0), short(0, 9), short(1, 3), short(5, 0)];
        assert_eq!(shares.map(|share| format!("{share}")), ["0", "0", "25", "100"]);
    }

    #[test]
    fn the_worst_lateness_is_told_once() {
        let metrics = Metrics::default();
        for millis in [1, 9, 4] {
            metrics.served(Duration::from_millis(millis));
        }
        assert_eq!(metrics.take_worst_lateness(), Duration::from_millis(9));
        assert_eq!(metrics.take_worst_lateness(), Duration::ZERO);
    }
}
