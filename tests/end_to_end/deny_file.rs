//! `DENY_FILE` and SIGHUP.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::{Client, Daemon, field, output, wakeupd};

/// A file for `DENY_FILE`, which is removed at the end.
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
fn whom_the_file_denies_goes_at_once_and_comes_back_when_it_does_not() {
    let file = DenyFile::new("whom_the_file_denies", "198.51.100.0/24\n");
    let daemon = Daemon::start(&[("DENY_FILE", file.path())]);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    file.write("127.0.0.0/8 # everybody here\n");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_line("read DENY_FILE again");
    assert_eq!((field(&line, "networks"), field(&line, "removed")), ("1", "1"));
    assert!(client.is_left_alone_for(Duration::from_millis(2_500)));
    client.heartbeat(&[]);
    daemon.wait_for_line("reason=\"deny_file\"");

    fs::remove_file(file.path()).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon
        .wait_for_line("ERROR DENY_FILE is wrong, so the networks that it held before stay denied");
    client.heartbeat(&[]);
    assert!(client.is_left_alone_for(Duration::from_millis(1_500)));

    file.write("");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_lines("read DENY_FILE again", 2);
    client.heartbeat(&[]);
    client.ping();
}

#[test]
fn the_file_is_read_at_the_start_and_one_that_is_wrong_is_told_by_its_line() {
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
fn without_a_file_a_hangup_does_nothing() {
    let daemon = Daemon::start(&[]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("DENY_FILE is not set");
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    daemon.stop();
}

#[test]
fn an_observer_tells_whom_it_would_refuse_and_refuses_nobody() {
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
    let line = daemon.wait_for_line("read DENY_FILE again");
    assert_eq!(field(&line, "removed"), "0");
    clients[0].heartbeat(&[]);
    for client in &clients {
        client.pings(2);
    }
    for reason in ["refuse_nets", "max_clients"] {
        daemon.wait_for_line(&format!(
            "would refuse a datagram source=127.0.0.1:{} reason=\"{reason}\"",
            clients[usize::from(reason == "max_clients")].address().port()
        ));
    }
    let lines = daemon.stop();
    assert!(!lines.iter().any(|line| line.contains("WARN refused")));
}
