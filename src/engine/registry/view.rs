//! A copy of a client's state.

use std::net::{IpAddr, SocketAddr};

use super::client::Client;
use crate::clock::Time;

/// A client's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The client's canonical address.
    pub address: SocketAddr,
    /// The time of the first heartbeat, truncated to a second.
    pub first_seen: Time,
    /// The time of the last heartbeat.
    pub last_heartbeat: Time,
    /// The number of heartbeats received.
    pub heartbeats: u32,
    /// The number of pings that the kernel accepted.
    pub pings: u32,
    /// Whether the client gets no pings until its next heartbeat.
    pub is_muted: bool,
    /// The local address that the last heartbeat was sent to, from which pings leave. `None` means that the
    /// kernel chooses the source address.
    pub local: Option<IpAddr>,
}

impl View {
    pub(super) fn of(
        address: SocketAddr,
        client: Client,
        now: Time,
        local: Option<IpAddr>,
    ) -> Self {
        Self {
            address,
            first_seen: client.first_seen(),
            last_heartbeat: client.last_heartbeat(now),
            heartbeats: client.heartbeats(),
            pings: client.pings(),
            is_muted: client.is_muted(),
            local,
        }
    }
}
