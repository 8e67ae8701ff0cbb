//! Compares the engine with a plain map that recounts its clients for each question.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Count, Mode, Refused, Rules};
use wakeupd::engine::registry::{LocalUse, Removal, Seed};
use wakeupd::engine::{Batch, Datagram, Engine, MAX_CATCH_UP, Outcome, Registered, Settings};

/// In milliseconds since boot. The registry's stamps wrap to zero at multiples of 2³².
const STARTS: [u64; 4] = [0, 1 << 25, (1 << 32) - 20_000, (7 << 32) - 1];

const OWN_PORT: u16 = 9000;

/// Few, so that they share an address, a /64, a prefix or a local network, or lie at its edge. The first half
/// of the last one has the bits of the first one.
const HOSTS: &str = "192.0.2.1 192.0.2.127 192.0.2.128 192.0.2.255 192.0.3.1 10.0.0.1 10.0.0.2 \
    [2001:db8::1] [2001:db8::2] [2001:db8:0:80::1] [2001:db8:0:ff::1] [2001:db8:0:100::1] \
    [fd00::1] [fe80::1%2] [fe80::1%3] [0:0:c000:201::1] \
    [64:ff9b::192.0.2.1] [64:ff9b::192.0.2.128] [64:ff9b:1:7::192.0.2.2] [64:ff9b::10.0.0.1]";

const PORTS: [u16; 6] = [1024, 5000, 5001, 5002, 5003, 65535];

/// Sources that may never register.
const BARRED: [(&str, Refused); 9] = [
    ("192.0.2.1:0", Refused::SourcePortZero),
    ("[2001:db8::1]:1023", Refused::SystemPort),
    ("10.0.0.1:7561", Refused::DaemonPort),
    ("192.0.2.1:9000", Refused::DaemonPort),
    ("[::]:5000", Refused::Unspecified),
    ("169.254.0.1:5000", Refused::LinkLocal),
    ("198.51.100.7:5000", Refused::RefuseNets),
    ("[64:ff9b::198.51.100.7]:5000", Refused::RefuseNets),
    ("[64:ff9b::127.0.0.1]:5000", Refused::TranslatedLoopback),
];

const REFUSE_NETS: &str = "198.51.100.0/24";

/// Some are smaller than the counted prefixes.
static LOCAL_NETS: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| networks(&["10.0.0.0/8", "192.0.2.128/26", "2001:db8:0:80::/58", "fd00::/8"]));

const DENIABLE: [&str; 7] = [
    "192.0.2.0/24",
    "192.0.2.1/32",
    "10.0.0.0/31",
    "2001:db8::/63",
    "2001:db8::/32",
    "fe80::/10",
    "0.0.0.0/0",
];

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn is_in(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// The IPv4 address embedded in an address, or the address itself.
fn untranslated(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if ip.segments()[..2] == [0x64, 0xff9b] => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d].into()
        }
        _ => ip,
    }
}

fn is_denied(networks: &[IpNet], ip: IpAddr) -> bool {
    is_in(networks, ip) || is_in(networks, untranslated(ip))
}

fn addresses() -> Vec<SocketAddr> {
    let of_host = |host| PORTS.map(|port| format!("{host}:{port}").parse().unwrap());
    HOSTS.split_whitespace().flat_map(of_host).collect()
}

/// The source of a heartbeat.
#[derive(Clone, Copy, Debug)]
struct Source {
    address: SocketAddr,
    barred: Option<Refused>,
}

/// An event in the life of a daemon. Its clock shows whole milliseconds; some events come slightly `after`.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes, in eighths of the expiration. `is_heard`: all heartbeats that arrived have been recorded.
    Pass {
        eighths: u32,
        millis: u64,
        is_heard: bool,
    },
    Heartbeat {
        source: Source,
        local: Option<IpAddr>,
        after: Duration,
    },
    /// Serves this many slots of the second.
    Serve {
        slots: usize,
        after: Duration,
    },
    ServeAll,
    /// The network reports that the port is closed.
    PortClosed(SocketAddr),
    Deny(Vec<&'static str>),
    /// Compares the counts that apply to this address.
    Count(SocketAddr),
}

#[derive(Clone, Copy, Debug)]
struct Life {
    start: Time,
    seed: [u64; 2],
    shards: usize,
    /// An eighth of the expiration.
    eighth: Duration,
    mode: Mode,
    caps: Caps,
}

