//! The log on standard error.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::{Client, Daemon, PROGRAM, SERVING, field, send_signal, wakeupd};
use crate::support::needs::Need;

#[test]
fn the_log_shows_the_settings_and_a_summary() {
    let daemon = Daemon::start(&[("LOG_LEVEL", "info"), ("CLIENT_EXPIRATION_SECONDS", "60")]);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.pings(3);
    let address = daemon.address.to_string();
    let lines = daemon.stop();
    let line = |text| lines.iter().find(|line| line.contains(text)).unwrap();

    let starting = line("INFO starting");
    let settings = [
        ("version", concat!('"', env!("CARGO_PKG_VERSION"), '"')),
        ("host", "\"127.0.0.1\""),
        ("port", "0"),
        ("client_expiration_seconds", "60"),
        ("worker_pool_size", "10"),
        ("max_clients", "200000"),
        ("guard_mode", "enforce"),
        ("log_level", "INFO"),
        ("log_format", "text"),
    ];
    for (name, value) in settings {
        assert_eq!(field(starting, name), value);
    }
    let listening = line("INFO listening");
    assert_eq!(field(listening, "address"), address);
    assert!(field(listening, "receive_buffer").parse::<usize>().unwrap() > 0);

    let summary = line("INFO summary");
    let counted =
        ["clients", "heartbeats", "refused", "failed_pings"].map(|name| field(summary, name));
    assert_eq!(counted, ["1", "1", "0", "0"], "{summary}");
    assert!(field(summary, "pings").parse::<u32>().unwrap() >= 3, "{summary}");
    assert!(field(summary, "worst_lateness_ms").parse::<f64>().unwrap() > 0.0);
    line("INFO stopping");
    assert!(lines.last().unwrap().contains("INFO stopped"));
    assert!(
        !lines.iter().any(|line| line.contains("registered")),
        "registrations are logged at DEBUG"
    );
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "colours are for terminals only");
}

#[test]
fn only_the_first_client_is_logged_at_info() {
    let daemon = Daemon::start(&[("LOG_LEVEL", "info")]);
    let clients = [Client::of(&daemon), Client::of(&daemon)];
    for client in &clients {
        client.heartbeat(&[]);
        client.ping();
    }
    let lines = daemon.stop();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("client=")).collect();
    assert!(
        told.len() == 1 && told[0].contains("INFO the first client sends heartbeats"),
        "{lines:#?}"
    );
    assert_eq!(field(told[0], "client"), clients[0].address().to_string());
}

#[test]
fn log_level_notset_logs_every_datagram() {
    let daemon = Daemon::start(&[("LOG_LEVEL", "notset")]);
    let client = Client::of(&daemon);
    client.heartbeat(&[7; 1_400]);
    let line = daemon.wait_for_line("TRACE received a datagram");
    assert_eq!(field(&line, "source"), client.address().to_string());
    assert_eq!(field(&line, "length"), "1400");
}

#[test]
fn messages_below_the_log_level_are_omitted() {
    for level in ["WARNING", "error", "50"] {
        let stderr = stderr_of_a_short_life(&[("LOG_LEVEL", level)], false);
        assert!(!stderr.contains("INFO") && !stderr.contains("stopped"), "{level}: {stderr}");
    }
}

#[test]
fn json_logs_have_one_object_per_line() {
    let stderr = stderr_of_a_short_life(&[("LOG_FORMAT", "JSON")], false);
    let lines: Vec<Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert!(messages.starts_with(&["starting", "listening"]), "{messages:?}");
    assert!(messages.ends_with(&["stopping", "summary", "stopped"]), "{messages:?}");
    let summary = &lines[lines.len() - 2];
    assert_eq!(summary["level"], "INFO");
    assert_eq!(summary["clients"], 1);
    assert!(summary["worst_lateness_ms"].is_number() && summary["timestamp"].is_string());
}

