//! The protocol: what goes over the wire.
//!
//! A **heartbeat** is any datagram at all, an empty one included: only its source address counts.
//! A **ping** is the two bytes [`PING`]. See `docs/protocol.md`.

use std::time::Duration;

/// What a client is woken with: `75 61`, the letters "ua".
pub const PING: [u8; 2] = *b"ua";

/// The time between two pings of a client.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The UDP port of the service where nothing else is said.
pub const DEFAULT_PORT: u16 = 7561;
