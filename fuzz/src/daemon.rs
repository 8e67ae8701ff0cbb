//! The core, joined as the listener, the workers and the daemon join it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use wakeupd::clock::Time;
use wakeupd::engine::guard::{Backlog, Caps, Guard, Mode, Networks, Rules, Unreachable};
use wakeupd::engine::registry::{LocalUse, Refreshed, Registry, Seed, Sweep};

use super::Bytes;

/// A few, because they are made anew for each run.
const SHARDS: usize = 4;
const EXPIRATION: Duration = Duration::from_secs(4);
const SEED: Seed = Seed([1, 2]);

pub(super) struct Daemon {
    rules: Rules,
    guard: Guard,
    registry: Registry,
    unreachable: Unreachable,
    backlog: Backlog,
    /// Until when the listener drained the socket.
    drained_until: Time,
    now: Time,
    /// Who is a client, and which local address its last heartbeat hit.
    clients: BTreeMap<SocketAddr, Option<IpAddr>>,
    /// Who ever was one, for the bytes to choose from.
    known: Vec<SocketAddr>,
}

impl Daemon {
    pub(super) fn start(bytes: &mut Bytes) -> Option<Self> {
        let [mode, start, clients, per_address, per_prefix] = bytes.take()?;
        let cap = |byte: u8, most: u8| 1 + u32::from(byte % most);
        let rules = Rules {
            mode: if mode.is_multiple_of(4) { Mode::Observe } else { Mode::Enforce },
            refuse_nets: "203.0.113.0/24,2001:db8:0:ff::/64".parse().unwrap(),
            local_nets: "10.0.0.0/8,fd00::/8".parse().unwrap(),
            nat64_prefixes: "2001:db8:64::/48".parse().unwrap(),
            caps: Caps {
                clients: cap(clients, 32),
                per_address: cap(per_address, 4),
                per_prefix: cap(per_prefix, 8),
            },
        };
        // At the boot, or shortly before the registry's stamps begin again at zero.
        let start = (u64::from(start & 1) << 32).saturating_sub(u64::from(start) * 100);
        let now = Time::from_nanos(start * 1_000_000);
        Some(Self {
            guard: Guard::new(rules.clone(), 9000, Networks::default()),
            rules,
            registry: Registry::new(SHARDS, EXPIRATION, SEED),
            unreachable: Unreachable::new(500),
            backlog: Backlog::new(EXPIRATION, now),
            drained_until: now,
            now,
            clients: BTreeMap::new(),
            known: vec![SocketAddr::from(([192, 0, 2, 1], 5000))],
        })
    }

    /// Lets one thing happen, if there are bytes to tell which.
    pub(super) fn live(&mut self, bytes: &mut Bytes) -> Option<()> {
        match bytes.byte()? % 8 {
            0 => {
                let millis = u16::from_be_bytes(bytes.take()?);
                self.now = self.now + Duration::from_millis(millis.into());
            }
            1 => self.heard_until(),
            2 => {
                let [shards, behind] = bytes.take()?;
                // A worker may have looked at the clock before the listener did.
                let now = self.now.as_nanos().saturating_sub(u64::from(behind) * 1_000_000);
                self.sweep(shards, Time::from_nanos(now));
            }
            3 => {
                let client = self.source(bytes)?;
                self.port_is_closed(client);
            }
            4 => {
                let ip = self.source(bytes)?.ip();
                // Where that is too long for a prefix nobody is denied.
                let networks = format!("{ip}/{}", bytes.byte()?).parse().unwrap_or_default();
                self.deny(networks);
            }
            5 => {
                if let IpAddr::V4(ip) = self.source(bytes)?.ip() {
                    self.guard.set_broadcasts(vec![ip]);
                }
            }
            kind => {
                let source = self.source(bytes)?;
                let local = match bytes.byte()? {
                    0 => None,
                    low if low.is_multiple_of(2) => Some([192, 0, 2, low].into()),
                    low => Some(Ipv6Addr::from(u128::from(low)).into()),
                };
                // One of them has been waiting since the socket was drained.
                let arrived = if kind == 6 { self.now } else { self.drained_until };
                self.datagram(source, local, arrived);
            }
        }
        Some(())
    }

    /// A source as the socket tells it: without a flow, and with a scope only where that means something.
    fn source(&self, bytes: &mut Bytes) -> Option<SocketAddr> {
        let kind = bytes.byte()? % 9;
        if kind == 0 {
            return Some(self.known[usize::from(bytes.byte()?) % self.known.len()]);
        }
        let port = u16::from_be_bytes(bytes.take()?);
        let ip = match kind {
            1 => [192, 0, 2, bytes.byte()?].into(),
            2 => [10, 0, 0, bytes.byte()?].into(),
            3 => IpAddr::from(bytes.take::<4>()?),
            4 => Ipv4Addr::from(bytes.take::<4>()?).to_ipv6_mapped().into(),
            5 => {
                let [network, host] = bytes.take()?.map(u16::from);
                Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into()
            }
            6 => {
                let ip = Ipv6Addr::from(u128::from(bytes.byte()?) | 0xfe80 << 112);
                let scope = u32::from_be_bytes(bytes.take()?);
                return Some(SocketAddrV6::new(ip, port, 0, scope).into());
            }
            7 => Ipv6Addr::from(0x64_ff9b << 96 | u128::from(bytes.byte()?) | 0xc000_0200).into(),
            _ => IpAddr::from(bytes.take::<16>()?),
        };
        Some((ip, port).into())
    }

