//! The local addresses that heartbeats were sent to, as 14-bit numbers.
//!
//! Each client holds a reference to one address. The table drops an address with its last client. A client
//! occupies at most one entry, no matter how many addresses it sends to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of a local address in the registry's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct LocalId(u16);

impl LocalId {
    /// No local address: the kernel did not report the destination of the heartbeat, so the kernel chooses the source
    /// address of the pings.
    pub(super) const NONE: Self = Self(0);

    /// The kernel chooses the source address, because the table is full.
    pub(super) const NO_ROOM: Self = Self(Self::MASK);

    /// The mask of the bits that a [`LocalId`] uses.
    pub(super) const MASK: u16 = (1 << 14) - 1;

    /// The number of addresses in a full table, and the largest ID of an address.
    const MAX: u16 = Self::NO_ROOM.0 - 1;

    pub(super) const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::MASK)
    }

    pub(super) const fn to_bits(self) -> u16 {
        self.0
    }

    fn index(self) -> usize {
        self.0.into()
    }
}

/// The limit on loopback addresses in the table. Without it, a local user could fill the table, because any
/// local user can send to 16 million loopback addresses.
const MAX_LOOPBACK: u32 = 1_024;

/// The usage of the table of local addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalUse {
    /// The number of local addresses that clients send to.
    pub addresses: usize,
    /// The number of clients for which the table has no room. The kernel chooses the source address of their
    /// pings.
    pub clients_without: u32,
}

/// The local addresses of all clients.
///
/// An ID keeps its address for as long as a client holds the ID. The lock of the client's shard is held while
/// the ID is read or replaced, so [`Self::address_of`] needs no lock of its own, and its caller must hold the
/// shard's lock.
#[derive(Debug)]
pub(super) struct Locals {
    addresses: Box<[Slot]>,
    table: Mutex<Table>,
}

/// An IPv6 or IPv4-mapped address, in two halves. The slot has no lock: the locks of the shards with clients
/// that hold the address order the reads and writes.
#[derive(Debug, Default)]
struct Slot([AtomicU64; 2]);

#[derive(Debug)]
struct Table {
    locals: HashMap<IpAddr, LocalId>,
    /// The number of clients that hold each ID.
    clients: Vec<u32>,
    /// The IDs that no address uses any more.
    free: Vec<LocalId>,
    loopback: u32,
    clients_without: u32,
}

impl Slot {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
    fn set(&self, address: IpAddr) {
        let bits = match address {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let [high, low] = &self.0;
        high.store((bits >> 64) as u64, Relaxed);
        low.store(bits as u64, Relaxed);
    }

    fn get(&self) -> IpAddr {
        let [high, low] = self.0.each_ref().map(|half| u128::from(half.load(Relaxed)));
        Ipv6Addr::from_bits(high << 64 | low).to_canonical()
    }
}

impl Default for Locals {
    fn default() -> Self {
        let addresses = (0..=LocalId::MAX).map(|_| Slot::default()).collect();
        Self { addresses, table: Mutex::default() }
    }
}

impl Locals {
    /// Takes a reference to `address` for a client, and returns the ID for the client to hold. `None` means
    /// that the kernel did not report the address.
    pub(super) fn take(&self, address: Option<IpAddr>) -> LocalId {
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return LocalId::NONE;
        };
        let mut table = self.table();
        let known = table.locals.get(&address).copied();
        let Some(local) = known.or_else(|| table.insert(address)) else {
            table.clients_without += 1;
            return LocalId::NO_ROOM;
        };
        if known.is_none() {
            self.addresses[local.index()].set(address);
        }
        table.clients[local.index()] += 1;
        local
    }

    /// Releases a client's reference to the address with the ID `local`.
    pub(super) fn release(&self, local: LocalId) {
        match local {
            LocalId::NONE => {}
            LocalId::NO_ROOM => self.table().clients_without -= 1,
            _ => {
                let mut table = self.table();
                table.clients[local.index()] -= 1;
                if table.clients[local.index()] == 0 {
                    table.forget(local, self.addresses[local.index()].get());
                }
            }
        }
    }

    /// Whether a client that holds `local` can keep it after a heartbeat to `address`. A client for which the
    /// table had no room tries again with each heartbeat. The caller must hold the lock of the client's
    /// shard.
    pub(super) fn fits(&self, local: LocalId, address: Option<IpAddr>) -> bool {
        local != LocalId::NO_ROOM && self.address_of(local) == address
    }

    /// Looks up the local address with the ID `local`. `None` means that the kernel chooses the source
    /// address. The caller must hold the lock of the client's shard, so that the ID stays valid.
    pub(super) fn address_of(&self, local: LocalId) -> Option<IpAddr> {
        let is_address = (1..=LocalId::MAX).contains(&local.0);
        is_address.then(|| self.addresses[local.index()].get())
    }

