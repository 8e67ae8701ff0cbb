//! `DENY_FILE` and SIGHUP.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::daemon::{Client, Daemon, field, output, wait_until, wakeupd};
use crate::support::web;

/// A file for `DENY_FILE`, removed on drop.
#[derive(Debug)]
pub struct DenyFile(PathBuf);

impl DenyFile {
    pub fn new(name: &str, text: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let file = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write(text);
        file
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for DenyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_denied_client_is_removed_at_once_and_readmitted_when_allowed() {
    let file = DenyFile::new("whom_the_file_denies", "198.51.100.0/24\n");
    let daemon = Daemon::start(&[("DENY_FILE", file.path())]);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    // The IPv4-mapped form of 127.0.0.0/8.
    file.write("::ffff:127.0.0.0/104 # everybody here\n");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_line("loaded DENY_FILE");
    assert_eq!((field(&line, "networks"), field(&line, "removed")), ("1", "1"));
    assert!(client.is_left_alone_for(Duration::from_millis(2_500)));
    client.heartbeat(&[]);
    daemon.wait_for_line("reason=\"deny_file\"");

    fs::remove_file(file.path()).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("WARN The daemon cannot reload DENY_FILE");
    client.heartbeat(&[]);
    assert!(client.is_left_alone_for(Duration::from_millis(1_500)));

    file.write("");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_lines("loaded DENY_FILE", 2);
    client.heartbeat(&[]);
    client.ping();
}

#[test]
fn the_file_is_read_at_the_start_and_an_invalid_line_is_reported() {
    let file = DenyFile::new("the_file_is_read_at_the_start", "127.0.0.0/8\n");
    let daemon = Daemon::start(&[("DENY_FILE", file.path())]);
    Client::of(&daemon).heartbeat(&[]);
    daemon.wait_for_line("reason=\"deny_file\"");
    file.write("127.0.0.0/8\n\nlocalhost\n");
    for argument in ["--check-config", "--print-config"] {
        let (status, _, stderr) = output(wakeupd(&[("DENY_FILE", file.path())]).arg(argument));
        assert_eq!(status.code(), Some(78));
        assert!(
            stderr.contains("DENY_FILE=") && stderr.contains("line 3: \"localhost\""),
            "{stderr}"
        );
    }
}

#[test]
fn a_reload_that_fails_is_a_finding_until_one_succeeds() {
    let file = DenyFile::new("a_reload_that_fails", "198.51.100.0/24\n");
    let daemon = Daemon::start(&[("DENY_FILE", file.path()), ("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http();
    let status = || web::get(http, "/status").json();
    let is_stale = |is_stale: bool| {
        let findings = status()["findings"].to_string();
        let metrics = web::get(http, "/metrics").body;
        findings.contains("deny_file_stale") == is_stale
            && (web::metric(&metrics, "wakeupd_deny_file_stale") > 0.5) == is_stale
    };
    assert!(is_stale(false));
    let read = status()["deny_file"]["read"].clone();
    assert!(read.is_string(), "{read}");
    file.write("198.51.100.0/24\n\nsecret\n");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_line("WARN The daemon cannot reload DENY_FILE");
    assert!(line.contains("line 3: ") && line.contains("secret"), "{line}");
    wait_until("the failed reload is reported", || is_stale(true));
    let (findings, deny_file) = (status()["findings"].to_string(), status()["deny_file"].clone());
    let failure = &deny_file["failure"];
    assert_eq!((&deny_file["read"], &failure["line"]), (&read, &3.into()));
    assert!(failure["time"].as_str() > read.as_str(), "{deny_file}");
    assert!(findings.contains("line 3 is not a network"), "{findings}");
    assert!(!findings.contains("secret") && !deny_file.to_string().contains("secret"));
    let metrics = web::get(http, "/metrics").body;
    assert!(metrics.contains("\nwakeupd_failed_deny_file_reads_total 1\n"), "{metrics}");

    fs::write(file.path(), b"\xef\xbb\xbf# Herr M\xfcller\r\n198.51.100.0/24\r\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("loaded DENY_FILE");
    wait_until("the finding is gone", || is_stale(false));
    assert!(status()["deny_file"]["failure"].is_null());
}

#[test]
fn only_a_regular_file_is_read() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let fifo = folder.join(format!("fifo-{}", std::process::id()));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = DenyFile(fifo);
    for (path, kind) in
        [(fifo.path(), "a FIFO"), (folder.to_str().unwrap(), "a folder"), ("/dev/null", "a device")]
    {
        let (status, _, stderr) = output(&mut wakeupd(&[("DENY_FILE", path)]));
        assert_eq!(status.code(), Some(78));
        let reason = format!("the path names {kind}, not a regular file");
        assert!(stderr.contains(&reason), "{stderr}");
    }
}

#[test]
fn sighup_without_a_deny_file_does_nothing() {
    let daemon = Daemon::start(&[]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("DENY_FILE is not set");
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    daemon.stop();
}

#[test]
fn observe_mode_reports_refusals_but_refuses_no_client() {
    let file = DenyFile::new("an_observer", "198.51.100.0/24\n");
    let daemon = Daemon::start(&[
        ("DENY_FILE", file.path()),
        ("GUARD_MODE", "observe"),
        ("REFUSE_NETS", "127.0.0.0/8"),
        ("MAX_CLIENTS", "1"),
    ]);
    let clients = [Client::of(&daemon), Client::of(&daemon)];
    for client in &clients {
        client.heartbeat(&[]);
        client.ping();
    }
    file.write("127.0.0.0/8\n");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_line("loaded DENY_FILE");
    assert_eq!(field(&line, "removed"), "0");
    clients[0].heartbeat(&[]);
    for client in &clients {
        client.pings(2);
    }
    for reason in ["refuse_nets", "max_clients"] {
        daemon.wait_for_line(&format!(
            "would refuse a datagram with GUARD_MODE=enforce source=127.0.0.1:{} reason=\"{reason}\"",
            clients[usize::from(reason == "max_clients")].address().port()
        ));
    }
    let lines = daemon.stop();
    assert!(!lines.iter().any(|line| line.contains("WARN refused")));
}