    fn heard_until(&mut self) {
        self.registry.heard_until(self.now);
        self.backlog.drained_until(self.now);
        self.drained_until = self.now;
    }

    fn datagram(&mut self, source: SocketAddr, local: Option<IpAddr>, arrived: Time) {
        // The wall clock here is the boot clock.
        let stale = self.backlog.stale(self.now, || self.now);
        let is_stale = stale.covers(Some(arrived.since(Time::default())));
        assert_eq!(is_stale, self.now.since(arrived) > EXPIRATION);
        if is_stale {
            return;
        }
        // An observer lets in whatever the kernel hands on, which is nothing from a multicast address.
        let admitted = self.guard.admit(source);
        if !self.guard.lets_in(admitted) || admitted.is_err() && source.ip().is_multicast() {
            return;
        }
        let admit = || self.guard.lets_in(self.guard.reserve(source.ip()));
        let is_client = self.clients.contains_key(&source);
        match self.registry.refresh(source, local, self.now, admit) {
            Refreshed::Refused => return assert!(!is_client),
            Refreshed::Renewed => assert!(is_client),
            Refreshed::Registered { shard, .. } => {
                assert!(!is_client && !self.registry.is_shard_empty(shard));
            }
        }
        let before = self.clients.get(&source).copied().flatten();
        self.clients.insert(source, local.or(before));
        if !self.known.contains(&source) {
            self.known.push(source);
        }
    }

    fn sweep(&mut self, shards: u8, now: Time) {
        let mut sweep = Sweep::default();
        for shard in (0..SHARDS).filter(|shard| shards >> shard & 1 == 1) {
            self.registry.sweep(shard, now, |ip| self.guard.is_pressed(ip), &mut sweep);
            let v4 = sweep.v4.iter().map(|target| (target.client.into(), target.local));
            let v6 = sweep.v6.iter().map(|target| (target.client.into(), target.local));
            for (client, local) in v4.chain(v6) {
                assert_eq!(self.clients.get(&client), Some(&sweep.locals.of(local)));
            }
            for (client, _) in sweep.removed.drain(..) {
                self.removed(client);
            }
            self.check();
        }
    }

    fn port_is_closed(&mut self, client: SocketAddr) {
        let Some(last_heartbeat) = self.registry.last_heartbeat(client, self.now) else { return };
        assert!(self.clients.contains_key(&client));
        if self.unreachable.report(client, last_heartbeat, self.now) && self.guard.enforces() {
            self.registry.mute(client);
            assert_eq!(self.registry.last_heartbeat(client, self.now), None);
        }
    }

    fn deny(&mut self, networks: Networks) {
        self.guard.deny(networks);
        if !self.guard.enforces() {
            return;
        }
        let mut removed = Vec::new();
        for shard in 0..SHARDS {
            self.registry.evict(shard, |ip| self.guard.denies(ip), &mut removed);
        }
        for client in removed {
            self.removed(client);
        }
    }

    fn removed(&mut self, client: SocketAddr) {
        assert!(self.clients.remove(&client).is_some(), "{client} was no client");
        self.guard.release(client.ip());
    }

    pub(super) fn check(&self) {
        assert_eq!(self.registry.len(), self.clients.len());
        assert_eq!(self.guard.total() as usize, self.clients.len());
        let locals: BTreeSet<_> = self.clients.values().flatten().collect();
        let locals = LocalUse { addresses: locals.len(), clients_without: 0 };
        assert_eq!(self.registry.local_use(), locals);
        if !self.guard.enforces() {
            return;
        }
        let Caps { clients, per_address, per_prefix } = self.rules.caps;
        assert!(self.guard.total() <= clients);
        let (mut addresses, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
        for client in self.clients.keys() {
            assert_eq!(self.guard.admit(*client), Ok(()));
            let ip = client.ip();
            if !self.rules.local_nets.contains(ip) {
                let ip = self.guard.embedded(ip).map_or(ip, IpAddr::from);
                *addresses.entry(first_bits(ip, 32, 64)).or_insert(0) += 1;
                *prefixes.entry(first_bits(ip, 24, 56)).or_insert(0) += 1;
            }
        }
        assert!(addresses.into_values().all(|count| count <= per_address));
        assert!(prefixes.into_values().all(|count| count <= per_prefix));
    }

    /// When nobody sends anything any more, all are gone and all room is there again.
    pub(super) fn fall_silent(&mut self) {
        self.now = self.now + EXPIRATION + Duration::from_millis(1);
        self.heard_until();
        self.sweep(u8::MAX, self.now);
        assert!(self.registry.is_empty());
        self.guard.deny(Networks::default());
        self.guard.set_broadcasts(Vec::new());
        let Caps { clients, per_address, per_prefix } = self.rules.caps;
        for ip in self.known.iter().map(SocketAddr::ip) {
            let room = clients.min(per_address).min(per_prefix);
            assert!((0..room).all(|_| self.guard.reserve(ip).is_ok()), "there is no room at {ip}");
            (0..room).for_each(|_| self.guard.release(ip));
        }
    }
}

/// The family of an address and the first bits of it, so many if it is IPv4 or IPv6.
fn first_bits(ip: IpAddr, v4: u32, v6: u32) -> (bool, u128) {
    match ip {
        IpAddr::V4(ip) => (false, u128::from(ip.to_bits() >> (32 - v4))),
        IpAddr::V6(ip) => (true, ip.to_bits() >> (128 - v6)),
    }
}