    pub(super) fn usage(&self) -> LocalUse {
        let table = self.table();
        LocalUse { addresses: table.locals.len(), clients_without: table.clients_without }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            locals: HashMap::new(),
            // The place of `LocalId::NONE`, which counts no clients.
            clients: vec![0],
            free: Vec::new(),
            loopback: 0,
            clients_without: 0,
        }
    }
}

impl Table {
    /// Assigns an ID to the new `address`. Returns `None` if the table has no room.
    fn insert(&mut self, address: IpAddr) -> Option<LocalId> {
        let is_loopback = address.is_loopback();
        if is_loopback && self.loopback == MAX_LOOPBACK {
            return None;
        }
        let local = self.free.pop().or_else(|| self.unused())?;
        self.loopback += u32::from(is_loopback);
        self.locals.insert(address, local);
        Some(local)
    }

    /// An ID that has never been used. `None` if all IDs have been used.
    fn unused(&mut self) -> Option<LocalId> {
        let number = u16::try_from(self.clients.len()).ok().filter(|n| *n <= LocalId::MAX)?;
        self.clients.push(0);
        Some(LocalId(number))
    }

    fn forget(&mut self, local: LocalId, address: IpAddr) {
        self.locals.remove(&address);
        self.free.push(local);
        self.loopback -= u32::from(address.is_loopback());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[expect(clippy::unnecessary_wraps, reason = "it is what the kernel may tell")]
    fn address(number: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(number).into())
    }

    fn full() -> (Locals, Vec<LocalId>) {
        let locals = Locals::default();
        let taken = (1..=u32::from(LocalId::MAX)).map(|n| locals.take(address(n))).collect();
        (locals, taken)
    }

    #[test]
    fn each_local_address_has_one_id() {
        let locals = Locals::default();
        assert_eq!(locals.take(None), LocalId::NONE);
        assert_eq!(locals.address_of(LocalId::NONE), None);
        let v6 = "2001:db8::1".parse().ok();
        let [one, other] = [address(1), v6].map(|address| locals.take(address));
        assert!(one != other && one != LocalId::NONE && other != LocalId::NONE);
        assert_eq!(locals.take(address(1)), one);
        assert_eq!([one, other].map(|local| locals.address_of(local)), [address(1), v6]);
        assert!(locals.fits(one, address(1)) && locals.fits(LocalId::NONE, None));
        assert!(!locals.fits(one, None) && !locals.fits(one, v6));
        assert!(!locals.fits(LocalId::NONE, v6) && !locals.fits(LocalId::NO_ROOM, None));
        assert_eq!(locals.usage(), LocalUse { addresses: 2, clients_without: 0 });
    }

    #[test]
    fn an_address_is_freed_when_its_last_client_releases_it() {
        let (locals, taken) = full();
        assert_eq!(locals.take(address(1)), taken[0]);
        locals.release(taken[0]);
        assert_eq!(locals.take(address(20_000)), LocalId::NO_ROOM, "one client still holds it");
        assert_eq!(locals.address_of(taken[0]), address(1));
        locals.release(taken[0]);
        let next = locals.take(address(20_000));
        assert_eq!(locals.address_of(next), address(20_000));
        for (number, local) in (1..).zip(taken).skip(1) {
            assert_eq!(locals.address_of(local), address(number));
        }
    }

    #[test]
    fn a_full_table_hands_out_no_id_until_one_is_freed() {
        let (locals, taken) = full();
        assert_eq!([0; 3].map(|_| locals.take(address(20_000))), [LocalId::NO_ROOM; 3]);
        assert_eq!(locals.address_of(LocalId::NO_ROOM), None);
        assert_eq!(locals.usage(), LocalUse { addresses: taken.len(), clients_without: 3 });
        locals.release(LocalId::NO_ROOM);
        for local in &taken {
            locals.release(*local);
        }
        assert_eq!(locals.usage(), LocalUse { addresses: 0, clients_without: 2 });
        assert_eq!(locals.address_of(locals.take(address(20_000))), address(20_000));
    }

    #[test]
    fn loopback_addresses_cannot_fill_the_table() {
        let locals = Locals::default();
        let loopback = |n: u32| address(0x7f00_0000 + n);
        let taken: Vec<_> = (1..=MAX_LOOPBACK).map(|n| locals.take(loopback(n))).collect();
        assert_eq!(locals.take(loopback(0)), LocalId::NO_ROOM);
        assert_eq!(locals.take("::1".parse().ok()), LocalId::NO_ROOM);
        for n in MAX_LOOPBACK..LocalId::MAX.into() {
            assert_ne!(locals.take(address(n)), LocalId::NO_ROOM);
        }
        assert_eq!(locals.take(address(0)), LocalId::NO_ROOM);
        locals.release(taken[7]);
        assert_eq!(locals.take(loopback(0)), taken[7]);
    }
}
