//! The result of a sweep.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Removal;

/// A client to ping, and the source address of the ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Target<A> {
    pub(in crate::engine) client: A,
    pub(in crate::engine) source: SourceId,
}

/// The number of a source address in a [`Sweep`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct SourceId(u16);

/// The distinct source addresses of a sweep. The sweep copies them, because the registry can forget an address as soon
/// as the shard is unlocked.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sources {
    addresses: Vec<IpAddr>,
    ids: HashMap<IpAddr, SourceId>,
}

impl Sources {
    /// The number of `address`, which is new or known. `None` means that the kernel chooses the source address.
    pub(super) fn id(&mut self, address: Option<IpAddr>) -> SourceId {
        let Some(address) = address else { return SourceId::default() };
        *self.ids.entry(address).or_insert_with(|| {
            self.addresses.push(address);
            // Number 0 stands for no address.
            SourceId(u16::try_from(self.addresses.len()).unwrap_or_default())
        })
    }

    /// The address with the number `id`. `None` means that the kernel chooses the source address.
    pub(in crate::engine) fn address(&self, id: SourceId) -> Option<IpAddr> {
        usize::from(id.0).checked_sub(1).map(|place| self.addresses[place])
    }

    fn clear(&mut self) {
        self.addresses.clear();
        self.ids.clear();
    }
}

/// The result of the sweeps of some shards.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sweep {
    /// The IPv4 clients to ping.
    pub(in crate::engine) v4: Vec<Target<SocketAddrV4>>,
    /// The IPv6 clients to ping.
    pub(in crate::engine) v6: Vec<Target<SocketAddrV6>>,
    /// The removed clients.
    pub(in crate::engine) removed: Vec<(SocketAddr, Removal)>,
    /// The source addresses of the pings.
    pub(in crate::engine) sources: Sources,
}

impl Sweep {
    /// Clears the lists but keeps their allocations.
    pub(in crate::engine) fn clear(&mut self) {
        let Self { v4, v6, removed, sources } = self;
        v4.clear();
        v6.clear();
        removed.clear();
        sources.clear();
    }
}
