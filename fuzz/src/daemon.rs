//! Drives the engine with events chosen by the fuzzer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Count, Mode, Networks, Refused, Rules};
use wakeupd::engine::registry::{LocalUse, Seed};
use wakeupd::engine::{Batch, Datagram, Engine, MAX_CATCH_UP, Outcome, Settings};

use super::Bytes;

/// Few shards, because each run creates them.
const SHARDS: usize = 4;
const EXPIRATION: Duration = Duration::from_secs(4);
const SEED: Seed = Seed([1, 2]);

pub(super) struct Daemon {
    rules: Rules,
    engine: Engine,
    batch: Batch,
    /// The time until which the receive buffer was drained.
    drained_until: Time,
    now: Time,
    /// The clients, and the local address of each one's last heartbeat.
    clients: BTreeMap<SocketAddr, Option<IpAddr>>,
    /// All clients so far, for the fuzzer to choose from.
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
        // At boot, or shortly before the registry's stamps wrap to zero.
        let start = (u64::from(start & 1) << 32).saturating_sub(u64::from(start) * 100);
        let now = Time::from_nanos(start * 1_000_000);
        let settings = Settings {
            port: 9000,
            shards: SHARDS,
            seed: SEED,
            max_icmp_errors: 500,
            ..Settings::new(rules.clone(), EXPIRATION, now)
        };
        Some(Self {
            rules,
            engine: Engine::new(settings, now),
            batch: Batch::default(),
            drained_until: now,
            now,
            clients: BTreeMap::new(),
            known: vec![SocketAddr::from(([192, 0, 2, 1], 5000))],
        })
    }

    /// Runs one event, if there are bytes left to choose it.
    pub(super) fn live(&mut self, bytes: &mut Bytes) -> Option<()> {
        match bytes.byte()? % 8 {
            0 => {
                let millis = u16::from_be_bytes(bytes.take()?);
                self.now = self.now + Duration::from_millis(millis.into());
            }
            1 => self.drain(),
            2 => {
                let [slots, behind] = bytes.take()?;
                // A worker may have read the clock before the listener did.
                let now = self.now.as_nanos().saturating_sub(u64::from(behind) * 1_000_000);
                self.serve(slots.into(), Time::from_nanos(now));
            }
            3 => {
                let client = self.source(bytes)?;
                self.port_is_closed(client);
            }
            4 => {
                let ip = self.source(bytes)?.ip();
                // A length that is invalid for the address denies no network.
                let networks = format!("{ip}/{}", bytes.byte()?).parse().unwrap_or_default();
                self.deny(networks);
            }
            5 => {
                if let IpAddr::V4(ip) = self.source(bytes)?.ip() {
                    self.engine.set_broadcasts(vec![ip]);
                }
            }
            kind => {
                let source = self.source(bytes)?;
                let local = match bytes.byte()? {
                    0 => None,
                    low if low.is_multiple_of(2) => Some([192, 0, 2, low].into()),
                    low => Some(Ipv6Addr::from(u128::from(low)).into()),
                };
                // One kind of heartbeat has been waiting since the last drain.
                let arrived = if kind == 6 { self.now } else { self.drained_until };
                self.datagram(source, local, arrived);
            }
        }
        Some(())
    }

    /// A source in the socket's form: without a flow label, and with a scope only where it applies.
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

    fn drain(&mut self) {
        self.engine.handle_received(self.now, 0, true);
        self.drained_until = self.now;
    }

    fn datagram(&mut self, source: SocketAddr, local: Option<IpAddr>, arrived: Time) {
        let waited = self.now.since(arrived);
        let is_client = self.clients.contains_key(&source);
        // The kernel never delivers datagrams from a multicast address.
        if source.ip().is_multicast() && !self.engine.guard().enforces() {
            return;
        }
        let datagram = Datagram { source, local, payload: &[], waited };
        let outcome = self.engine.handle_datagram(self.now, &datagram);
        assert_eq!(outcome.refused() == Some(Refused::Stale), waited > EXPIRATION);
        match outcome {
            Outcome::Refused { reason, .. } => {
                return assert!(!is_client || reason == Refused::Stale);
            }
            Outcome::Accepted { registered, .. } => {
                assert_eq!(registered.is_none(), is_client);
                let shard = registered.map(|registered| registered.shard);
                assert!(shard.is_none_or(|shard| !self.engine.registry().is_shard_empty(shard)));
            }
        }
        let before = self.clients.get(&source).copied().flatten();
        self.clients.insert(source, local.or(before));
        if !self.known.contains(&source) {
            self.known.push(source);
        }
    }

    /// Serves up to `slots` slots of the last second.
    fn serve(&mut self, slots: usize, now: Time) {
        self.engine.resume(now, now.before(MAX_CATCH_UP), None);
        for _ in 0..slots {
            if self.engine.poll_slot(now, 0, &mut self.batch).is_none() {
                return;
            }
            self.batch.for_each(|transmit| {
                for client in transmit.destinations {
                    assert_eq!(self.clients.get(client), Some(&transmit.source));
                }
            });
            self.engine.handle_sent(&mut self.batch);
            for (client, _) in self.batch.removed() {
                assert!(self.clients.remove(client).is_some(), "{client} was not a client");
            }
            self.check();
        }
    }

    fn port_is_closed(&mut self, client: SocketAddr) {
        if self.engine.handle_icmp_error(self.now, Some(client)) {
            assert!(self.clients.contains_key(&client));
            assert_eq!(self.engine.registry().last_heartbeat(client, self.now), None);
        }
    }

    fn deny(&mut self, networks: Networks) {
        for client in self.engine.deny(networks) {
            assert!(self.clients.remove(&client).is_some(), "{client} was not a client");
        }
    }

    pub(super) fn check(&self) {
        let (registry, guard) = (self.engine.registry(), self.engine.guard());
        assert_eq!(registry.len(), self.clients.len());
        assert_eq!(guard.total() as usize, self.clients.len());
        let locals: BTreeSet<_> = self.clients.values().flatten().collect();
        let locals = LocalUse { addresses: locals.len(), clients_without: 0 };
        assert_eq!(registry.local_use(), locals);
        if !guard.enforces() {
            return;
        }
        let Caps { clients, per_address, per_prefix } = self.rules.caps;
        assert!(guard.total() <= clients);
        let (mut addresses, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
        for client in self.clients.keys() {
            assert_eq!(guard.admit(*client), Ok(()));
            let ip = client.ip();
            if !self.rules.local_nets.contains(ip) {
                let ip = guard.embedded(ip).map_or(ip, IpAddr::from);
                *addresses.entry(first_bits(ip, 32, 64)).or_insert(0) += 1;
                *prefixes.entry(first_bits(ip, 24, 56)).or_insert(0) += 1;
            }
        }
        assert!(addresses.into_values().all(|count| count <= per_address));
        assert!(prefixes.into_values().all(|count| count <= per_prefix));
    }

    /// After all clients fall silent, they expire, and all capacity is free again.
    pub(super) fn fall_silent(&mut self) {
        // A slot may be too long ago for the engine to catch up, but not twice within half a second.
        for wait in [EXPIRATION + Duration::from_millis(1), Duration::from_millis(500)] {
            self.now = self.now + wait;
            self.drain();
            self.serve(usize::MAX, self.now);
        }
        assert!(self.engine.registry().is_empty());
        for ip in self.known.iter().map(SocketAddr::ip) {
            assert_eq!(self.engine.guard().count(ip), Count::default(), "at {ip}");
        }
    }
}

/// The family and the leading bits of an address: `v4` bits of an IPv4 address, `v6` bits of an IPv6 address.
fn first_bits(ip: IpAddr, v4: u32, v6: u32) -> (bool, u128) {
    match ip {
        IpAddr::V4(ip) => (false, u128::from(ip.to_bits() >> (32 - v4))),
        IpAddr::V6(ip) => (true, ip.to_bits() >> (128 - v6)),
    }
}
