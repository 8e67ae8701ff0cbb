//! The result of a sweep.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Removal;
use super::local::{LocalAddresses, LocalId};

/// A client to ping, and the local address that its heartbeat was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Target<A> {
    pub(in crate::engine) client: A,
    pub(in crate::engine) local: LocalId,
}

/// The result of a sweep of a shard.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sweep {
    /// The IPv4 clients to ping.
    pub(in crate::engine) v4: Vec<Target<SocketAddrV4>>,
    /// The IPv6 clients to ping.
    pub(in crate::engine) v6: Vec<Target<SocketAddrV6>>,
    /// The removed clients.
    pub(in crate::engine) removed: Vec<(SocketAddr, Removal)>,
    /// The local addresses that the pings leave from.
    pub(in crate::engine) locals: LocalAddresses,
}

impl Sweep {
    /// Clears the lists but keeps their allocations.
    pub(in crate::engine) fn clear(&mut self) {
        let Self { v4, v6, removed, locals } = self;
        v4.clear();
        v6.clear();
        removed.clear();
        locals.clear();
    }
}
