//! Heartbeats and pings on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::daemon::{Client, Daemon, field, summary};
use crate::support::needs::Need;

#[test]
fn any_payload_registers_and_clients_are_distinguished_by_port() {
    let daemon = Daemon::start(&[]);
    let payloads: [&[u8]; 4] = [&[0, 0], b"ua", &[], &[7; 1_400]];
    let clients = payloads.map(|payload| {
        let client = Client::of(&daemon);
        client.heartbeat(payload);
        client
    });
    for client in &clients {
        client.ping();
    }
    daemon.wait_for_lines("registered", clients.len());
}

#[test]
fn pings_are_a_second_apart() {
    let daemon = Daemon::start(&[]);
    let client = Client::of(&daemon);
    client.heartbeat(&[0, 0]);
    client.ping();
    let first = Instant::now();
    client.pings(10);
    // Only a lower bound: a test on a shared machine cannot judge lateness.
    assert!(first.elapsed() > Duration::from_secs(9));
}

#[test]
fn the_daemon_never_replies_to_a_datagram() {
    let daemon = Daemon::start(&[]);
    let client = Client::of(&daemon);
    for _ in 0..100 {
        client.heartbeat(b"ua");
    }
    client.pings(3);
    let lines = daemon.stop();
    let summary = summary(&lines);
    assert_eq!(field(summary, "heartbeats"), "100");
    assert!(field(summary, "pings").parse::<u32>().unwrap() < 10, "{summary}");
}

#[test]
fn a_silent_client_expires_and_may_register_again() {
    let daemon = Daemon::start(&[("CLIENT_EXPIRATION_SECONDS", "2")]);
    let client = Client::of(&daemon);
    for life in 1..=2 {
        client.heartbeat(&[0, 0]);
        client.ping();
        daemon.wait_for_lines("expired", life);
        assert!(client.is_left_alone_for(Duration::from_secs(3)));
    }
    daemon.wait_for_lines("registered", 2);
}

#[test]
fn heartbeats_keep_a_client_alive() {
    let daemon = Daemon::start(&[("CLIENT_EXPIRATION_SECONDS", "3")]);
    let client = Client::of(&daemon);
    for _ in 0..8 {
        client.heartbeat(&[0, 0]);
        client.ping();
    }
    assert!(!daemon.lines().iter().any(|line| line.contains("expired")));
}

#[test]
fn one_worker_and_one_worker_per_shard_both_serve() {
    for workers in ["1", "256"] {
        let daemon = Daemon::start(&[("WORKER_POOL_SIZE", workers)]);
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        client.pings(3);
    }
}

#[test]
fn ipv6() {
    require!([Need::Ipv6]);
    let daemon = Daemon::start(&[("HOST", "::1")]);
    let client = Client::of(&daemon);
    client.heartbeat(&[0, 0]);
    client.ping();
    client.ping();
}

#[test]
fn one_port_serves_both_families() {
    require!([Need::Ipv6]);
    let daemon = Daemon::start(&[("HOST", "::")]);
    let port = daemon.address.port();
    let clients = ["127.0.0.1", "::1"].map(|ip| {
        let ip = ip.parse().unwrap();
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
        Client::new(socket, SocketAddr::new(ip, port))
    });
    for client in &clients {
        client.heartbeat(&[0, 0]);
        client.ping();
        // The daemon identifies the client by its own address, not by an IPv4-mapped one.
        let address = client.address();
        daemon.wait_for_line(&format!("client={address}"));
    }
}

#[test]
fn a_host_name_is_bound_at_its_ipv4_address() {
    let daemon = Daemon::start(&[("HOST", "localhost")]);
    assert_eq!(daemon.address.ip(), Ipv4Addr::LOCALHOST);
    let client = Client::of(&daemon);
    client.heartbeat(&[0, 0]);
    client.ping();
}
