//! What all tasks of the daemon share.

use crate::clock;
use crate::engine::Engine;
use crate::health::Health;
use crate::metrics::{Metrics, Totals};

/// The protocol's state, and what is known of the tasks that drive it.
#[derive(Debug)]
pub struct State {
    /// The clients and the rules.
    pub engine: Engine,
    /// What the tasks count.
    pub metrics: Metrics,
    /// Whether the tasks are alive.
    pub health: Health,
}

impl State {
    /// The state of a daemon with `workers` workers that starts now.
    #[must_use]
    pub fn new(engine: Engine, workers: usize) -> Self {
        let health = Health::new(workers, clock::now());
        Self { engine, metrics: Metrics::default(), health }
    }

    /// All counts as they are now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.metrics.totals(self.engine.counters())
    }
}
