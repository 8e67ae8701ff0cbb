//! Strangers send heartbeats from forged addresses.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{Client, count, field};
use crate::support::needs::Need;
use crate::support::network::NEEDS;
use crate::support::scene::{PORT, SERVER, SERVER_V6, Scene, address, at, number};
use crate::support::stranger::Sniffer;
use crate::support::web::get;

const MILLION: u32 = 1_000_000;

/// The time to listen for pings. Every client that is not evicted is pinged at least once in it.
const A_WHILE: Duration = Duration::from_millis(2_500);

fn source(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// A port such as NATs assign to clients.
fn any_port(n: u32) -> u16 {
    u16::try_from(10_000 + n % 50_000).unwrap()
}

/// The pings to other addresses than the client's host, where the witness is.
fn abroad(pings: HashMap<SocketAddr, u32>) -> HashMap<SocketAddr, u32> {
    let is_witness = |ip: IpAddr| ip == IpAddr::from(Ipv4Addr::new(192, 0, 2, 9));
    pings.into_iter().filter(|(client, _)| !is_witness(client.ip())).collect()
}

#[test]
fn one_spoofed_datagram_causes_pings_for_one_lifetime() {
    require!(NEEDS);
    let scene = Scene::new(&[("CLIENT_EXPIRATION_SECONDS", "4")]);
    let victims = ["203.0.113.7:5000", "[2001:db8:7::7]:5000"].map(|text| text.parse().unwrap());
    for (victim, server) in victims.into_iter().zip([SERVER, SERVER_V6]) {
        scene.stranger.heartbeat(victim, address(server));
    }
    for victim in victims {
        scene.daemon.wait_for_line(&format!("removed client={victim} reason=\"expired\""));
    }
    let pings = scene.wire.pings(Duration::ZERO);
    for victim in victims {
        assert!((3..=4).contains(&pings[&victim]), "{pings:?}");
    }
    assert_eq!(abroad(scene.wire.pings(A_WHILE)), HashMap::new());
    scene.end();
}

#[test]
fn all_ports_of_an_address_get_no_more_than_its_cap() {
    require!(NEEDS);
    let scene = Scene::flooded(&[]);
    let victim = Ipv4Addr::new(203, 0, 113, 7);
    for n in 0..MILLION {
        scene.stranger.heartbeat(source(victim, any_port(n)), address(SERVER));
    }
    // The addresses of a /64 count as one.
    for n in 0..MILLION / 10 {
        let victim = Ipv6Addr::new(0x2001, 0xdb8, 7, 7, 0, 0, 0, u16::try_from(n % 2_000).unwrap());
        scene.stranger.heartbeat(source(victim, any_port(n)), address(SERVER_V6));
    }
    let _ = scene.wire.pings(Duration::ZERO);
    let pings = abroad(scene.wire.pings(A_WHILE));
    for is_ipv6 in [false, true] {
        let clients = pings.keys().filter(|client| client.is_ipv6() == is_ipv6).count();
        assert_eq!(clients, 1_024);
    }
    let seconds = 1 + u32::try_from(A_WHILE.as_secs()).unwrap();
    assert!(pings.values().all(|pings| *pings <= seconds + 1));
    let lines = scene.end();
    assert!(count(&lines, "reason=\"max_clients_per_address\"") > 0);
    assert_eq!(number(&lines, "clients"), 2 * 1_024 + 1);
}

#[test]
fn all_addresses_of_a_prefix_get_no_more_than_its_cap() {
    require!(NEEDS);
    let scene = Scene::flooded(&[]);
    for n in 0..20_000_u32 {
        let [.., octet] = n.to_be_bytes();
        let victim = Ipv4Addr::new(203, 0, 113, octet);
        scene.stranger.heartbeat(source(victim, any_port(n)), address(SERVER));
        let victim = Ipv6Addr::new(0x2001, 0xdb8, 7, octet.into(), 0, 0, 0, 7);
        scene.stranger.heartbeat(source(victim, any_port(n)), address(SERVER_V6));
    }
    let _ = scene.wire.pings(Duration::ZERO);
    let pings = abroad(scene.wire.pings(A_WHILE));
    for is_ipv6 in [false, true] {
        let clients = pings.keys().filter(|client| client.is_ipv6() == is_ipv6).count();
        assert_eq!(clients, 4_096);
    }
    let lines = scene.end();
    assert!(count(&lines, "reason=\"max_clients_per_prefix\"") > 0);
    assert_eq!(number(&lines, "clients"), 2 * 4_096 + 1);
}

#[test]
fn hosts_behind_a_translator_count_by_their_ipv4_addresses() {
    require!(NEEDS);
    let variables = [
        ("HTTP_ADDR", "127.0.0.1:7561"),
        ("NAT64_PREFIXES", "2001:db8:64::/48"),
        ("REFUSE_NETS", "198.51.100.0/24"),
    ];
    let scene = Scene::new(&variables);
    let (well_known, local) = (0x0064_ff9b_u128 << 96, 0x0064_ff9b_0001_0007_u128 << 64);
    let behind = |prefix: u128, ip: u32| Ipv6Addr::from_bits(prefix | u128::from(ip));
    // More hosts than an address may have clients. Each host counts separately.
    for prefix in [well_known, local] {
        for n in 0..2_000 {
            let host = behind(prefix, 0xc612_0000 + n);
            scene.stranger.heartbeat(source(host, 5_000), address(SERVER_V6));
        }
    }
    let _ = scene.wire.pings(Duration::ZERO);
    let hosts = abroad(scene.wire.pings(A_WHILE));
    assert_eq!(hosts.len(), 4_000, "every host is pinged");
    let ask = |path| scene.server.within(|| get(address("127.0.0.1"), path)).json();
    let prefixes = ask("/prefixes");
    let first = &prefixes["prefixes"][0];
    assert_eq!((&first["prefix"], &first["clients"]), (&"198.18.0.0/24".into(), &512.into()));
    let clients = ask("/clients?limit=1000&network=198.18.0.0/24");
    assert_eq!(clients["clients"].as_array().unwrap().len(), 512);

    // One host has one count over all of its paths.
    let host = Ipv4Addr::new(203, 0, 113, 7);
    let own: Ipv6Addr = "2001:db8:64:cb00:71:700::".parse().unwrap();
    for n in 0..1_000 {
        for way in [behind(well_known, host.to_bits()), behind(local, host.to_bits()), own] {
            scene.stranger.heartbeat(source(way, any_port(n)), address(SERVER_V6));
        }
        scene.stranger.heartbeat(source(host, any_port(n)), address(SERVER));
    }
    let barred = ["64:ff9b::224.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1:7::198.51.100.7"];
    for ip in barred {
        scene.stranger.heartbeat(at(ip, 5_000), address(SERVER_V6));
    }
    let _ = scene.wire.pings(Duration::ZERO);
    let pings = abroad(scene.wire.pings(A_WHILE));
    let others: HashSet<_> = pings.keys().filter(|client| !hosts.contains_key(client)).collect();
    assert_eq!(others.len(), 1_024);
    assert!(barred.iter().all(|ip| !pings.contains_key(&at(ip, 5_000))));
    let lines = scene.end();
    for reason in ["max_clients_per_address", "multicast", "translated_loopback", "refuse_nets"] {
        assert!(count(&lines, &format!("reason=\"{reason}\"")) > 0, "{reason}");
    }
}

#[test]
fn a_million_random_sources_lock_no_client_out_for_long() {
    require!(NEEDS);
    // A client that does not repeat its heartbeat can be evicted after 6 s.
    let scene = Scene::flooded(&[("CLIENT_EXPIRATION_SECONDS", "16"), ("MAX_CLIENTS", "20000")]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut flood = |datagrams| {
        for _ in 0..datagrams {
            let victim = source(Ipv4Addr::from(random.u32(..)), random.u16(..));
            scene.stranger.heartbeat(victim, address(SERVER));
        }
    };
    flood(MILLION / 2);
    scene.daemon.wait_for_line("reason=\"max_clients\"");
    let memory = scene.daemon.resident_kilobytes();
    flood(MILLION / 2);
    let end = Instant::now();
    // A record of each refused source would take at least 24 bytes, or 20 MB altogether.
    let growth = scene.daemon.resident_kilobytes().saturating_sub(memory);
    assert!(growth < 4_000, "{growth} kB more");

    let phone = scene.client.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let phone = Client::new(phone, address(SERVER));
    phone.heartbeat(&[]);
    // By the protocol, a client repeats its heartbeat after a third of the expiration, here 5.3 s. Room
    // appears after 6 s, plus one second in which every shard is swept.
    std::thread::sleep(Duration::from_secs(7).saturating_sub(end.elapsed()));
    phone.heartbeat(&[]);
    phone.pings(2);
    let lines = scene.end();
    assert!(number(&lines, "clients") <= 20_000);
    assert!(count(&lines, "reason=\"made_way\"") > 0);
}

#[test]
fn a_client_that_floods_is_still_pinged_once_a_second() {
    require!(NEEDS);
    let scene = Scene::flooded(&[]);
    let client = "203.0.113.7:5000".parse().unwrap();
    let start = Instant::now();
    for _ in 0..4 * MILLION / 10 {
        scene.stranger.heartbeat(client, address(SERVER));
    }
    let seconds = start.elapsed().as_secs();
    let pings = scene.wire.pings(Duration::ZERO)[&client];
    assert!(u64::from(pings) <= seconds + 2, "{pings} pings in {seconds} s");
    let next = scene.wire.pings(Duration::from_secs(4))[&client];
    assert!((3..=5).contains(&next), "{next} pings in 4 s");
    let lines = scene.end();
    assert_eq!(count(&lines, "registered"), 2);
    assert!(number(&lines, "heartbeats") > 100_000);
}

#[test]
fn sources_that_must_not_be_pinged_get_no_pings() {
    require!(NEEDS);
    let variables = [("PORT", "9000"), ("REFUSE_NETS", "198.51.100.0/24, 2001:db8:99::/48")];
    let scene = Scene::on_port(9_000, &variables);
    // The kernel itself may drop datagrams from most of these addresses.
    let addresses = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "198.51.100.7",
        "192.0.2.1",
        "::",
        "::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:203.0.113.7",
        "2001:db8:99::7",
    ]
    .map(|ip| at(ip, 5_000));
    let ports = [0, 1, 7, 19, 53, 123, 389, 1_023, PORT, 9_000];
    let hosts = ["203.0.113.7", "2001:db8:7::7", SERVER, SERVER_V6].into_iter();
    let hosts = hosts.flat_map(|ip| ports.map(|port| at(ip, port)));
    let allowed = ["203.0.113.8:1024", "[2001:db8:7::8]:65535"].map(|text| text.parse().unwrap());
    let loopback = scene.server.within(Sniffer::new);
    for source in addresses.into_iter().chain(hosts).chain(allowed) {
        let server = if source.is_ipv6() { SERVER_V6 } else { SERVER };
        scene.stranger.heartbeat(source, at(server, 9_000));
    }
    for client in allowed {
        scene.daemon.wait_for_line(&format!("registered client={client}"));
    }
    let pings = abroad(scene.wire.pings(A_WHILE));
    let pinged: HashSet<_> = pings.into_keys().collect();
    assert_eq!(pinged, HashSet::from(allowed));
    assert_eq!(loopback.pings(Duration::ZERO), HashMap::new(), "the daemon pings itself");
    let lines = scene.end();
    for reason in
        ["source_port_zero", "system_port", "daemon_port", "reserved", "link_local", "refuse_nets"]
    {
        assert!(count(&lines, &format!("reason=\"{reason}\"")) > 0, "{reason}: {lines:#?}");
    }
}

#[test]
fn our_own_address_with_another_port_needs_a_firewall_rule() {
    require!(NEEDS, [Need::Program("nft")]);
    let scene = Scene::new(&[]);
    let loopback = scene.server.within(Sniffer::new);
    let ourselves = at(SERVER_V6, 5_000);
    scene.stranger.heartbeat(ourselves, address(SERVER_V6));
    scene.daemon.wait_for_line(&format!("registered client={ourselves}"));
    let pings = loopback.pings(A_WHILE).remove(&ourselves);
    assert!((1..=3).contains(&pings.unwrap_or(0)), "{pings:?}");

    scene.server.run(
        "nft add table inet filter
         nft add chain inet filter input '{ type filter hook input priority 0; }'
         nft add rule inet filter input iif != lo fib saddr type local drop",
    );
    let ourselves = at(SERVER_V6, 5_001);
    scene.stranger.heartbeat(ourselves, address(SERVER_V6));
    assert!(!loopback.pings(A_WHILE).contains_key(&ourselves));
    let neighbour = scene.server.within(|| UdpSocket::bind((SERVER_V6, 0)).unwrap());
    let neighbour = Client::new(neighbour, address(SERVER_V6));
    neighbour.heartbeat(&[]);
    neighbour.ping();
    scene.end();
}

#[test]
fn a_broadcast_address_never_registers() {
    require!(NEEDS);
    let scene = Scene::new(&[]);
    scene.server.run(
        "ip address add 203.0.113.1/26 dev wire
         ip address add 198.51.100.1/24 broadcast 198.51.100.7 dev wire",
    );
    // The daemon reads the interfaces once a second.
    thread::sleep(Duration::from_secs(3));
    for source in ["192.0.2.255:5000", "203.0.113.63:5000", "198.51.100.7:5000"] {
        scene.stranger.heartbeat(source.parse().unwrap(), address(SERVER));
    }
    scene.daemon.wait_for_line("reason=\"broadcast\"");
    assert_eq!(abroad(scene.wire.pings(A_WHILE)), HashMap::new());
    let lines = scene.end();
    assert_eq!((number(&lines, "clients"), number(&lines, "failed_pings")), (1, 0), "{lines:#?}");
}

#[test]
fn a_million_refused_datagrams_log_one_line_a_second() {
    require!(NEEDS);
    let scene = Scene::flooded(&[]);
    let start = Instant::now();
    for n in 0..MILLION {
        let reason =
            if n % 2 == 0 { source([203, 0, 113, 7], 53) } else { source([240, 0, 0, 1], 5_000) };
        scene.stranger.heartbeat(reason, address(SERVER));
    }
    let seconds = start.elapsed().as_secs();
    let lines = scene.end();
    for reason in ["system_port", "reserved"] {
        let lines = count(&lines, &format!("reason=\"{reason}\"")) as u64;
        assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} s");
    }
    let refused = number(&lines, "refused");
    assert!(refused > 100_000, "{refused}");
    let told: u64 = lines
        .iter()
        .filter(|line| line.contains("refused a datagram"))
        .map(|line| 1 + field(line, "suppressed").parse::<u64>().unwrap())
        .sum();
    assert!(told <= refused);
}
