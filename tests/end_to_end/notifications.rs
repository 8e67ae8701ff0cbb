//! Notifications to the service manager, and its watchdog.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::support::daemon::{Client, Daemon, PATIENCE, output, wakeupd};
use crate::support::web::{get, wait_for};
use crate::support::witness::Witness;
use crate::systemd::listening_at;

/// An address that is free at the moment.
pub fn free_address() -> SocketAddr {
    listening_at("127.0.0.1:0").local_addr().unwrap()
}

/// The notification socket of a service manager.
#[derive(Debug)]
pub struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &net::SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// A manager at an address in the abstract namespace, and the value of `NOTIFY_SOCKET` for it.
    pub fn abstract_one(name: &str) -> (Self, String) {
        let name = format!("wakeupd-{name}-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        (Self::at(&address), format!("@{name}"))
    }

    /// Waits for a notification with this line.
    pub fn wait_for(&self, line: &str) -> String {
        loop {
            let told = self.next().expect(line);
            if told.lines().any(|told| told == line) {
                return told;
            }
        }
    }

    fn next(&self) -> io::Result<String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer)?;
        Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Discards the notifications so far. Returns whether no other contains `line` during this time.
    pub fn misses(&self, line: &str, time: Duration) -> bool {
        self.0.set_nonblocking(true).unwrap();
        while self.next().is_ok() {}
        self.0.set_nonblocking(false).unwrap();
        self.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let end = Instant::now() + time;
        let mut is_told = false;
        while Instant::now() < end {
            is_told |= self.next().is_ok_and(|told| told.contains(line));
        }
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        !is_told
    }
}

#[test]
fn the_daemon_notifies_when_it_is_bound_and_when_it_stops() {
    let name = format!("notify-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let of_path = Manager::at(&net::SocketAddr::from_pathname(&path).unwrap());
    let managers = [(of_path, path.to_str().unwrap().to_owned()), Manager::abstract_one("ready")];
    for (manager, address) in managers {
        let port = free_address().port().to_string();
        let (mut daemon, told, bound) = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let told = manager.wait_for("READY=1");
                (told, UdpSocket::bind(format!("127.0.0.1:{port}")))
            });
            let daemon = Daemon::start(&[("NOTIFY_SOCKET", &address), ("PORT", &port)]);
            let (told, bound) = watcher.join().unwrap();
            (daemon, told, bound)
        });
        assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(told.contains(&format!("STATUS=listening on 127.0.0.1:{port}")), "{told}");
        assert!(manager.misses("WATCHDOG", Duration::from_secs(2)), "there is no watchdog");
        daemon.signal(Signal::SIGTERM);
        manager.wait_for("STOPPING=1");
        assert_eq!(daemon.wait().code(), Some(0));
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn a_missing_service_manager_is_harmless() {
    let daemon = Daemon::start(&[("NOTIFY_SOCKET", "/nowhere"), ("WATCHDOG_USEC", "1")]);
    daemon.wait_for_line("cannot reach the service manager");
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
}

#[test]
fn a_manager_whose_queue_is_full_costs_no_ping_and_gets_ready_later() {
    let (manager, address) = Manager::abstract_one("busy");
    let filler = UnixDatagram::unbound().unwrap();
    let name = net::SocketAddr::from_abstract_name(address.trim_start_matches('@')).unwrap();
    filler.connect_addr(&name).unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send(b"STATUS=busy").is_ok() {}
    let daemon = Daemon::start(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "20000000")]);
    let witness = Witness::of(&daemon);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.pings(3);
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    witness.missed_nothing(&daemon);
    // The daemon reports readiness only once.
    assert!(manager.misses("READY=1", Duration::from_secs(2)));
}

/// A thread that is stopped until drop. No caller can wait for its process before that.
pub struct Halted(Pid);

impl Halted {
    pub fn new(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        if ptrace::detach(self.0, None).is_err() {
            // The thread was killed, and its tracer has to reap it first.
            waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap();
        }
    }
}

#[test]
fn a_stuck_worker_is_reported_to_the_watchdog_and_the_operator() {
    let (manager, address) = Manager::abstract_one("watchdog");
    let daemon = Daemon::start(&[
        ("NOTIFY_SOCKET", &address),
        ("WATCHDOG_USEC", "20000000"),
        ("HTTP_ADDR", "127.0.0.1:0"),
    ]);
    let http = daemon.http();
    let healthcheck =
        || output(wakeupd(&[]).args(["healthcheck", "--http-addr", &http.to_string()]));
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    // A worker without clients sleeps, and is not missed.
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    let halted = Halted::new(daemon.thread("worker-0"));
    let stuck = daemon.wait_for_line("These tasks of the daemon have not responded");
    assert!(stuck.contains("tasks=\"worker 0\""), "{stuck}");
    assert!(manager.misses("WATCHDOG", Duration::from_secs(3)));
    let health = get(http, "/healthz");
    assert_eq!(health.status, 503);
    assert_eq!(health.body, r#"{"healthy":false,"stuck":["worker 0"]}"#);
    let (status, stdout, _) = healthcheck();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "unhealthy: stuck tasks: worker 0\n");
    wait_for(http, "/status", |status| status["findings"][0]["id"] == "stuck");
    assert!(get(http, "/metrics").body.contains("\nwakeupd_stuck_tasks 1\n"));

    drop(halted);
    manager.wait_for("WATCHDOG=1");
    daemon.wait_for_line("all tasks are running again");
    assert_eq!(get(http, "/healthz").status, 200);
    assert!(healthcheck().0.success());
}

#[test]
fn a_watchdog_of_another_process_is_not_notified() {
    let (manager, address) = Manager::abstract_one("other");
    let variables =
        [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "20000000"), ("WATCHDOG_PID", "1")];
    let _daemon = Daemon::start(&variables);
    manager.wait_for("READY=1");
    assert!(manager.misses("WATCHDOG", Duration::from_secs(3)));
}
