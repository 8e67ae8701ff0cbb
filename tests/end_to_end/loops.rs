//! Two hosts that answer each other, and the deny file that ends the loop.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deny_file::DenyFile;
use crate::support::daemon::count;
use crate::support::network::NEEDS;
use crate::support::scene::{CLIENT, PORT, SERVER, Scene, at};
use crate::support::stranger::Sniffer;

/// The time to listen for pings. One ping a second is allowed each way.
const SECONDS: u32 = 5;

/// The number of pings that reach each of the two ends in [`SECONDS`].
fn pings(wires: [&Sniffer; 2], ends: [SocketAddr; 2]) -> [u32; 2] {
    for wire in wires {
        let _ = wire.pings(Duration::ZERO);
    }
    thread::sleep(Duration::from_secs(SECONDS.into()));
    let [one, other] = wires.map(|wire| wire.pings(Duration::ZERO));
    let of = |pings: HashMap<_, u32>, end| pings.get(&end).copied().unwrap_or(0);
    [of(one, ends[0]), of(other, ends[1])]
}

#[test]
fn two_daemons_on_the_same_port_do_not_ping_each_other() {
    require!(NEEDS);
    let scene = Scene::new(&[]);
    let other = scene.client.serve(&[]);
    let at_server = scene.server.within(Sniffer::new);
    let [here, there] = [at(SERVER, PORT), at(CLIENT, PORT)];
    scene.stranger.heartbeat(there, here);
    scene.stranger.heartbeat(here, there);
    for daemon in [&scene.daemon, &other] {
        daemon.wait_for_line("reason=\"daemon_port\"");
    }
    assert_eq!(pings([&at_server, &scene.wire], [here, there]), [0, 0]);
    scene.end();
}

#[test]
fn two_daemons_on_different_ports_ping_each_other_until_one_is_denied() {
    require!(NEEDS);
    let file = DenyFile::new("loops-1", "# nobody yet\n");
    let mut scene = Scene::on_port(9_000, &[("PORT", "9000"), ("DENY_FILE", file.path())]);
    let _other = scene.client.serve(&[("PORT", "8000")]);
    let at_server = scene.server.within(Sniffer::new);
    let ends @ [here, there] = [at(SERVER, 9_000), at(CLIENT, 8_000)];
    scene.stranger.heartbeat(there, here);
    let most = SECONDS + 1;
    for pings in pings([&at_server, &scene.wire], ends) {
        assert!((most - 2..=most).contains(&pings), "{pings} pings in {SECONDS} s");
    }
    file.write(&format!("{CLIENT}/32 # its port 8000 is a daemon\n"));
    // The witness has the same address.
    scene.dismiss_witness();
    scene.daemon.signal(Signal::SIGHUP);
    scene.daemon.wait_for_line(&format!("removed client={there} reason=\"denied\""));
    assert_eq!(pings([&at_server, &scene.wire], ends)[1], 0);
    scene.daemon.wait_for_line("reason=\"deny_file\"");
}

#[test]
fn an_echo_server_is_pinged_once_a_second_until_it_is_denied() {
    require!(NEEDS);
    let file = DenyFile::new("loops-2", "");
    let scene = Scene::new(&[("DENY_FILE", file.path()), ("CLIENT_EXPIRATION_SECONDS", "3")]);
    scene.client.run("ip address add 192.0.2.77/24 dev wire");
    let echo = scene.client.within(|| UdpSocket::bind("192.0.2.77:5000").unwrap());
    let at_server = scene.server.within(Sniffer::new);
    let there = echo.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, source)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], source);
        }
    });
    scene.stranger.heartbeat(there, at(SERVER, PORT));
    let (wires, ends) = ([&at_server, &scene.wire], [at(SERVER, PORT), there]);
    let most = SECONDS + 1;
    for pings in pings(wires, ends) {
        assert!((most - 2..=most).contains(&pings), "{pings} pings in {SECONDS} s");
    }
    file.write("192.0.2.77 # an echo server\n203.0.113.0/33\n");
    scene.daemon.signal(Signal::SIGHUP);
    let error = scene.daemon.wait_for_line("WARN The daemon cannot reload DENY_FILE");
    assert!(error.contains("line 2: ") && error.contains(file.path()), "{error}");
    assert!(pings(wires, ends)[1] > 0, "a malformed file denies no address");

    file.write("192.0.2.77 # an echo server\n203.0.113.0/24\n");
    scene.daemon.signal(Signal::SIGHUP);
    scene.daemon.wait_for_line(&format!("removed client={there} reason=\"denied\""));
    scene.daemon.wait_for_line("loaded DENY_FILE");
    assert_eq!(pings(wires, ends), [0, 0]);
    scene.stranger.heartbeat(there, at(SERVER, PORT));
    scene.daemon.wait_for_line("reason=\"deny_file\"");
    let lines = scene.end();
    assert_eq!(count(&lines, &format!("registered client={there}")), 1);
}
