//! The log line of each minute.

use std::time::Duration;

use tracing::info;

use crate::metrics::Totals;
use crate::output::counted;
use crate::shared::Shared;

/// A summary a minute.
const LOOKS_A_SUMMARY: u32 = 60;

/// What is logged every minute.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The looks since the last one.
    looks: u32,
    /// What had been counted at the last one.
    last: Totals,
    worst_lateness: Duration,
}

impl Summary {
    /// Adds what a look saw, and says whether it is time to tell.
    pub(super) fn add(&mut self, worst_lateness: Duration) -> bool {
        self.looks += 1;
        self.worst_lateness = self.worst_lateness.max(worst_lateness);
        self.looks >= LOOKS_A_SUMMARY
    }

    /// Tells what happened since the last time, and begins anew. Returns the same in short.
    pub(super) fn tell(&mut self, shared: &Shared) -> String {
        let totals = shared.totals();
        let recent = totals.since(&self.last);
        info!(
            clients = shared.engine.registry().len(),
            heartbeats = recent.heartbeats,
            pings = recent.pings(),
            refused = recent.refused(),
            failed_sends = recent.failed_sends(),
            skipped_slots = recent.skipped_slots,
            short_percent = (recent.short_percent() * 10.0).round() / 10.0,
            worst_lateness_ms = (self.worst_lateness.as_secs_f64() * 1e6).round() / 1e3,
            "summary"
        );
        let short = format!(
            "{}; in the last minute {}, {}, {} refused",
            counted(shared.engine.registry().len() as u64, "client", "clients"),
            counted(recent.heartbeats, "heartbeat", "heartbeats"),
            counted(recent.pings(), "ping", "pings"),
            counted(recent.refused(), "datagram", "datagrams")
        );
        *self = Self { last: totals, ..Self::default() };
        short
    }
}