/// The model's record of a client.
#[derive(Clone, Copy, Debug)]
struct Client {
    shard: usize,
    /// The time of the last heartbeat, to the millisecond.
    heartbeat: Time,
    has_repeated: bool,
    is_muted: bool,
    /// The local address of the last heartbeat.
    local: Option<IpAddr>,
}

/// The expected state.
#[derive(Debug)]
struct Model {
    life: Life,
    denied: Vec<IpNet>,
    heard_until: Time,
    clients: BTreeMap<SocketAddr, Client>,
    /// For each client, when its port was reported closed, and its last heartbeat at that time.
    reports: BTreeMap<SocketAddr, Vec<(Time, Time)>>,
}

impl Model {
    fn enforces(&self) -> bool {
        self.life.mode == Mode::Enforce
    }

    fn expiration(&self) -> Duration {
        self.life.eighth * 8
    }

    fn admit(&self, source: Source) -> Result<(), Refused> {
        let is_denied = is_denied(&self.denied, source.address.ip());
        source.barred.or(is_denied.then_some(Refused::DenyFile)).map_or(Ok(()), Err)
    }

    /// The counts and caps that apply to `ip`, from all clients down to its prefix.
    fn rooms(&self, ip: IpAddr) -> Vec<(usize, usize, Refused)> {
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

    fn verdict(&self, ip: IpAddr) -> Result<(), Refused> {
        let full = self.rooms(ip).into_iter().find(|(count, cap, _)| count >= cap);
        full.map_or(Ok(()), |(_, _, reason)| Err(reason))
    }

    fn is_pressed(&self, ip: IpAddr) -> bool {
        self.enforces() && self.rooms(ip).iter().any(|(count, cap, _)| count * 100 > cap * 75)
    }

    /// The number of clients at the address and in the prefix of `ip`.
    fn count(&self, ip: IpAddr) -> Count {
        let counts: Vec<_> =
            self.rooms(ip).iter().map(|(count, ..)| u32::try_from(*count).unwrap()).collect();
        match counts[..] {
            [_, of_address, of_prefix] => Count { of_address, of_prefix },
            _ => Count::default(),
        }
    }

    /// The expected verdict on a heartbeat from a source that is not a client.
    fn expect(&self, source: Source) -> Result<(), Refused> {
        self.admit(source).and_then(|()| self.verdict(source.address.ip()))
    }

    fn is_pinged(&self, client: Client, now: Time) -> bool {
        now.since(client.heartbeat) <= self.expiration() && !client.is_muted
    }

    /// The reason to remove a client, if there is one.
    fn removal(&self, address: SocketAddr, client: Client, now: Time) -> Option<Removal> {
        let silence = now.min(self.heard_until).since(client.heartbeat);
        if silence > self.expiration() {
            return Some(Removal::Expired);
        }
        let is_on_probation = !client.has_repeated && silence > self.life.eighth * 3;
        (is_on_probation && self.is_pressed(address.ip())).then_some(Removal::MadeWay)
    }

    /// Records a report that a port is closed. Returns whether to believe it. Heartbeats within one
    /// millisecond are indistinguishable.
    fn is_believed(&mut self, address: SocketAddr, heartbeat: Time, now: Time) -> bool {
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

/// An engine, and the model that it must match.
#[derive(Debug)]
struct Daemon {
    engine: Engine,
    batch: Batch,
    clock: Time,
    model: Model,
}

impl Daemon {
    fn new(life: Life) -> Self {
        let Life { start, seed, shards, mode, caps, .. } = life;
        let rules = Rules {
            mode,
            refuse_nets: REFUSE_NETS.parse().unwrap(),
            local_nets: LOCAL_NETS.iter().copied().collect(),
            ..Rules::new(caps)
        };
        let model = Model {
            life,
            denied: Vec::new(),
            heard_until: start,
            clients: BTreeMap::new(),
            reports: BTreeMap::new(),
        };
        let settings = Settings {
            port: OWN_PORT,
            shards,
            seed: Seed(seed),
            max_icmp_errors: 500,
            ..Settings::new(rules, model.expiration(), start)
        };
        let engine = Engine::new(settings, start);
        Self { engine, batch: Batch::default(), clock: start, model }
    }

    fn live(&mut self, event: Event) {
        match event {
            Event::Pass { eighths, millis, is_heard } => self.pass(eighths, millis, is_heard),
            Event::Heartbeat { source, local, after } => {
                self.hear(source, local, self.clock + after);
            }
            Event::Serve { slots, after } => self.serve(slots, self.clock + after),
            Event::ServeAll => self.serve_all(),
            Event::PortClosed(client) => self.take_report(client),
            Event::Deny(texts) => self.deny(networks(&texts)),
            Event::Count(source) => self.count(source),
        }
        let count = self.model.clients.len();
        let engine = &self.engine;
        assert_eq!((engine.registry().len(), engine.guard().total() as usize), (count, count));
        let locals = self.model.clients.values().filter_map(|client| client.local);
        let locals =
            LocalUse { addresses: locals.collect::<BTreeSet<_>>().len(), clients_without: 0 };
        assert_eq!(engine.registry().local_use(), locals, "exactly the addresses that clients use");
    }

    fn pass(&mut self, eighths: u32, millis: u64, is_heard: bool) {
        self.clock = self.clock + self.model.life.eighth * eighths + Duration::from_millis(millis);
        if is_heard {
            self.engine.handle_received(self.clock, 0, true);
            self.model.heard_until = self.clock;
        }
    }

    fn hear(&mut self, source: Source, local: Option<IpAddr>, now: Time) {
        let Self { engine, model, clock, .. } = self;
        let Source { address, .. } = source;
        let known = model.clients.get(&address).copied();
        let admitted = model.admit(source);
        let exceeded = if known.is_some() { Ok(()) } else { model.verdict(address.ip()) };
        let datagram = Datagram { source: address, local, payload: &[], waited: Duration::ZERO };
        let outcome = engine.handle_datagram(now, &datagram);
        let registered = match (outcome, admitted.and(exceeded)) {
            (Outcome::Refused { reason, tolerated: None }, Err(expected)) if reason == expected => {
                return assert!(
                    known.is_none() && (model.enforces() || reason == Refused::SourcePortZero)
                );
            }
            (Outcome::Accepted { registered, tolerated }, verdict) => {
                assert!(verdict.is_ok() || !model.enforces());
                assert_eq!(tolerated, admitted.err());
                let exceeding = registered.and_then(|registered| registered.tolerated);
                assert_eq!(exceeding, exceeded.err());
                registered
            }
            lie => panic!("{lie:?}"),
        };
        let shard = match (registered, known) {
            (None, Some(client)) => client.shard,
            (Some(Registered { shard, .. }), None) => shard,
            lie => panic!("{lie:?}"),
        };
        let has_repeated = known.is_some();
        let local = local.or(known.and_then(|client| client.local));
        let client = Client { shard, heartbeat: *clock, has_repeated, is_muted: false, local };
        model.clients.insert(address, client);
        let rooms = model.rooms(address.ip());
        assert!(!model.enforces() || rooms.iter().all(|(count, cap, _)| count <= cap), "{rooms:?}");
    }

    /// Serves up to `slots` slots of the last second.
    fn serve(&mut self, slots: usize, now: Time) {
        self.engine.resume(now, now.before(MAX_CATCH_UP));
        for _ in 0..slots {
            let Some(slot) = self.engine.poll_slot(now, 0, &mut self.batch) else { return };
            self.check_slot(slot.shard, now);
            self.engine.handle_sent(&mut self.batch);
        }
    }

    /// Serves every slot. Within half a second, a slot may be too long ago for the engine to catch up.
    fn serve_all(&mut self) {
        self.serve(usize::MAX, self.clock);
        self.pass(0, 500, true);
        self.serve(usize::MAX, self.clock);
    }

    fn check_slot(&mut self, shard: usize, now: Time) {
        let Self { model, batch, .. } = self;
        let mut pinged: Vec<(SocketAddr, _)> = Vec::new();
        batch.for_each(|transmit| {
            pinged.extend(transmit.destinations.iter().map(|client| (*client, transmit.source)));
        });
        let mut removed = batch.removed().to_vec();

        let (mut live, mut gone) = (Vec::new(), Vec::new());
        for (address, client) in model.clients.iter().filter(|(_, client)| client.shard == shard) {
            if let Some(removal) = model.removal(*address, *client, now) {
                gone.push((*address, removal));
            } else if model.is_pinged(*client, now) {
                live.push((*address, client.local));
            }
        }
        pinged.sort_unstable();
        removed.sort_unstable_by_key(|(client, _)| *client);
        assert_eq!((pinged, &removed), (live, &gone));
        for (client, _) in &gone {
            model.clients.remove(client);
        }
    }

    fn take_report(&mut self, address: SocketAddr) {
        let Self { engine, model, clock, .. } = self;
        let before = engine.counters().mutes.get();
        let is_muted = engine.handle_icmp_error(*clock, Some(address));
        let is_believed = engine.counters().mutes.get() > before;
        let client = model.clients.get(&address).copied();
        let pinged = client.filter(|client| model.is_pinged(*client, *clock));
        let expected =
            pinged.is_some_and(|client| model.is_believed(address, client.heartbeat, *clock));
        assert_eq!((is_believed, is_muted), (expected, expected && model.enforces()));
        if is_muted {
            model.clients.get_mut(&address).unwrap().is_muted = true;
        }
    }

    fn deny(&mut self, networks: Vec<IpNet>) {
        let Self { engine, model, .. } = self;
        let mut removed = engine.deny(networks.iter().copied().collect());
        model.denied = networks;
        if !model.enforces() {
            return assert!(removed.is_empty());
        }
        removed.sort_unstable();
        let denied = model.clients.keys().filter(|client| is_denied(&model.denied, client.ip()));
        assert_eq!(removed, denied.copied().collect::<Vec<_>>());
        model.clients.retain(|client, _| !is_denied(&model.denied, client.ip()));
    }

    fn count(&self, address: SocketAddr) {
        let guard = self.engine.guard();
        assert_eq!(guard.count(address.ip()), self.model.count(address.ip()), "at {address}");
        let source = Source { address, barred: None };
        assert_eq!(guard.would_admit(address), self.model.expect(source));
    }

    /// Lets all clients expire.
    fn end(mut self) {
        self.pass(8, 1, true);
        self.serve_all();
        assert!(self.engine.registry().is_empty() && self.engine.guard().total() == 0);
        self.deny(Vec::new());
        for address in addresses() {
            self.count(address);
        }
    }
}

fn life() -> impl Strategy<Value = Life> {
    let caps = (1_u32..=50, 1_u32..=6, 1_u32..=9)
        .prop_map(|(clients, per_address, per_prefix)| Caps { clients, per_address, per_prefix });
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Observe)];
    let seed = any::<[u64; 2]>();
    (select(&STARTS), seed, 1_u32..=3, select(&[500, 1_000, 15_000]), mode, caps).prop_map(
        |(start, seed, shards, eighth, mode, caps)| Life {
            start: Time::from_nanos(start * 1_000_000),
            seed,
            shards: 1 << shards,
            eighth: Duration::from_millis(eighth),
            mode,
            caps,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let addresses = addresses();
    // Few, so that some are reported closed three times in a life.
    let closed: Vec<_> = addresses.iter().copied().step_by(25).collect();
    let barred: Vec<_> = BARRED
        .into_iter()
        .map(|(address, reason)| Source { address: address.parse().unwrap(), barred: Some(reason) })
        .collect();
    let open = prop_oneof![8 => select(addresses.clone()), 1 => select(closed.clone())]
        .prop_map(|address| Source { address, barred: None });
    let source = prop_oneof![9 => open, 1 => select(barred)];
    let locals = ["192.0.2.201", "192.0.2.202", "2001:db8::201"].map(|ip| ip.parse().ok());
    let local = select([&locals[..], &[None]].concat());
    let nanos = |range: RangeInclusive<u64>| range.prop_map(Duration::from_nanos);
    let eighths = prop_oneof![4 => Just(0_u32), 4 => Just(1), 3 => 2_u32..=4, 1 => 8_u32..=9];
    let is_heard = prop::bool::weighted(0.8);
    prop_oneof![
        60 => (source, local, nanos(0..=999_999))
            .prop_map(|(source, local, after)| Event::Heartbeat { source, local, after }),
        10 => (eighths, select(&[0, 0, 1, 700]), is_heard)
            .prop_map(|(eighths, millis, is_heard)| Event::Pass { eighths, millis, is_heard }),
        14 => (1_usize..=8, nanos(0..=1)).prop_map(|(slots, after)| Event::Serve { slots, after }),
        2 => Just(Event::ServeAll),
        10 => select(closed).prop_map(Event::PortClosed),
        1 => subsequence(&DENIABLE, 0..=2).prop_map(Event::Deny),
        2 => select(addresses).prop_map(Event::Count),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// More than two million events in total.
    #[test]
    fn guard_and_registry_agree_with_a_plain_map(
        life in life(),
        events in prop::collection::vec(event(), 0..=1_200),
    ) {
        let mut daemon = Daemon::new(life);
        for event in events {
            daemon.live(event);
        }
        daemon.end();
    }
}
