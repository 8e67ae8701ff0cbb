//! One client, as others see it.

use std::net::{IpAddr, SocketAddr};

use super::client::Client;
use crate::clock::Time;

/// What is known of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its address.
    pub address: SocketAddr,
    /// The second in which its first heartbeat came.
    pub first_seen: Time,
    /// When its last heartbeat came.
    pub last_heartbeat: Time,
    /// Its heartbeats.
    pub heartbeats: u32,
    /// The pings that the kernel took.
    pub pings: u32,
    /// Whether it gets no pings until its next heartbeat.
    pub is_muted: bool,
    /// The local address that its last heartbeat hit; `None` is the kernel's choice.
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
