//! The whole process stands still, as under SIGSTOP, a debugger or a frozen control group.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::{Client, Daemon, count};
use crate::scene::alone;
use crate::witness::Witness;

/// Stops a daemon with these settings for a time that is longer than a client lives.
fn stand_still(time: Duration, settings: &[(&str, &str)]) {
    let _alone = alone();
    let daemon = Daemon::start(settings);
    let silent = Client::of(&daemon);
    silent.heartbeat(&[]);
    let clients: Vec<_> = (0..100).map(|_| Client::of(&daemon)).collect();
    for client in &clients {
        client.heartbeat(&[]);
    }
    daemon.wait_for_lines("registered", 1 + clients.len());
    let witness = Witness::of(&daemon);
    silent.ping();

    daemon.freeze();
    silent.forget_pings();
    thread::sleep(time / 2);
    for client in &clients {
        client.forget_pings();
        client.heartbeat(&[]);
    }
    thread::sleep(time / 2);
    daemon.signal(Signal::SIGCONT);

    daemon.wait_for_line(&format!("removed client={} reason=\"expired\"", silent.address()));
    assert!(!silent.has_ping(), "its time was over");
    for client in &clients {
        client.ping();
    }
    witness.missed_at_most(time, &daemon);
    let lines = daemon.stop();
    assert_eq!(count(&lines, " registered "), 2 + clients.len(), "nobody had to come back");
    assert!(count(&lines, "skipped slots") >= 1, "{lines:#?}");
    assert_eq!(["stuck", " ERROR "].map(|text| count(&lines, text)), [0, 0], "{lines:#?}");
}

#[test]
fn whose_heartbeat_waits_through_four_seconds_is_pinged_on() {
    // With a worker for each shard, and one thread for all, many workers wake up before the listener learns
    // that something has arrived.
    let settings = [
        ("CLIENT_EXPIRATION_SECONDS", "3"),
        ("WORKER_POOL_SIZE", "256"),
        ("TOKIO_WORKER_THREADS", "1"),
    ];
    stand_still(Duration::from_secs(4), &settings);
}

#[test]
#[ignore = "takes three minutes"]
fn whose_heartbeat_waits_through_three_minutes_is_pinged_on() {
    stand_still(Duration::from_secs(180), &[]);
}
