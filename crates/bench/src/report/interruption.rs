//! The effect of `--restart`.

use serde::Serialize;

use super::{SECOND, millis, quantile};
use crate::measurement::Measured;
use crate::plan::Restart;
use crate::subject::Log;

/// The effect of a restart on the daemon and on the measured clients.
#[derive(Debug, Serialize)]
pub(crate) struct Interruption {
    /// `SIGTERM` or `SIGKILL`.
    pub(crate) signal: &'static str,
    /// From the signal to the end of the process.
    pub(crate) ended_in_seconds: f64,
    /// From the end of the process, or from SIGKILL, until the new process logs that it listens.
    pub(crate) listening_after_seconds: f64,
    /// The clients that the new process restored. Null if the process logged no restore.
    pub(crate) restored: Option<Restored>,
    /// Clients that were pinged before the restart.
    pub(crate) clients_pinged_before: u64,
    /// Clients that were pinged before the restart and never again.
    pub(crate) clients_lost: u64,
    /// From a client's last ping before the restart to its first ping after the restart.
    pub(crate) gap_seconds: Gaps,
    /// Pings missed within the gaps. The missed pings in `pings` include these pings.
    pub(crate) missed: u64,
    /// Pings less than 0.9 s after the previous ping, among each client's first two pings after the restart.
    pub(crate) early: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Gaps {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Restored {
    /// From the start of the process until it logged the restore.
    pub(crate) after_seconds: f64,
    pub(crate) clients: u64,
    pub(crate) expired: u64,
    pub(crate) refused: u64,
    pub(crate) age_seconds: f64,
    /// How long the restore took, as logged by the daemon.
    pub(crate) took_ms: f64,
}

impl Interruption {
    pub(super) fn new(restart: Restart, measured: &Measured, log: Option<&Log>) -> Option<Self> {
        let restarted = measured.watched.restarted?;
        let gaps = measured.heard.gaps.as_ref()?;
        let gap = |q| quantile(&gaps.lengths, q, SECOND);
        let restored = log.and_then(|log| log.restored).map(|restored| Restored {
            after_seconds: restored
                .at
                .saturating_duration_since(restarted.started_at)
                .as_secs_f64(),
            clients: restored.clients,
            expired: restored.expired,
            refused: restored.refused,
            age_seconds: restored.age.as_secs_f64(),
            took_ms: millis(restored.took),
        });
        Some(Self {
            signal: restart.signal().as_str(),
            ended_in_seconds: restarted.ended_in.as_secs_f64(),
            listening_after_seconds: restarted.listening_after.as_secs_f64(),
            restored,
            clients_pinged_before: gaps.pinged_before,
            clients_lost: gaps.never_again,
            gap_seconds: Gaps { p50: gap(0.5), p99: gap(0.99), max: gap(1.0) },
            missed: gaps.missed,
            early: gaps.early,
        })
    }
}
