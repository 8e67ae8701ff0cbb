//! `wakeupd probe`.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, count, output, send_signal, wakeupd};

fn probe(arguments: &[&str]) -> Command {
    let mut command = wakeupd(&[]);
    command.arg("probe").args(arguments);
    command
}

#[test]
fn a_probe_counts_pings_one_second_apart() {
    let daemon = Daemon::start(&[]);
    let target = format!("localhost:{}", daemon.address.port());
    let (status, stdout, _) = output(&mut probe(&[&target, "--count", "4"]));
    assert_eq!(status.code(), Some(0), "{stdout}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with(&format!("PROBE localhost ({}) from 127.0.0.1:", daemon.address)));
    assert!(lines[0].contains("heartbeat every 20s"), "{stdout}");
    assert!(lines[1].starts_with("ping 1: 0.") || lines[1].starts_with("ping 1: 1."), "{stdout}");
    for (number, line) in (2..=4).zip(&lines[2..]) {
        assert!(
            line.starts_with(&format!("ping {number}: ")) && line.contains(" s after the last (")
        );
    }
    assert_eq!(lines[5], format!("--- localhost ({}) ---", daemon.address));
    assert_eq!(lines[6], "4 pings received, 0 missed, 0 duplicated");
    assert!(lines[7].starts_with("deviation from 1 s: min/avg/p99/max = "), "{stdout}");
}

#[test]
fn a_probe_sends_enough_heartbeats_to_stay_registered() {
    let daemon = Daemon::start(&[("CLIENT_EXPIRATION_SECONDS", "3")]);
    let target = daemon.address.to_string();
    let (status, stdout, _) = output(&mut probe(&[&target, "--every", "1s", "--count", "8"]));
    assert!(status.success() && stdout.contains("8 pings received"), "{stdout}");
    assert_eq!(count(&daemon.stop(), "registered"), 1);
}

#[test]
fn a_probe_ends_after_its_duration() {
    let daemon = Daemon::start(&[]);
    let (status, stdout, _) = output(&mut probe(&[&daemon.address.to_string(), "--for", "3s"]));
    assert!(status.success() && stdout.contains(" received, "), "{stdout}");
}

#[test]
fn an_interrupted_probe_prints_a_summary() {
    let daemon = Daemon::start(&[]);
    let child = probe(&[&daemon.address.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    daemon.wait_for_line("registered");
    std::thread::sleep(std::time::Duration::from_secs(2));
    send_signal(&child, Signal::SIGINT);
    let output = Child::wait_with_output(child).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && stdout.contains(" received, "), "{stdout}");
}

#[test]
fn a_closed_port_is_distinguished_from_silence() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, stdout, _) = output(&mut probe(&[&closed.to_string(), "--for", "2s"]));
    assert_eq!(status.code(), Some(1));
    assert!(stdout.contains("0 pings received"), "{stdout}");
    assert!(stdout.contains("Nothing listens on UDP port"), "{stdout}");
    assert_eq!(stdout.matches("refused: ").count(), 1, "{stdout}");

    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let (status, stdout, _) = output(&mut probe(&[&address, "--for", "4s"]));
    assert_eq!(status.code(), Some(1));
    for hint in ["no ping for 3 s", "No ping arrived", "firewall", "NAT"] {
        assert!(stdout.contains(hint), "{hint} is missing in {stdout}");
    }
}

#[test]
fn only_datagrams_that_begin_like_a_ping_count() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap().to_string();
    let mut probe = probe(&[&target, "--count", "1"]);
    let child = probe.stdout(Stdio::piped()).spawn().unwrap();
    let (_, client) = server.recv_from(&mut [0; 64]).unwrap();
    for payload in [&b"au"[..], b"u", b"", b"\x1b[2J", b"ua and more"] {
        server.send_to(payload, client).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(stdout.contains("ignored a datagram of 2 bytes: not a ping\n"), "{stdout}");
    assert!(stdout.ends_with("\n4 other datagrams ignored\n"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "{stdout:?}");
}

#[test]
fn a_flood_from_the_server_is_summarized_once_a_second() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap().to_string();
    let child = probe(&[&target, "--for", "3s"]).stdout(Stdio::piped()).spawn().unwrap();
    let (_, client) = server.recv_from(&mut [0; 64]).unwrap();
    // Sends pings and other datagrams for as long as the probe listens.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for payload in [&b"ua"[..], b"ua", b"no"] {
                    let _ = server.send_to(payload, client);
                }
            }
        });
        let output = child.wait_with_output().unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        output
    });
    let stdout = String::from_utf8(output.stdout).unwrap();
    let count = |text: &str| stdout.lines().filter(|line| line.contains(text)).count();
    assert!((1..10).contains(&count("a duplicate")), "{stdout}");
    assert!((1..10).contains(&count("not a ping")), "{stdout}");
    assert!(count("similar lines suppressed") > 0, "{stdout}");
}

#[test]
fn an_invalid_command_line_exits_with_code_2() {
    for arguments in [
        &["localhost:0"][..],
        &["[::1"],
        &["::1]"],
        &["::1", "--every", "0s"],
        &["a", "--for", "500000000000years"],
        &["a", "--count", "0"],
        &[],
    ] {
        let (status, _, stderr) = output(&mut probe(arguments));
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stderr}");
    }
    let (status, _, stderr) = output(&mut probe(&["nowhere.invalid"]));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.starts_with("wakeupd probe: nowhere.invalid: "), "{stderr}");
}
