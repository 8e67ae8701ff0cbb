//! The engine's counters.

use super::guard::Refused;
use super::registry::Removal;
use crate::counter::Counter;

/// Counts of the engine's decisions since its creation.
#[derive(Debug, Default)]
pub struct Counters {
    /// Accepted heartbeats.
    pub heartbeats: Counter,
    /// Registered clients.
    pub registrations: Counter,
    /// Clients restored from the snapshot.
    pub restored: Counter,
    /// Removed clients, by [`Removal`].
    pub removals: [Counter; Removal::ALL.len()],
    /// Times a client was muted because its port is closed. In observe mode: times it would have been muted.
    pub mutes: Counter,
    /// Refused datagrams, by [`Refused`]. In observe mode: datagrams that would have been refused.
    pub refused: [Counter; Refused::ALL.len()],
    /// Slots served. This counter and the next count a slot for each shard with clients.
    pub served_slots: Counter,
    /// Slots skipped because their worker was at least a second late.
    pub skipped_slots: Counter,
    /// Pings lost with the skipped slots, including those to muted clients.
    pub skipped_pings: Counter,
}
