//! The data that all tasks of the daemon share.

use crate::clock;
use crate::engine::Engine;
use crate::metrics::{Metrics, Totals};
use crate::watchdog::Watchdog;

/// The engine, the counters of the tasks, and the watchdog.
#[derive(Debug)]
pub struct Shared {
    /// The clients and the rules.
    pub engine: Engine,
    /// The counters of the tasks. The engine has its own counters.
    pub metrics: Metrics,
    /// Detects stuck tasks.
    pub watchdog: Watchdog,
}

impl Shared {
    /// Creates the data of a daemon with `workers` workers that starts now.
    #[must_use]
    pub fn new(engine: Engine, workers: usize) -> Self {
        let watchdog = Watchdog::new(workers, clock::now());
        Self { engine, metrics: Metrics::default(), watchdog }
    }

    /// The current values of all counters, including the engine's.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.metrics.totals(self.engine.counters())
    }
}
