//! Client counts per address and per prefix.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::ops::Shr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Enough tables to make lock contention between threads rare.
const TABLES: usize = 64;

/// The difference in bits between an address and a prefix: from an IPv4 address to its /24, and from an IPv6
/// /64, which is counted as one address, to its /56.
const PREFIX_BITS: u32 = 8;

/// The unit in which clients are counted: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                Self::V6(u64::from_be_bytes(*ip.octets().first_chunk().expect("it has 16 octets")))
            }
        }
    }
}

/// The number of clients at an address and in its prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The number of clients at the IPv4 address or in the IPv6 /64.
    pub of_address: u32,
    /// The number of clients in the IPv4 /24 or IPv6 /56.
    pub of_prefix: u32,
}

/// The counts of all addresses with clients.
#[derive(Debug)]
pub(super) struct Counts {
    tables: Vec<Mutex<Table>>,
    hasher: RandomState,
}

impl Default for Counts {
    fn default() -> Self {
        let tables = (0..TABLES).map(|_| Mutex::default()).collect();
        Self { tables, hasher: RandomState::new() }
    }
}

impl Counts {
    /// The table that counts `address` and its prefix.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    pub(super) fn table(&self, address: Address) -> MutexGuard<'_, Table> {
        let hash = match address {
            Address::V4(address) => self.hasher.hash_one(address >> PREFIX_BITS),
            Address::V6(address) => self.hasher.hash_one(address >> PREFIX_BITS),
        };
        let table = &self.tables[hash as usize % TABLES];
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    v4: Family<u32>,
    v6: Family<u64>,
}

impl Table {
    pub(super) fn count(&self, address: Address) -> Count {
        match address {
            Address::V4(address) => self.v4.count(address),
            Address::V6(address) => self.v6.count(address),
        }
    }

    pub(super) fn add(&mut self, address: Address) {
        match address {
            Address::V4(address) => self.v4.add(address),
            Address::V6(address) => self.v6.add(address),
        }
    }

    pub(super) fn remove(&mut self, address: Address) {
        match address {
            Address::V4(address) => self.v4.remove(address),
            Address::V6(address) => self.v6.remove(address),
        }
    }
}

#[derive(Debug, Default)]
struct Family<K> {
    addresses: HashMap<K, u32>,
    prefixes: HashMap<K, u32>,
}

impl<K: Copy + Eq + Hash + Shr<u32, Output = K>> Family<K> {
    fn count(&self, address: K) -> Count {
        let of = |counts: &HashMap<K, u32>, key| counts.get(&key).copied().unwrap_or(0);
        Count {
            of_address: of(&self.addresses, address),
            of_prefix: of(&self.prefixes, address >> PREFIX_BITS),
        }
    }

    fn add(&mut self, address: K) {
        *self.addresses.entry(address).or_default() += 1;
        *self.prefixes.entry(address >> PREFIX_BITS).or_default() += 1;
    }

    fn remove(&mut self, address: K) {
        one_less(&mut self.addresses, address);
        one_less(&mut self.prefixes, address >> PREFIX_BITS);
    }
}

/// Decrements a count. Removes it at zero, so only addresses with clients take memory.
fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(counts: &Counts, ip: &str) -> (u32, u32) {
        let address = ip.parse::<IpAddr>().unwrap().into();
        let Count { of_address, of_prefix } = counts.table(address).count(address);
        (of_address, of_prefix)
    }

    #[test]
    fn clients_are_counted_per_address_and_per_prefix() {
        let counts = Counts::default();
        let all = ["192.0.2.1", "192.0.2.1", "192.0.2.255", "192.0.3.1"];
        let all_v6 = ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:ff::", "2001:db8:0:100::"];
        let add = |ip: &str| {
            let address = ip.parse::<IpAddr>().unwrap().into();
            counts.table(address).add(address);
        };
        all.into_iter().chain(all_v6).for_each(add);
        for [two, one, other, none] in [
            ["192.0.2.1", "192.0.2.255", "192.0.3.1", "192.0.4.1"],
            ["2001:db8:0:1::9", "2001:db8:0:ff:9::", "2001:db8:0:100::", "2001:db8:0:200::"],
        ] {
            let found = [two, one, other, none].map(|ip| count(&counts, ip));
            assert_eq!(found, [(2, 3), (1, 3), (1, 1), (0, 0)]);
        }
        let remove = |ip: &str| {
            let address = ip.parse::<IpAddr>().unwrap().into();
            counts.table(address).remove(address);
        };
        all.into_iter().chain(all_v6).for_each(remove);
        for table in &counts.tables {
            let Table { v4, v6 } = &*table.lock().unwrap();
            assert!(v4.addresses.is_empty() && v4.prefixes.is_empty());
            assert!(v6.addresses.is_empty() && v6.prefixes.is_empty());
        }
    }
}
