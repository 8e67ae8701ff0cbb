//! System calls that fail, injected by strace(1), and datagrams that only root can send.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::daemon::{Client, Daemon, PROGRAM, SERVING, count, field, summary};
use crate::support::needs::Need;

/// A daemon in which `sendmmsg` fails as `injection` specifies.
fn failing_daemon(injection: &str) -> Daemon {
    hampered_daemon("sendmmsg", injection, &[])
}

/// A daemon with these settings. strace applies `injection` to its calls of `call`.
fn hampered_daemon(call: &str, injection: &str, settings: &[(&str, &str)]) -> Daemon {
    let mut command = Command::new("strace");
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{injection}"));
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, PROGRAM]);
    // strace counts the calls of each thread separately, so only one thread may send.
    command.env_clear().env("ENV_FILE", "none").envs(SERVING).envs(settings.iter().copied());
    command.env("TOKIO_WORKER_THREADS", "1");
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let mut daemon = Daemon::start_command(&mut command);
    daemon.descend();
    daemon
}

fn failed_pings(mut daemon: Daemon) -> String {
    daemon.signal(Signal::SIGTERM);
    daemon.wait();
    field(&daemon.wait_for_line("summary"), "failed_pings").to_owned()
}

#[test]
fn a_failed_send_costs_only_its_own_ping() {
    require!([Need::Program("strace")]);
    // The daemon retries some sends at once, because the error may belong to another datagram.
    let failures = [
        ("EINVAL", 0, "invalid"),
        ("EPERM", 0, "not_permitted"),
        ("EACCES", 1, "prohibited"),
        ("ENETUNREACH", 1, "network_unreachable"),
        ("EHOSTUNREACH", 1, "host_unreachable"),
        ("ECONNREFUSED", 4, "connection_refused"),
        ("EMSGSIZE", 1, "message_too_long"),
        ("EIO", 1, "other"),
    ];
    let daemons = failures.map(|(error, retries, _)| {
        let daemon = failing_daemon(&format!("error={error}:when=2..{}", 2 + retries));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        (daemon, client)
    });
    for ((daemon, client), (error, _, reason)) in daemons.into_iter().zip(failures) {
        client.ping();
        client.pings(2);
        daemon.wait_for_line(&format!("reason=\"{reason}\""));
        assert_eq!(failed_pings(daemon), "1", "{error}");
    }
}

#[test]
fn an_error_about_another_client_costs_no_ping() {
    require!([Need::Program("strace")]);
    let errors = [
        ("ECONNREFUSED", 4),
        ("ENETUNREACH", 1),
        ("EHOSTUNREACH", 1),
        ("EACCES", 1),
        ("EPROTO", 1),
    ];
    let daemons = errors.map(|(error, times)| {
        let daemon = failing_daemon(&format!("error={error}:when=2..{}", 1 + times));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        (daemon, client)
    });
    for ((daemon, client), (error, _)) in daemons.into_iter().zip(errors) {
        client.pings(3);
        assert_eq!(failed_pings(daemon), "0", "{error}");
    }
}

#[test]
fn a_send_that_finds_no_buffer_space_is_retried_once() {
    require!([Need::Program("strace")]);
    for (error, reason) in [("EAGAIN", "would_block"), ("ENOBUFS", "no_buffers")] {
        let daemon = failing_daemon(&format!("error={error}:when=2"));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        client.pings(3);
        assert_eq!(failed_pings(daemon), "0", "{error}");

        let daemon = failing_daemon(&format!("error={error}:when=2..3"));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        client.pings(3);
        daemon.wait_for_line(&format!("reason=\"{reason}\""));
        assert_eq!(failed_pings(daemon), "1", "{error}");
    }
}

#[test]
fn a_flood_that_never_ends_does_not_keep_silent_clients() {
    require!([Need::Program("strace")]);
    // Receiving is so slow that a datagram always waits in the socket.
    let settings = [("LOG_LEVEL", "DEBUG"), ("CLIENT_EXPIRATION_SECONDS", "1")];
    let daemon = hampered_daemon("recvmmsg", "delay_enter=4000", &settings);
    let silent = Client::of(&daemon);
    silent.heartbeat(&[]);
    silent.ping();
    let noisy = Client::of(&daemon);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                noisy.heartbeat(&[]);
            }
        });
        let removed = || daemon.wait_for_line(&format!("removed client={}", silent.address()));
        let removed = panic::catch_unwind(AssertUnwindSafe(removed));
        is_over.store(true, Relaxed);
        removed.unwrap();
    });
}

#[test]
fn source_port_zero_never_registers_or_floods_the_log() {
    require!([Need::Root]);
    let daemon = Daemon::start(&[]);
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
    let [high, low] = daemon.address.port().to_be_bytes();
    // Source port 0, the daemon's port, a length of 8 and no checksum: a header and nothing else.
    let datagram = [0, 0, high, low, 0, 8, 0, 0];
    let start = Instant::now();
    for _ in 0..1_000 {
        raw.send_to(&datagram, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    }
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    let seconds = start.elapsed().max(Duration::from_secs(1)).as_secs();
    let lines = daemon.stop();
    assert_eq!(count(&lines, "registered"), 1, "only the client registers");
    let warnings = count(&lines, "reason=\"source_port_zero\"") as u64;
    assert!((1..=seconds + 1).contains(&warnings), "{lines:#?}");
    let summary = summary(&lines);
    assert_eq!((field(summary, "clients"), field(summary, "failed_pings")), ("1", "0"));
    // The kernel may drop some of such a burst, but not most of it.
    assert!(field(summary, "refused").parse::<u32>().unwrap() > 100, "{summary}");
}
