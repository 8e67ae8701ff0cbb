//! Counts the pings that one spoofed datagram sends to its victim.

use std::io::{self, Write};
use std::time::Duration;

use crate::support::network::NEEDS;
use crate::support::scene::{CLIENT, SERVER, Scene, at};

/// More than the default expiration.
const TIME: Duration = Duration::from_secs(124);

#[test]
#[ignore = "takes two minutes and prints the figures of docs/security.md"]
fn amplification() {
    require!(NEEDS);
    let scene = Scene::new(&[]);
    let pressed = scene.server.serve(&[("PORT", "8001"), ("MAX_CLIENTS", "5")]);
    let observer = scene.server.serve(&[("PORT", "8002"), ("GUARD_MODE", "observe")]);
    let [server, pressed, observer] =
        [7561, pressed.address.port(), observer.address.port()].map(|port| at(SERVER, port));
    // The fillers repeat their heartbeat, so they are not evicted.
    for filler in (0..4).chain(0..4) {
        scene.stranger.heartbeat(at("198.51.100.1", 5_000 + filler), pressed);
    }
    let victims = [
        ("enforce", "silent", at("203.0.113.1", 5_000), server),
        ("enforce", "its host says that the port is closed", at(CLIENT, 5_000), server),
        ("enforce", "silent, the daemon is three quarters full", at("203.0.113.2", 5_000), pressed),
        ("enforce", "a system port", at("203.0.113.3", 53), server),
        ("enforce", "another daemon", at("203.0.113.4", 7_561), server),
        ("observe", "silent", at("203.0.113.5", 5_000), observer),
        ("observe", "its host says that the port is closed", at(CLIENT, 5_001), observer),
        ("observe", "another daemon", at("203.0.113.6", 7_561), observer),
    ];
    for (_, _, victim, server) in victims {
        scene.stranger.heartbeat(victim, server);
    }
    let pings = scene.wire.pings(TIME);
    for (mode, kind, victim, _) in victims {
        let pings = pings.get(&victim).copied().unwrap_or(0);
        // The test harness would capture the output of println!.
        writeln!(io::stderr(), "{mode} | {kind} | {pings}").unwrap();
    }
    scene.end();
}
