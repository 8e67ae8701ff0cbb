//! The load generator leaves no process and no folder behind.

use std::fs;
use std::process::Child;

use nix::sys::signal::Signal;

use crate::benching::{
    WIRE_NEEDS, assert_complete, bench, churn, report, temporary_folder, wait_until,
};
use crate::support::daemon::send_signal;

#[test]
fn no_daemon_outlives_its_bench() {
    outlive_nothing("--clients 20 --for 60s");
}

#[test]
fn no_daemon_outlives_a_bench_over_a_virtual_wire() {
    require!(WIRE_NEEDS);
    for family in ["", "--ipv6"] {
        let arguments = format!("--wire --clients 100 --for 2s --register-in 1s {family}");
        let (code, report) = report(&arguments);
        assert_eq!(code, Some(0), "{report:#}");
        assert_complete(&report, 100, 2);
        let server = report["server"].as_str().unwrap();
        assert_eq!(server.starts_with('['), !family.is_empty(), "{server}");
    }
    outlive_nothing("--wire --clients 20 --for 60s");
}

#[test]
fn restart_and_churn_work_over_a_virtual_wire() {
    require!(WIRE_NEEDS);
    let (code, report) =
        report("--wire --clients 100 --for 4s --register-in 1s --restart term --ipv6");
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["restart"]["restored"]["clients"], 100, "{report:#}");
    assert_eq!(churn("--wire --for 4s")["route"], "wire");
}

#[test]
fn no_restarted_daemon_or_folder_outlives_its_bench() {
    let temporary = temporary_folder("bench-second-life");
    let mut bench = bench("--clients 20 --for 12s --register-in 1s --restart kill");
    let mut bench = bench.env("TMPDIR", &temporary).spawn().unwrap();
    let first = daemon_of(&bench);
    wait_until("its first life ends", || (!is_running(first)).then_some(()));
    let second = daemon_of(&bench);
    assert_ne!(first, second);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
    send_signal(&bench, Signal::SIGINT);
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    wait_until("its second life ends", || (!is_running(second)).then_some(()));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

/// Kills a bench in the middle, and waits until its daemon is gone.
fn outlive_nothing(arguments: &str) {
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut bench = bench(arguments).spawn().unwrap();
        let daemon = daemon_of(&bench);
        send_signal(&bench, signal);
        assert!(!bench.wait().unwrap().success());
        wait_until("its daemon ends", || (!is_running(daemon)).then_some(()));
    }
}

/// The daemon that a bench started, as soon as it runs a program of its own and may listen.
pub fn daemon_of(bench: &Child) -> i32 {
    let id = bench.id();
    wait_until("the bench starts a daemon", || {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_ascii_whitespace().find_map(|child| {
            let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
            arguments.contains("--ends-with").then(|| child.parse().unwrap())
        })
    })
}

fn is_running(process: i32) -> bool {
    // A process that has ended and was not waited for yet is a zombie.
    fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}
