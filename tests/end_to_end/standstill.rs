//! The whole process stalls, as under SIGSTOP, a debugger or a frozen control group.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::daemon::{Client, Daemon, count};
use crate::support::scene::undisturbed;
use crate::support::web::{get, metric};
use crate::support::witness::Witness;

/// The counter of stale heartbeats.
const STALE: &str = "wakeupd_refused_datagrams_total{reason=\"stale\"}";

/// The number of clients with a waiting heartbeat, besides the witness.
const CLIENTS: usize = 100;

/// Stalls a daemon for longer than the expiration. Checks that clients with a waiting heartbeat are still
/// pinged, and that a silent client is not. During the stall, `meanwhile` receives the waiting clients. It
/// returns the length of the stall.
pub fn stand_still(daemon: &Daemon, meanwhile: impl FnOnce(&[Client]) -> Duration) {
    let silent = Client::of(daemon);
    silent.heartbeat(&[]);
    let clients: Vec<_> = (0..CLIENTS).map(|_| Client::of(daemon)).collect();
    for client in &clients {
        client.heartbeat(&[]);
    }
    daemon.wait_for_lines(" registered ", 1 + CLIENTS);
    let witness = Witness::of(daemon);
    silent.ping();

    daemon.freeze();
    silent.forget_pings();
    let time = meanwhile(&clients);
    daemon.signal(Signal::SIGCONT);

    daemon.wait_for_line(&format!("removed client={} reason=\"expired\"", silent.address()));
    assert!(!silent.has_ping(), "the silent client has expired");
    for client in &clients {
        client.ping();
    }
    witness.missed_at_most(time, daemon);
}

/// Sends a heartbeat of each client, after discarding its pings.
pub fn heartbeats(clients: &[Client]) {
    for client in clients {
        client.forget_pings();
        client.heartbeat(&[]);
    }
}

/// Stops a daemon that stalled, and checks that it logged the stall and no error.
pub fn stop(daemon: Daemon) {
    let lines = daemon.stop();
    assert_eq!(count(&lines, " registered "), 2 + CLIENTS, "no client had to register again");
    assert!(count(&lines, "the daemon skipped slots") >= 1, "{lines:#?}");
    assert_eq!(["stuck", " ERROR "].map(|text| count(&lines, text)), [0, 0], "{lines:#?}");
}

/// Stalls a daemon with these settings for this time.
fn wait_through(time: Duration, settings: &[(&str, &str)]) {
    let _undisturbed = undisturbed();
    let daemon = Daemon::start(settings);
    stand_still(&daemon, |clients| {
        thread::sleep(time / 2);
        heartbeats(clients);
        thread::sleep(time / 2);
        time
    });
    stop(daemon);
}

#[test]
fn a_queued_heartbeat_keeps_its_client_through_four_seconds() {
    // With one worker per shard and a single thread, many workers wake up before the listener sees that a
    // heartbeat has arrived.
    let settings = [
        ("CLIENT_EXPIRATION_SECONDS", "3"),
        ("WORKER_POOL_SIZE", "256"),
        ("TOKIO_WORKER_THREADS", "1"),
    ];
    wait_through(Duration::from_secs(4), &settings);
}

#[test]
fn a_heartbeat_that_waited_longer_than_the_expiration_is_ignored() {
    const EXPIRATION: Duration = Duration::from_secs(2);
    let _alone = undisturbed();
    for host in ["127.0.0.1", "0.0.0.0"] {
        for mode in ["enforce", "observe"] {
            let settings = [
                ("HOST", host),
                ("GUARD_MODE", mode),
                ("CLIENT_EXPIRATION_SECONDS", "2"),
                ("HTTP_ADDR", "127.0.0.1:0"),
            ];
            stand_still_with_stale_heartbeats(&Daemon::start(&settings), EXPIRATION);
        }
    }
}

/// Stalls a daemon while the heartbeats of a client and a stranger become stale. A newer one waits behind
/// them.
fn stand_still_with_stale_heartbeats(daemon: &Daemon, expiration: Duration) {
    let server = ([127, 0, 0, 1], daemon.address.port()).into();
    let new_client = || Client::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
    let [known, stranger, recent] = [(); 3].map(|()| new_client());
    known.heartbeat(&[]);
    known.ping();
    let refused = || metric(&get(daemon.http(), "/metrics").body, STALE);
    assert!(refused().abs() < 0.5);

    daemon.freeze();
    for client in [&known, &stranger] {
        client.heartbeat(&[]);
    }
    thread::sleep(expiration + Duration::from_millis(500));
    recent.heartbeat(&[]);
    known.forget_pings();
    daemon.signal(Signal::SIGCONT);

    recent.ping();
    let line = daemon.wait_for_line("reason=\"stale\"");
    assert!(line.contains("refused a datagram"), "{line}");
    daemon.wait_for_line(&format!("removed client={} reason=\"expired\"", known.address()));
    assert!((refused() - 2.0).abs() < 0.5, "{:#?}", daemon.lines());
    assert_eq!(count(&daemon.lines(), &format!("registered client={}", stranger.address())), 0);
    assert!(!known.has_ping() && !stranger.has_ping());
    // A new heartbeat counts as usual.
    for client in [&known, &stranger] {
        client.heartbeat(&[]);
        client.ping();
    }
}

#[test]
#[ignore = "takes three minutes"]
fn a_queued_heartbeat_keeps_its_client_through_three_minutes() {
    wait_through(Duration::from_secs(180), &[]);
}
