//! What the daemon writes to standard error.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::daemon::{Client, Daemon, field, wakeupd};

#[test]
fn an_operator_reads_what_is_in_force_and_what_was_done() {
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
    let counted = ["clients", "heartbeats", "pings", "refused", "failed_sends"]
        .map(|name| field(summary, name));
    assert_eq!(counted, ["1", "1", "3", "0", "0"]);
    assert!(field(summary, "worst_lateness_ms").parse::<f64>().unwrap() > 0.0);
    line("INFO stopping");
    assert!(lines.last().unwrap().contains("INFO stopped"));
    assert!(!lines.iter().any(|line| line.contains("registered")), "that is for DEBUG");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "no colours but on a terminal");
}

#[test]
fn every_datagram_is_logged_where_everything_is() {
    let daemon = Daemon::start(&[("LOG_LEVEL", "notset")]);
    let client = Client::of(&daemon);
    client.heartbeat(&[7; 1_400]);
    let line = daemon.wait_for_line("TRACE datagram");
    assert_eq!(field(&line, "source"), client.address().to_string());
    assert_eq!(field(&line, "length"), "1400");
}

#[test]
fn a_higher_level_leaves_out_what_is_below_it() {
    for level in ["WARNING", "error", "50"] {
        let stderr = stderr_of_a_short_life(&[("LOG_LEVEL", level)], false);
        assert!(!stderr.contains("INFO") && !stderr.contains("stopped"), "{level}: {stderr}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let stderr = stderr_of_a_short_life(&[("LOG_FORMAT", "JSON")], false);
    let lines: Vec<Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert!(messages.starts_with(&["starting", "listening"]), "{messages:?}");
    assert!(messages.ends_with(&["stopping", "summary", "stopped"]), "{messages:?}");
    let summary = &lines[lines.len() - 2];
    assert_eq!(summary["level"], "INFO");
    assert_eq!(summary["clients"], 0);
    assert!(summary["worst_lateness_ms"].is_number() && summary["timestamp"].is_string());
}

#[test]
fn the_journal_gets_priorities_and_no_second_timestamp() {
    let stderr = stderr_of_a_short_life(&[("WORKER_POOLSIZE", "3")], true);
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("<4>WORKER_POOLSIZE is not a variable"), "{stderr}");
    assert!(lines[1].starts_with("<6>starting version="), "{stderr}");
    assert_eq!(*lines.last().unwrap(), "<6>stopped");

    let stderr = stderr_of_a_short_life(&[("LOG_FORMAT", "json")], true);
    let first = stderr.lines().next().unwrap().strip_prefix("<6>").unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    assert_eq!((&first["message"], &first["timestamp"]), (&"starting".into(), &Value::Null));

    let stderr = stderr_of_a_short_life(&[("PORT", "x"), ("HOST", "a b")], true);
    assert!(stderr.lines().count() == 3 && stderr.lines().all(|line| line.starts_with("<3>")));
}

#[test]
fn a_log_that_nobody_reads_delays_no_ping() {
    let mut command = wakeupd(&[("HOST", "127.0.0.1"), ("PORT", "0"), ("LOG_LEVEL", "NOTSET")]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        stderr.read_line(&mut line).unwrap();
    }
    let server = field(&line, "address").parse().unwrap();
    let client = || Client::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
    // Each is a line of about a hundred bytes, and a pipe holds 64 KiB.
    let talkative = client();
    for _ in 0..5 {
        for _ in 0..1_000 {
            talkative.heartbeat(&[]);
        }
        talkative.ping();
    }
    let late = client();
    late.heartbeat(&[]);
    late.ping();
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Starts the daemon, stops it soon, and returns all that it wrote to standard error, which is a
/// stream to the journal if `journal` says so.
fn stderr_of_a_short_life(variables: &[(&str, &str)], journal: bool) -> String {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let stream = writer.metadata().map(|file| format!("{}:{}", file.dev(), file.ino())).unwrap();
    let mut command = wakeupd(&[("HOST", "127.0.0.1"), ("PORT", "0")]);
    command.envs(variables.iter().copied()).stderr(Stdio::from(writer));
    if journal {
        command.env("JOURNAL_STREAM", stream);
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    // Long enough for the handlers of signals to stand. A wrong configuration ends by itself.
    thread::sleep(Duration::from_secs(1));
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    signal::kill(pid, Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    let mut stderr = String::new();
    reader.read_to_string(&mut stderr).unwrap();
    stderr
}
