//! The process ends unexpectedly, and a successor starts, as under a service manager.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clocks::Clocks;
use crate::notifications::{Halted, Manager};
use crate::restart::{Home, crowd, restored};
use crate::support::daemon::{Client, Daemon, count};
use crate::support::witness::Witness;

/// The number of clients that send a single heartbeat.
const SILENT: usize = 20;

/// Ends a daemon, and checks that its successor restores all clients.
fn outlive(
    home: &Home,
    mut daemon: Daemon,
    end: impl FnOnce(&Daemon),
    is_expected: impl FnOnce(ExitStatus) -> bool,
) {
    let clients = crowd(&daemon, SILENT);
    let witness = Witness::of(&daemon);
    home.wait_for_snapshot(1 + SILENT);
    let began = Instant::now();
    end(&daemon);
    let status = daemon.wait();
    assert!(is_expected(status), "{status}: {:#?}", daemon.lines());
    clients.iter().for_each(Client::forget_pings);
    let successor = home.start(&[]);
    assert_eq!(restored(&successor)[0], (1 + SILENT).to_string());
    let outage = began.elapsed();
    for client in &clients {
        client.pings(2);
    }
    witness.missed_at_most(outage, &successor);
    let lines = successor.stop();
    assert_eq!(count(&lines, " registered "), 0, "no client had to register again: {lines:#?}");
}

#[test]
fn a_worker_that_panics_ends_the_process_and_loses_no_client() {
    require!(Clocks::NEEDS);
    let (home, clocks) = (Home::new(101), Clocks::new());
    let variables = clocks.variables();
    let variables = variables.each_ref().map(|(name, value)| (*name, value.to_str().unwrap()));
    let daemon = home.start(&variables);
    let panic = |daemon: &Daemon| {
        clocks.take_from(daemon.thread("worker-0"));
        daemon.wait_for_line("ERROR the thread worker-0 panicked");
    };
    outlive(&home, daemon, panic, |status| !status.success());
}

/// In a release build, a panic aborts.
#[test]
fn the_successor_of_an_aborted_daemon_restores_all_clients() {
    let home = Home::new(102);
    let abort = |daemon: &Daemon| daemon.signal(Signal::SIGABRT);
    let is_abort = |status: ExitStatus| status.signal() == Some(Signal::SIGABRT as i32);
    outlive(&home, home.start(&[]), abort, is_abort);
}

#[test]
fn the_watchdog_ends_a_hung_daemon_and_no_client_is_lost() {
    let home = Home::new(103);
    let (manager, address) = Manager::abstract_one("hanging");
    let daemon = home.start(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "4000000")]);
    let watch = |daemon: &Daemon| {
        let halted = Halted::new(daemon.thread("worker-0"));
        daemon.wait_for_line("These tasks of the daemon have not responded");
        assert!(manager.misses("WATCHDOG", Duration::from_secs(4)));
        // systemd then aborts the process.
        daemon.signal(Signal::SIGABRT);
        drop(halted);
    };
    outlive(&home, daemon, watch, |status| status.signal() == Some(Signal::SIGABRT as i32));
}

#[test]
fn a_stop_does_not_wait_for_a_hung_worker_and_loses_no_client() {
    let home = Home::new(104);
    let stop = |daemon: &Daemon| {
        let halted = Halted::new(daemon.thread("worker-0"));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("some threads did not end within");
        daemon.wait_for_line("wrote the final snapshot");
        drop(halted);
    };
    outlive(&home, home.start(&[]), stop, |status| status.success());
}
