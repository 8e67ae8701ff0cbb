//! The data that all tasks of the daemon share.

use crate::clock;
use crate::engine::Engine;
use crate::metrics::{Metrics, Totals};
use crate::watchdog::Watchdog;

/// The engine, and the tasks' counters and heartbeats.
#[derive(Debug)]
pub struct Shared {
    /// The clients and the rules.
    pub engine: Engine,
    /// The tasks' counters, besides those of the engine.
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

    /// All counters at present.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.metrics.totals(self.engine.counters())
    }
}
