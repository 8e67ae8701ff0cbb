//! Creates the engine, and restores the clients of the snapshot.

use tracing::info;

use super::bind::Bound;
use super::error::StartError;
use super::update_broadcasts;
use crate::clock::{self, Time};
use crate::config::{Config, DenyFile};
use crate::engine::registry::{SHARDS, Seed};
use crate::engine::{Engine, Load, Settings};
use crate::net::Socket;
use crate::shared::Shared;
use crate::snapshot::{self, Found, Keeper, Moment, Snapshot};

/// The restored clients, and the time at which the workers start.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) keeper: Option<Keeper>,
    pub(super) shared: Shared,
    /// The workers start at the slots due from this time on.
    pub(super) from: Time,
    /// The number of slots in a second of the previous daemon.
    pub(super) slots: Option<u16>,
}

/// Reads the snapshot, if there is one, and creates the engine with its clients.
pub(super) async fn restore(config: &Config, bound: &Bound) -> Result<Restored, StartError> {
    let socket = &bound.socket;
    let port = socket.address().port();
    let begun = Moment::now();
    let (keeper, Found { snapshot, unused }) = start_keeper(config, port).await?;
    let denied = config.deny_file.as_ref().and_then(DenyFile::networks).cloned();
    let settings = Settings {
        rules: config.rules(),
        denied: denied.unwrap_or_default(),
        port,
        expiration: config.client_expiration_seconds,
        shards: SHARDS,
        // With the same seed a client returns to its shard, and so keeps its phase of the second.
        seed: snapshot.as_ref().map_or_else(Seed::random, Snapshot::seed),
        workers: config.worker_pool_size,
        load: Load::default(),
        max_icmp_errors: config.max_icmp_errors_per_second,
        receive_capacity: socket.most_waiting(),
        drained_until: bound.drained_until,
    };
    let engine = Engine::new(settings, begun.now);
    update_broadcasts(&engine);
    let mut shared = Shared::new(engine, config.worker_pool_size);
    shared.metrics.snapshots.interval = keeper.as_ref().map(|_| config.snapshot_interval_seconds);
    shared.metrics.snapshots.unused = unused;
    shared.metrics.deny_file.is_set = config.deny_file.is_some();
    let slots = snapshot.as_ref().map(|snapshot| snapshot.header().slots);
    let from = snapshot.and_then(|snapshot| restore_clients(&snapshot, socket, &shared, &begun));
    Ok(Restored { keeper, shared, from: from.unwrap_or(begun.now), slots })
}

/// Starts the thread that reads and writes the snapshot, if configured, and waits for its first read.
async fn start_keeper(config: &Config, port: u16) -> Result<(Option<Keeper>, Found), StartError> {
    let Some(path) = config.snapshot_path.clone() else {
        return Ok((None, Found::default()));
    };
    let settings = snapshot::Settings { path, interval: config.snapshot_interval_seconds };
    let (keeper, found) = Keeper::start(settings, port).await.map_err(StartError::Thread)?;
    Ok((Some(keeper), found))
}

/// Restores the clients of a snapshot. Returns the time until which the previous daemon served.
fn restore_clients(
    snapshot: &Snapshot,
    socket: &Socket,
    shared: &Shared,
    begun: &Moment,
) -> Option<Time> {
    let now = Moment::now();
    let served = |client| socket.reaches(client);
    let restored = snapshot.restore(&shared.engine, served, &now);
    let age = now.since(&snapshot.header().taken).unwrap_or_default();
    info!(
        clients = restored.clients,
        expired = restored.expired,
        refused = restored.refused,
        age_seconds = (age.as_secs_f64() * 1e3).round() / 1e3,
        took_ms = (clock::now().since(begun.now).as_secs_f64() * 1e3).round(),
        "restored"
    );
    snapshot.pinged_until(&now)
}
