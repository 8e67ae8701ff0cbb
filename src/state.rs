//! What all tasks of the daemon share.

use std::net::SocketAddr;

use tracing::debug;

use crate::clock;
use crate::engine::guard::Guard;
use crate::engine::registry::{Registry, Removal};
use crate::health::Health;
use crate::metrics::Metrics;

/// The clients and all that is known of them.
#[derive(Debug)]
pub struct State {
    /// Which sources may register.
    pub guard: Guard,
    /// The clients.
    pub registry: Registry,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the tasks are alive.
    pub health: Health,
}

impl State {
    /// That of a daemon with so many workers, which begins now.
    #[must_use]
    pub fn new(guard: Guard, registry: Registry, workers: usize) -> Self {
        let health = Health::new(workers, clock::now());
        Self { guard, registry, metrics: Metrics::default(), health }
    }

    /// Gives the guard back the room of a client that was removed from the registry, and counts that.
    pub fn account_for(&self, client: SocketAddr, removal: Removal) {
        self.guard.release(client.ip());
        self.metrics.removed[removal as usize].add(1);
        debug!(%client, reason = removal.label(), "removed");
    }
}
