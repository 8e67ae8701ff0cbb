//! The bytes that wakeupd and its clients exchange.
//!
//! A **heartbeat** is any datagram, even an empty datagram: only its source address matters. A **ping** is
//! the two bytes [`PING`]. See `docs/protocol.md`.

#![no_std]

use core::time::Duration;

/// The payload of a ping: `75 61`, the letters "ua".
pub const PING: [u8; 2] = *b"ua";

/// The payload of the heartbeats that wakeupd's own clients send. The daemon accepts any payload.
pub const HEARTBEAT: [u8; 2] = *b"ua";

/// The time between two pings of a client.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The default UDP port of the daemon.
pub const DEFAULT_PORT: u16 = 7561;

/// The meaning of a datagram from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Registers the sender as a client, or renews its registration.
    Heartbeat,
}

impl Message {
    /// Classifies a datagram by its payload. Apps in the field send all kinds of content, so every
    /// payload is a heartbeat.
    #[must_use]
    pub const fn parse(_payload: &[u8]) -> Self {
        Self::Heartbeat
    }
}
