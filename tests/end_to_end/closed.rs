//! ICMP errors about clients, genuine and forged.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{Client, count};
use crate::support::network::NEEDS;
use crate::support::scene::{CLIENT, CLIENT_V6, SERVER, SERVER_V6, Scene, address, at, number};

/// More clients than the ICMP errors that the daemon handles in a second by default.
const CROWD: usize = 600;

impl Scene {
    fn phone(&self, ip: &str, port: u16, server: &str) -> Client {
        let socket = self.client.within(|| UdpSocket::bind(at(ip, port)).unwrap());
        Client::new(socket, address(server))
    }
}

#[test]
fn a_closed_port_is_muted_until_its_next_heartbeat() {
    require!(NEEDS);
    let scene = Scene::new(&[]);
    let ends = [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)];
    let closed = ends.map(|(client, server)| {
        let phone = scene.phone(client, 0, server);
        phone.heartbeat(&[]);
        phone.ping();
        phone.address()
    });
    let _ = scene.wire.pings(Duration::ZERO);
    for client in closed {
        scene.daemon.wait_for_line(&format!("muted a client with a closed port client={client}"));
    }
    let pings = scene.wire.pings(Duration::ZERO);
    for client in closed {
        assert!((3..=4).contains(&pings[&client]), "{pings:?}");
    }
    let pings = scene.wire.pings(Duration::from_millis(2_500));
    assert!(closed.iter().all(|client| !pings.contains_key(client)), "{pings:?}");
    for (client, (ip, server)) in closed.into_iter().zip(ends) {
        let phone = scene.phone(ip, client.port(), server);
        phone.heartbeat(&[]);
        phone.pings(5);
    }
    let lines = scene.end();
    assert_eq!(count(&lines, "registered"), 3, "no client had to register again");
}

#[test]
fn forged_errors_about_unknown_addresses_are_ignored() {
    require!(NEEDS);
    let scene = Scene::new(&[]);
    for _ in 0..4 {
        for (stranger, server) in [("203.0.113.7", SERVER), ("2001:db8:7::7", SERVER_V6)] {
            scene.stranger.port_unreachable(at(stranger, 5_000), address(server));
        }
        thread::sleep(Duration::from_secs(1));
    }
    let lines = scene.end();
    assert_eq!(count(&lines, "muted"), 0);
}

#[test]
fn a_firewall_that_prohibits_one_client_costs_no_other_client_a_ping() {
    require!(NEEDS);
    let scene = Scene::new(&[("LOG_LEVEL", "DEBUG")]);
    let ends = [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)];
    let phones = ends.map(|(client, server)| {
        let phone = scene.phone(client, 0, server);
        phone.heartbeat(&[]);
        phone.ping();
        phone
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        for phone in &phones {
            for (stranger, server) in [("203.0.113.7", SERVER), ("2001:db8:7::7", SERVER_V6)] {
                scene.stranger.administratively_prohibited(at(stranger, 5_000), address(server));
            }
            let server = if phone.address().is_ipv6() { SERVER_V6 } else { SERVER };
            scene.stranger.administratively_prohibited(phone.address(), address(server));
        }
        thread::sleep(Duration::from_millis(30));
    }
    for phone in &phones {
        phone.forget_pings();
        phone.pings(3);
    }
    let lines = scene.end();
    assert_eq!((count(&lines, "removed client"), number(&lines, "failed_pings")), (0, 0));
    assert_eq!(number(&lines, "clients"), 3);
}

#[test]
fn forged_errors_about_the_daemon_itself_cost_no_ping() {
    require!(NEEDS);
    let scene = Scene::flooded(&[("HOST", SERVER)]);
    for port in 10_000..11_000 {
        scene.stranger.heartbeat(at("203.0.113.7", port), address(SERVER));
    }
    // Each worker's socket has one of these as its peer.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        for port in 1..1_024 {
            scene.stranger.port_unreachable(at(SERVER, port), address(SERVER));
        }
    }
    let lines = scene.end();
    assert_eq!((number(&lines, "failed_pings"), number(&lines, "clients")), (0, 1_001));
}

#[test]
fn forged_errors_about_a_client_mute_it_until_its_next_heartbeat() {
    require!(NEEDS);
    let scene = Scene::new(&[]);
    let phone = scene.phone(CLIENT, 0, SERVER);
    phone.heartbeat(&[]);
    phone.ping();
    scene.stranger.port_unreachable(phone.address(), address(SERVER));
    phone.pings(4);
    let muted = format!("muted a client with a closed port client={}", phone.address());
    assert_eq!(count(&scene.daemon.lines(), &muted), 0, "a single error does not mute");
    for _ in 0..5 {
        scene.stranger.port_unreachable(phone.address(), address(SERVER));
        thread::sleep(Duration::from_millis(700));
    }
    scene.daemon.wait_for_line(&muted);
    phone.forget_pings();
    phone.heartbeat(&[]);
    phone.pings(5);
    scene.end();
}

#[test]
fn a_flood_of_forged_errors_costs_no_ping() {
    require!(NEEDS);
    let scene = Scene::flooded(&[]);
    let phone = scene.phone(CLIENT, 0, SERVER);
    phone.heartbeat(&[]);
    phone.ping();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0_u32;
            while !is_over.load(Relaxed) {
                scene.stranger.port_unreachable(at("203.0.113.7", 5_000), address(SERVER));
                scene.stranger.port_unreachable(phone.address(), address(SERVER));
                sent += 2;
            }
            sent
        });
        let start = Instant::now();
        scene.daemon.wait_for_line("more than 500 ICMP errors in a second");
        // The client's heartbeats are more frequent than the errors that the daemon believes.
        while start.elapsed() < Duration::from_secs(6) {
            phone.heartbeat(&[]);
            phone.ping();
        }
        is_over.store(true, Relaxed);
        let sent = flood.join().unwrap();
        assert!(sent > 10_000, "{sent} errors are no flood");
    });
    let lines = scene.end();
    assert_eq!(count(&lines, "more than 500 ICMP errors"), 1, "the warning appears once a minute");
    assert_eq!((count(&lines, "muted a client"), count(&lines, "cannot receive")), (0, 0));
}

#[test]
fn clients_that_stop_together_are_muted_within_the_error_limit() {
    require!(NEEDS);
    let scene = Scene::new(&[("MAX_ICMP_ERRORS_PER_SECOND", "2000")]);
    // By default, Linux sends one such error a second to a host.
    scene.client.run("echo 0 > /proc/sys/net/ipv4/icmp_ratelimit");
    let phones: Vec<_> = (0..CROWD).map(|_| scene.phone(CLIENT, 0, SERVER)).collect();
    for phone in phones {
        phone.heartbeat(&[]);
    }
    scene.daemon.wait_for_lines("muted a client with a closed port", CROWD);
    let lines = scene.end();
    assert_eq!(count(&lines, "ICMP errors in a second"), 0);
}
