//! The data that all tasks of the daemon share.

use crate::clock;
use crate::engine::Engine;
use crate::metrics::{Metrics, Totals};
use crate::watchdog::Watchdog;

/// The engine, and what its tasks report.
#[derive(Debug)]
pub struct Shared {
    /// The clients and the rules.
    pub engine: Engine,
    /// What the tasks count besides the engine.
    pub metrics: Metrics,
    /// Finds tasks that are stuck.
    pub watchdog: Watchdog,
}

impl Shared {
    /// For a daemon with `workers` workers that starts now.
    #[must_use]
    pub fn new(engine: Engine, workers: usize) -> Self {
        let watchdog = Watchdog::new(workers, clock::now());
        Self { engine, metrics: Metrics::default(), watchdog }
    }

    /// All counts as they are now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.metrics.totals(self.engine.counters())
    }
}