#[test]
fn the_journal_gets_priorities_and_no_second_timestamp() {
    let stderr = stderr_of_a_short_life(&[("WORKER_POOLSIZE", "3")], true);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("<4>unknown variable WORKER_POOLSIZE"), "{stderr}");
    assert!(lines[1].starts_with("<6>starting version="), "{stderr}");
    assert_eq!(*lines.last().unwrap(), "<6>stopped");

    let stderr = stderr_of_a_short_life(&[("LOG_FORMAT", "json")], true);
    let first = stderr.lines().next().unwrap().strip_prefix("<6>").unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    assert_eq!((&first["message"], &first["timestamp"]), (&"starting".into(), &Value::Null));

    let stderr = stderr_of_a_short_life(&[("PORT", "x"), ("HOST", "a b")], true);
    assert!(stderr.lines().count() == 3 && stderr.lines().all(|line| line.starts_with("<3>")));
}

/// A daemon that logs far more than its pipe holds, which has no reader.
fn stuck_daemon() -> (Child, BufReader<ChildStderr>, SocketAddr) {
    let mut command = wakeupd(&SERVING);
    let mut child = command.env("LOG_LEVEL", "NOTSET").stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let server = field(&line_with("listening", &mut stderr), "address").parse().unwrap();
    let talkative = Client::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
    // Each heartbeat logs about a hundred bytes, and a pipe holds 64 KiB.
    for _ in 0..5 {
        for _ in 0..1_000 {
            talkative.heartbeat(&[]);
        }
        talkative.ping();
    }
    (child, stderr, server)
}

fn line_with(text: &str, stderr: &mut impl BufRead) -> String {
    stderr.lines().map(Result::unwrap).find(|line| line.contains(text)).unwrap()
}

#[test]
fn an_unread_log_delays_no_ping() {
    let (mut child, _stderr, server) = stuck_daemon();
    let client = Client::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
    client.heartbeat(&[]);
    client.ping();
    send_signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    // Without the second signal, the daemon would wait to write its last lines.
    let (mut child, _stderr, _) = stuck_daemon();
    for signal in [Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCONT] {
        send_signal(&child, signal);
    }
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

#[test]
fn a_small_buffer_is_reported_with_the_remedy() {
    require!([Need::Root, Need::Program("setpriv")]);
    // Without this capability, the daemon cannot exceed the system's limits, which are usually far lower.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", PROGRAM]);
    let daemon = Daemon::start_command(command.envs(SERVING));
    let listening = daemon.wait_for_line("listening");
    let granted: usize = field(&listening, "receive_buffer").parse().unwrap();
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    assert_eq!(granted, limit.trim().parse::<usize>().unwrap().min(8 << 20));
    if granted < 8 << 20 {
        daemon.wait_for_line("echo \"net.core.rmem_max = 8388608\" >>");
    }
}

/// Starts the daemon, stops it once it pings, and returns its standard error, which is a stream to the
/// journal if `journal` is set.
fn stderr_of_a_short_life(variables: &[(&str, &str)], journal: bool) -> String {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let stream = writer.metadata().map(|file| format!("{}:{}", file.dev(), file.ino())).unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = wakeupd(&SERVING);
    command
        .env("PORT", port.to_string())
        .envs(variables.iter().copied())
        .stderr(Stdio::from(writer));
    if journal {
        command.env("JOURNAL_STREAM", stream);
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    // It may log nothing, but once it pings it handles signals too.
    let client = Client::new(
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        SocketAddr::from(([127, 0, 0, 1], port)),
    );
    while child.try_wait().unwrap().is_none() {
        client.heartbeat(&[]);
        if !client.is_left_alone_for(Duration::from_millis(200)) {
            send_signal(&child, Signal::SIGTERM);
            child.wait().unwrap();
        }
    }
    let mut stderr = String::new();
    reader.read_to_string(&mut stderr).unwrap();
    stderr
}
