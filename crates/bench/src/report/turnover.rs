//! The effect of `--churn`.

use std::time::Duration;

use serde::Serialize;

use super::{millis, ratio};
use crate::churn::TOLERANCE;
use crate::measurement::Measured;
use crate::plan::Plan;

/// The memory can grow by its first value divided by this number.
const MOST_GROWTH: u64 = 20;

/// The memory can always grow by this many bytes, because the daemon keeps its counts of the last ten
/// minutes.
const MEMORIES: u64 = 1_000_000;

/// Memory growth is judged only in a longer run.
const GROWN_UP: Duration = Duration::from_secs(120);

/// The effect of churn on the daemon.
#[derive(Debug, Serialize)]
pub(crate) struct Turnover {
    pub(crate) percent_per_second: f64,
    pub(crate) expiration_seconds: f64,
    /// Clients that left. The same number of new clients took their places.
    pub(crate) clients_left: u64,
    /// Pings that reached a measured client later than the tolerance after it expired.
    pub(crate) overdue_pings: u64,
    pub(crate) worst_overrun_ms: f64,
    pub(crate) tolerance_ms: f64,
    /// When the daemon's memory was first read. `growth` is the memory at the end divided by that first value.
    pub(crate) first_seconds: f64,
    pub(crate) first_resident_bytes: u64,
    pub(crate) last_resident_bytes: u64,
    pub(crate) growth: f64,
    /// True if the run was long enough for the growth to affect the exit code.
    pub(crate) is_growth_judged: bool,
}

impl Turnover {
    pub(super) fn new(plan: &Plan, measured: &Measured) -> Option<Self> {
        let churn = plan.churn?;
        let Measured { sent, heard, watched } = measured;
        let first_resident_bytes = watched.first_resident?;
        let last_resident_bytes = watched.usage?.resident;
        Some(Self {
            percent_per_second: churn.share * 100.0,
            expiration_seconds: churn.expiration.as_secs_f64(),
            clients_left: sent.changes,
            overdue_pings: heard.overdue,
            worst_overrun_ms: millis(heard.worst_overrun),
            tolerance_ms: millis(TOLERANCE),
            first_seconds: plan.first_memory().as_secs_f64(),
            first_resident_bytes,
            last_resident_bytes,
            growth: ratio(last_resident_bytes, first_resident_bytes),
            is_growth_judged: plan.length > GROWN_UP,
        })
    }

    /// True if no measured client got a ping later than the tolerance after it expired, and the memory grew by no
    /// more than [`MEMORIES`] or one part in [`MOST_GROWTH`], whichever is larger. A short run ignores the growth.
    pub(super) fn is_good(&self) -> bool {
        let growth = self.last_resident_bytes.saturating_sub(self.first_resident_bytes);
        let most = MEMORIES.max(self.first_resident_bytes / MOST_GROWTH);
        self.overdue_pings == 0 && (!self.is_growth_judged || growth <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_pings_or_memory_growth_fail_a_churn_run() {
        let turnover = |overdue_pings, first, last, is_growth_judged| Turnover {
            percent_per_second: 10.0,
            expiration_seconds: 10.0,
            clients_left: 1,
            overdue_pings,
            worst_overrun_ms: 0.0,
            tolerance_ms: 50.0,
            first_seconds: 60.0,
            first_resident_bytes: first,
            last_resident_bytes: last,
            growth: ratio(last, first),
            is_growth_judged,
        };
        assert!(turnover(0, 100_000_000, 105_000_000, true).is_good());
        assert!(!turnover(0, 100_000_000, 105_000_001, true).is_good());
        assert!(turnover(0, 7_000_000, 8_000_000, true).is_good());
        assert!(!turnover(0, 7_000_000, 8_000_001, true).is_good());
        assert!(turnover(0, 7_000_000, 14_000_000, false).is_good());
        assert!(turnover(0, 7_000_000, 6_000_000, true).is_good());
        assert!(!turnover(1, 7_000_000, 7_000_000, true).is_good());
    }
}
