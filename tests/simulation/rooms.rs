//! Counts clients against the caps, by the rules of docs/security.md.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use wakeupd::engine::guard::{Caps, Count};
use wakeupd_protocol::DEFAULT_PORT;

use crate::client::Mix;
use crate::daemon::{LOCAL_NETS, REFUSE_NETS};

#[derive(Debug)]
pub struct Rooms {
    caps: Caps,
    all: usize,
    counts: HashMap<(u8, u128), usize, Mix>,
    local: IpNet,
}

impl Rooms {
    pub fn new(caps: Caps) -> Self {
        let local = LOCAL_NETS.parse().unwrap();
        Self { caps, all: 0, counts: HashMap::default(), local }
    }

    /// Whether `source` may never register.
    pub fn bars(source: SocketAddr) -> bool {
        let refused: IpNet = REFUSE_NETS.parse().unwrap();
        let is_nobodys = match source.ip() {
            IpAddr::V4(ip) => ip.octets()[0] >= 224,
            IpAddr::V6(_) => false,
        };
        source.port() < 1024
            || source.port() == DEFAULT_PORT
            || is_nobodys
            || refused.contains(&source.ip())
    }

    pub fn all(&self) -> usize {
        self.all
    }

    pub fn clear(&mut self) {
        self.all = 0;
        self.counts.clear();
    }

    pub fn enter(&mut self, ip: IpAddr) {
        self.all += 1;
        for network in networks(ip) {
            *self.counts.entry(network).or_default() += 1;
        }
    }

    pub fn leave(&mut self, ip: IpAddr) {
        self.all -= 1;
        for network in networks(ip) {
            *self.counts.entry(network).or_default() -= 1;
        }
    }

    /// The count and the cap of each limit that applies to `ip`.
    fn counts(&self, ip: IpAddr) -> Vec<(usize, usize)> {
        let Caps { clients, per_address, per_prefix } = self.caps;
        let mut counts = vec![(self.all, clients as usize)];
        if !self.local.contains(&ip) {
            for (network, cap) in networks(ip).into_iter().zip([per_address, per_prefix]) {
                counts.push((self.counts.get(&network).copied().unwrap_or(0), cap as usize));
            }
        }
        counts
    }

    /// The number of clients that share the address and the prefix of `ip`, leaving out local networks.
    pub fn count(&self, ip: IpAddr) -> Count {
        if self.local.contains(&ip) {
            return Count::default();
        }
        let count =
            |network| self.counts.get(&network).map_or(0, |count| u32::try_from(*count).unwrap());
        let [of_address, of_prefix] = networks(ip).map(count);
        Count { of_address, of_prefix }
    }

    pub fn is_full(&self, ip: IpAddr) -> bool {
        self.left(ip) == 0
    }

    pub fn is_overfull(&self, ip: IpAddr) -> bool {
        self.counts(ip).iter().any(|(count, cap)| count > cap)
    }

    pub fn is_pressed(&self, ip: IpAddr) -> bool {
        self.counts(ip).iter().any(|(count, cap)| count * 4 > cap * 3)
    }

    /// The number of clients that can still register from `ip`.
    pub fn left(&self, ip: IpAddr) -> usize {
        let left = self.counts(ip).into_iter().map(|(count, cap)| cap.saturating_sub(count));
        left.min().unwrap_or_default()
    }
}

/// The networks that the caps apply to: the IPv4 address or the IPv6 /64, and the prefix.
fn networks(ip: IpAddr) -> [(u8, u128); 2] {
    match ip {
        IpAddr::V4(ip) => {
            let bits = u128::from(ip.to_bits());
            [(32, bits), (24, bits >> 8)]
        }
        IpAddr::V6(ip) => [(64, ip.to_bits() >> 64), (56, ip.to_bits() >> 72)],
    }
}
