//! What the engine counts.

use super::guard::Refused;
use super::registry::Removal;
use crate::counter::Counter;

/// The engine's decisions since it was created.
#[derive(Debug, Default)]
pub struct Counters {
    /// Accepted heartbeats.
    pub heartbeats: Counter,
    /// Registered clients.
    pub registered: Counter,
    /// Clients restored from the snapshot.
    pub restored: Counter,
    /// Removed clients, by [`Removal`].
    pub removed: [Counter; Removal::ALL.len()],
    /// Times that a client was muted because its port is closed, or would have been muted if the guard enforced
    /// its rules.
    pub muted: Counter,
    /// Datagrams that were refused, or would have been refused if the guard enforced its rules, by [`Refused`].
    pub refused: [Counter; Refused::ALL.len()],
    /// Slots that were not skipped.
    pub served_slots: Counter,
    /// Slots skipped because their worker was a whole second late.
    pub skipped_slots: Counter,
    /// The pings of the skipped slots, muted clients included.
    pub skipped_pings: Counter,
}
