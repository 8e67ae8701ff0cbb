//! Compares the engine with a plain map that recounts its clients for each question.

mod daemon;
mod model;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Mode, Refused};

use daemon::Daemon;

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
