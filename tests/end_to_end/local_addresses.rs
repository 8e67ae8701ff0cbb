//! A host that owns entire networks, and clients that send to very many of its addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::support::daemon::{Client, PROGRAM, output, wait_until};
use crate::support::network::Host;
use crate::support::network::NEEDS;
use crate::support::scene::{PORT, SERVER, Scene, address, at, number};
use crate::support::web::{get, metric};

/// More addresses than the daemon's table holds.
const MANY: u32 = 17_000;

/// A scene with a server that owns a network of each family.
fn scene(variables: &[(&str, &str)]) -> Scene {
    let scene = Scene::flooded(&[&[("HTTP_ADDR", "127.0.0.1:7561")], variables].concat());
    scene.server.run(
        "ip route add local 198.18.0.0/16 dev lo
         ip route add local 2001:db8:a::/64 dev lo
         ip address add 2001:db8:b::7/128 dev wire nodad",
    );
    scene.client.run(
        "ip route add 198.18.0.0/16 via 192.0.2.1
         ip route add 2001:db8:a::/64 via 2001:db8::1
         ip route add 2001:db8:b::/64 via 2001:db8::1",
    );
    scene
}

/// Calls `act` with each number, no faster than the daemon can keep up.
fn for_many(mut act: impl FnMut(u32)) {
    for n in 0..MANY {
        act(n);
        if n % 500 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends from one socket to many addresses.
fn send_to_many(host: &Host, local: &str, of: impl Fn(u32) -> IpAddr) {
    let socket = host.within(|| UdpSocket::bind((local, 0)).unwrap());
    for_many(|n| {
        socket.send_to(b"", SocketAddr::new(of(n), PORT)).unwrap();
    });
}

fn is_pinged_from(host: &Host, local: &str, server: SocketAddr) {
    let client = Client::new(host.within(|| UdpSocket::bind((local, 0)).unwrap()), server);
    client.heartbeat(b"");
    client.ping();
}

/// The daemon's status, with its findings.
fn findings(server: &Host) -> String {
    output(server.command(PROGRAM).env_clear().arg("status")).1
}

#[test]
fn one_client_cannot_fill_the_table_of_local_addresses() {
    require!(NEEDS);
    let scene = scene(&[]);
    let of_network = |n: u32| Ipv6Addr::from_bits(0x2001_0db8_000a << 80 | u128::from(n));
    send_to_many(&scene.client, "::", |n| of_network(n).into());
    // Only with this setting does the kernel send from an IPv6 address that no interface has.
    scene.server.run("echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind");
    is_pinged_from(&scene.client, "::", SocketAddr::new(of_network(MANY).into(), PORT));
    let loopback = |n: u32| Ipv4Addr::from_bits(0x7f01_0000 + n);
    send_to_many(&scene.server, "127.0.0.1", |n| loopback(n).into());

    is_pinged_from(&scene.client, "::", at("2001:db8:b::7", PORT));
    is_pinged_from(&scene.client, "0.0.0.0", at("198.18.7.7", PORT));
    is_pinged_from(&scene.server, "127.0.0.1", SocketAddr::new(loopback(MANY).into(), PORT));
    let metrics = scene.server.within(|| get(address("127.0.0.1"), "/metrics")).body;
    let addresses = metric(&metrics, "wakeupd_local_addresses");
    assert!((3.0..=7.0).contains(&addresses), "one address per client: {addresses}");
    assert!(metric(&metrics, "wakeupd_clients_without_local_address") < 1.0);
    let lines = scene.end();
    let heartbeats = number(&lines, "heartbeats");
    assert!(heartbeats > u64::from(MANY) + 16_384, "{heartbeats}");
}

#[test]
fn a_client_behind_a_blackhole_changes_no_other_clients_server_address() {
    require!(NEEDS);
    let scene = Scene::new(&[("HTTP_ADDR", "127.0.0.1:7561")]);
    // If the kernel chooses the source, it prefers the first address of a network.
    scene.server.run(
        "ip address add 192.0.2.2/24 dev wire
         ip address add 2001:db8::2/64 dev wire nodad",
    );
    // Enough clients to have some in each shard.
    for n in 0..2_000 {
        let v4 = Ipv4Addr::from_bits(0xc612_0000 + n).into();
        let v6 = Ipv6Addr::from_bits(0x2001_0db8_0bad << 80 | u128::from(n) << 72).into();
        scene.stranger.heartbeat(SocketAddr::new(v4, 5_000), address("192.0.2.2"));
        scene.stranger.heartbeat(SocketAddr::new(v6, 5_000), address("2001:db8::2"));
    }
    let phone = |server: &str| {
        let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let phone = scene.client.within(|| UdpSocket::bind(any).unwrap());
        let phone = Client::new(phone, address(server));
        phone.heartbeat(&[]);
        (phone, address(server))
    };
    let phones = ["192.0.2.2", "2001:db8::2"].map(|server| [(); 8].map(|()| phone(server)));
    let phones: Vec<_> = phones.into_iter().flatten().collect();
    for (phone, server) in &phones {
        assert_eq!(phone.ping_from(), *server);
    }
    scene.server.run(
        "ip route add blackhole 198.18.0.0/15
         ip route add blackhole 2001:db8:bad::/48",
    );
    let failed = || {
        let metrics = scene.server.within(|| get(address("127.0.0.1"), "/metrics")).body;
        metric(&metrics, "wakeupd_failed_pings_total{reason=\"invalid\"}")
    };
    wait_until("pings fail", || failed() > 8_000.0);
    for (phone, server) in &phones {
        phone.forget_pings();
        assert_eq!(phone.ping_from(), *server);
        assert_eq!(phone.ping_from(), *server);
    }
    scene.end();
}

#[test]
#[ignore = "floods for half a minute"]
fn a_full_table_of_local_addresses_is_a_finding_until_clients_expire() {
    require!(NEEDS);
    let scene = scene(&[("CLIENT_EXPIRATION_SECONDS", "8")]);
    let is_told = || findings(&scene.server).contains("table of local addresses is full");
    let fill = || {
        for_many(|n| {
            let source = SocketAddr::new(Ipv4Addr::from_bits(0xc633_0000 + n).into(), 5_000);
            let local = Ipv4Addr::from_bits(0xc612_0000 + n);
            scene.stranger.heartbeat(source, SocketAddr::new(local.into(), PORT));
        });
    };
    wait_until("the table is full", || {
        fill();
        is_told()
    });
    let far = at("198.18.255.7", PORT);
    let client = Client::new(scene.client.within(|| UdpSocket::bind("0.0.0.0:0").unwrap()), far);
    client.heartbeat(b"");
    assert_eq!(client.ping_from(), address(SERVER), "the kernel chooses the source address");

    wait_until("the other clients expire and free the table", || {
        client.heartbeat(b"");
        client.ping_from() == far
    });
    client.forget_pings();
    client.pings(2);
    wait_until("the finding is gone", || !is_told());
    scene.end();
}
