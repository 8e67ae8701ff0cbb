//! The summary that is logged every minute.

use std::time::Duration;

use crate::metrics::Totals;
use crate::output::counted;
use crate::shared::Shared;

/// The number of samples, one a second, per summary.
const LOOKS_A_SUMMARY: u32 = 60;

/// Accumulates the data for the next summary.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The samples since the last summary.
    looks: u32,
    /// The totals at the last summary.
    last: Totals,
    worst_lateness: Duration,
}

impl Summary {
    /// Adds a sample. Returns whether a summary is due.
    pub(super) fn add(&mut self, worst_lateness: Duration) -> bool {
        self.looks += 1;
        self.worst_lateness = self.worst_lateness.max(worst_lateness);
        self.looks >= LOOKS_A_SUMMARY
    }

    /// Logs the summary since the last one, and starts the next. Returns a short form.
    pub(super) fn tell(&mut self, shared: &Shared) -> String {
        let totals = shared.totals();
        let recent = totals.since(&self.last);
        recent.log(shared.engine.registry().len(), self.worst_lateness);
        let short = format!(
            "{}; in the last minute {}, {}, {} refused",
            counted(shared.engine.registry().len() as u64, "client", "clients"),
            counted(recent.heartbeats, "heartbeat", "heartbeats"),
            counted(recent.pings, "ping", "pings"),
            counted(recent.refused(), "datagram", "datagrams")
        );
        *self = Self { last: totals, ..Self::default() };
        short
    }
}
