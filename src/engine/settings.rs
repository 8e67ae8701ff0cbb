//! The parameters of an engine.

use std::time::Duration;

use wakeupd_protocol::DEFAULT_PORT;

use super::guard::{Networks, Rules};
use super::layout::Load;
use super::registry::{SHARDS, Seed};
use crate::clock::Time;

/// The parameters of a new engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The guard's rules.
    pub rules: Rules,
    /// The networks of `DENY_FILE`.
    pub denied: Networks,
    /// The UDP port of the daemon.
    pub port: u16,
    /// How long a client lives after its last heartbeat.
    pub expiration: Duration,
    /// The number of shards, and the largest number of slots in a second: a power of two above 1.
    pub shards: usize,
    /// The key of the hash that assigns each client to a shard.
    pub seed: Seed,
    /// The number of workers, at most one for each shard.
    pub workers: usize,
    /// The load that slots and workers can bear.
    pub load: Load,
    /// The cap on ICMP errors per second, `MAX_ICMP_ERRORS_PER_SECOND`.
    pub max_icmp_errors: u32,
    /// Upper bound on the number of datagrams in the receive buffer.
    pub receive_capacity: usize,
    /// The receive buffer holds no datagram that arrived before this time.
    pub drained_until: Time,
}

impl Settings {
    /// One worker with the usual load on the default port, with a random seed, no denied networks and no limit on ICMP
    /// errors. The receive buffer is empty at `now` and holds any number of datagrams.
    #[must_use]
    pub fn new(rules: Rules, expiration: Duration, now: Time) -> Self {
        Self {
            rules,
            denied: Networks::default(),
            port: DEFAULT_PORT,
            expiration,
            shards: SHARDS,
            seed: Seed::random(),
            workers: 1,
            load: Load::default(),
            max_icmp_errors: u32::MAX,
            receive_capacity: usize::MAX,
            drained_until: now,
        }
    }
}
