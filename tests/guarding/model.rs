//! The plain map: the expected state of the engine.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Count, Mode, Refused};
use wakeupd::engine::registry::Removal;

use super::{LOCAL_NETS, Life, Source, is_denied, is_in, untranslated};

/// The model's record of a client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub shard: usize,
    /// The time of the last heartbeat, to the millisecond.
    pub heartbeat: Time,
    pub has_repeated: bool,
    pub is_muted: bool,
    /// The local address of the last heartbeat.
    pub local: Option<IpAddr>,
}

/// The expected state.
#[derive(Debug)]
pub struct Model {
    pub life: Life,
    pub denied: Vec<IpNet>,
    pub heard_until: Time,
    pub clients: BTreeMap<SocketAddr, Client>,
    /// For each client, when its port was reported closed, and its last heartbeat at that time.
    pub reports: BTreeMap<SocketAddr, Vec<(Time, Time)>>,
}

impl Model {
    pub fn enforces(&self) -> bool {
        self.life.mode == Mode::Enforce
    }

    pub fn expiration(&self) -> Duration {
        self.life.eighth * 8
    }

    pub fn admit(&self, source: Source) -> Result<(), Refused> {
        let is_denied = is_denied(&self.denied, source.address.ip());
        source.barred.or(is_denied.then_some(Refused::DenyFile)).map_or(Ok(()), Err)
    }

    /// The counts and caps that apply to `ip`, from all clients down to its prefix.
    pub fn rooms(&self, ip: IpAddr) -> Vec<(usize, usize, Refused)> {
        let Caps { clients, per_address, per_prefix } = self.life.caps;
        let mut rooms = vec![(self.clients.len(), clients as usize, Refused::MaxClients)];
        if !is_in(&LOCAL_NETS, ip) {
            let count = |v4_length, v6_length| {
                let ip = untranslated(ip);
                let length = if ip.is_ipv4() { v4_length } else { v6_length };
                let network = IpNet::new(ip, length).unwrap();
                let others = self.clients.keys().map(SocketAddr::ip);
                let others = others.filter(|ip| !is_in(&LOCAL_NETS, *ip));
                others.filter(|ip| network.contains(&untranslated(*ip))).count()
            };
            rooms.push((count(32, 64), per_address as usize, Refused::MaxClientsPerAddress));
            rooms.push((count(24, 56), per_prefix as usize, Refused::MaxClientsPerPrefix));
        }
        rooms
    }

    pub fn verdict(&self, ip: IpAddr) -> Result<(), Refused> {
        let full = self.rooms(ip).into_iter().find(|(count, cap, _)| count >= cap);
        full.map_or(Ok(()), |(_, _, reason)| Err(reason))
    }

    pub fn is_pressed(&self, ip: IpAddr) -> bool {
        self.enforces() && self.rooms(ip).iter().any(|(count, cap, _)| count * 100 > cap * 75)
    }

    /// The number of clients at the address and in the prefix of `ip`.
    pub fn count(&self, ip: IpAddr) -> Count {
        let counts: Vec<_> =
            self.rooms(ip).iter().map(|(count, ..)| u32::try_from(*count).unwrap()).collect();
        match counts[..] {
            [_, of_address, of_prefix] => Count { of_address, of_prefix },
            _ => Count::default(),
        }
    }

    /// The expected verdict on a heartbeat from a source that is not a client.
    pub fn expect(&self, source: Source) -> Result<(), Refused> {
        self.admit(source).and_then(|()| self.verdict(source.address.ip()))
    }

    pub fn is_pinged(&self, client: Client, now: Time) -> bool {
        now.since(client.heartbeat) <= self.expiration() && !client.is_muted
    }

    /// The reason to remove a client, if there is one.
    pub fn removal(&self, address: SocketAddr, client: Client, now: Time) -> Option<Removal> {
        let silence = now.min(self.heard_until).since(client.heartbeat);
        if silence > self.expiration() {
            return Some(Removal::Expired);
        }
        let is_on_probation = !client.has_repeated && silence > self.life.eighth * 3;
        (is_on_probation && self.is_pressed(address.ip())).then_some(Removal::MadeWay)
    }

    /// Records a report that a port is closed. Returns whether to believe it. Heartbeats within one
    /// millisecond are indistinguishable.
    pub fn is_believed(&mut self, address: SocketAddr, heartbeat: Time, now: Time) -> bool {
        let reports = self.reports.entry(address).or_default();
        reports.push((now, heartbeat));
        reports.retain(|(_, before)| *before == heartbeat);
        let is_enough = reports.len() >= 3 && now.since(reports[0].0) >= Duration::from_secs(2);
        if is_enough {
            reports.clear();
        }
        is_enough
    }
}
