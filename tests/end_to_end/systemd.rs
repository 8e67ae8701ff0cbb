//! Runs under a service manager: socket activation, notifications and the watchdog.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::support::daemon::{
    Client, Daemon, PATIENCE, PROGRAM, SERVING, count, field, output, wakeupd,
};
use crate::support::needs::Need;
use crate::support::web::{get, wait_for};
use crate::support::witness::Witness;

/// A command that execs the daemon and passes it these descriptors, at most two.
pub fn handed_over(what: Vec<OwnedFd>) -> Command {
    hand_over(Command::new("/bin/sh"), what)
}

/// Does the same with a given shell command.
pub fn hand_over(mut shell: Command, what: Vec<OwnedFd>) -> Command {
    let count = what.len().to_string();
    let become_it =
        r#"export LISTEN_PID=$$ LISTEN_FDS=$1; exec "$0" 3<&0 4<&1 </dev/null >/dev/null"#;
    shell.args(["-c", become_it, PROGRAM, &count]).env_clear().env("ENV_FILE", "none");
    shell.envs(SERVING).env("LOG_LEVEL", "DEBUG");
    let mut streams = what.into_iter().map(Stdio::from);
    shell.stdin(streams.next().unwrap()).stdout(streams.next().unwrap_or_else(Stdio::null));
    shell
}

/// A bound socket, as a service manager holds it.
fn listening_at(address: &str) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

fn serve(socket: &UdpSocket) -> Daemon {
    Daemon::start_command(&mut handed_over(vec![socket.try_clone().unwrap().into()]))
}

fn client_of(server: SocketAddr) -> Client {
    Client::new(UdpSocket::bind((server.ip(), 0)).unwrap(), server)
}

#[test]
fn heartbeats_wait_in_the_socket_that_is_handed_over() {
    let socket = listening_at("127.0.0.1:0");
    let client = client_of(socket.local_addr().unwrap());
    for _ in 0..2 {
        client.forget_pings();
        client.heartbeat(&[0, 0]);
        let daemon = serve(&socket);
        assert_eq!(daemon.address, socket.local_addr().unwrap());
        client.pings(2);
        let lines = daemon.stop();
        assert!(lines.iter().any(|line| line.contains("serving the socket that was handed over")));
        assert!(!lines.iter().any(|line| line.contains("PORT have no effect")), "{lines:?}");
    }
}

#[test]
fn heartbeats_that_waited_for_longer_than_a_client_lives_do_not_count() {
    let socket = listening_at("127.0.0.1:0");
    // As with `Timestamping=ns` in wakeupd.socket.
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
    let [stale, recent] = [(); 2].map(|()| client_of(socket.local_addr().unwrap()));
    stale.heartbeat(&[]);
    thread::sleep(Duration::from_millis(2_500));
    recent.heartbeat(&[]);
    let mut command = handed_over(vec![socket.try_clone().unwrap().into()]);
    let daemon = Daemon::start_command(command.env("CLIENT_EXPIRATION_SECONDS", "2"));
    recent.ping();
    daemon.wait_for_line("reason=\"stale\"");
    let lines = daemon.lines();
    assert!(
        !lines.iter().any(|line| line.contains(&format!("registered client={}", stale.address())))
    );
    stale.heartbeat(&[]);
    stale.ping();
}

#[test]
fn ipv6_is_handed_over_too() {
    require!([Need::Ipv6]);
    let socket = listening_at("[::]:0");
    let port = socket.local_addr().unwrap().port();
    let clients =
        ["127.0.0.1", "::1"].map(|ip| client_of(SocketAddr::new(ip.parse().unwrap(), port)));
    for client in &clients {
        client.heartbeat(&[]);
    }
    let _daemon = serve(&socket);
    for client in &clients {
        client.ping();
    }
}

#[test]
fn pings_leave_from_the_address_that_a_waiting_heartbeat_hit() {
    let waiting = |socket: &UdpSocket| {
        let port = socket.local_addr().unwrap().port();
        let client = Client::new(listening_at("127.0.0.1:0"), ([127, 0, 0, 2], port).into());
        client.heartbeat(&[]);
        client
    };
    let socket = listening_at("0.0.0.0:0");
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
    let client = waiting(&socket);
    let _daemon = serve(&socket);
    client.ping();

    // Without the option, the kernel does not record the destination address of a waiting heartbeat.
    let socket = listening_at("0.0.0.0:0");
    let client = waiting(&socket);
    let _daemon = serve(&socket);
    client.ping_from();
    client.heartbeat(&[]);
    let deadline = Instant::now() + PATIENCE;
    while client.ping_from().ip().to_string() != "127.0.0.2" {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_buffer_that_is_larger_than_the_daemon_may_ask_for_stays() {
    require!([Need::Root]);
    let socket = listening_at("127.0.0.1:0");
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    let daemon = serve(&socket);
    let listening = daemon.wait_for_line("listening");
    assert_eq!(field(&listening, "receive_buffer"), (16 << 20).to_string());
}

#[test]
fn host_and_port_do_not_count_beside_a_socket() {
    let socket = listening_at("127.0.0.1:0");
    for (name, value) in [("PORT", "1"), ("HOST", "127.0.0.2"), ("HOST", "nowhere.invalid")] {
        let mut command = handed_over(vec![socket.try_clone().unwrap().into()]);
        let daemon = Daemon::start_command(command.env(name, value));
        daemon.wait_for_line("so HOST and PORT have no effect");
        assert_eq!(daemon.address, socket.local_addr().unwrap());
    }
}

#[test]
fn anything_but_one_udp_socket_is_told_to_be_wrong() {
    let udp = || OwnedFd::from(listening_at("127.0.0.1:0"));
    let tcp = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let unix = OwnedFd::from(UnixDatagram::unbound().unwrap());
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    for (wrong, complaint) in [
        (vec![tcp], "not a UDP socket (fd 3 is not a valid udp socket)"),
        (vec![unix], "not a UDP socket (fd 3 is not a valid udp socket)"),
        (vec![file], "not a UDP socket (fd 3 is not a socket)"),
        (vec![udp(), udp()], "2 sockets were handed over"),
    ] {
        let (status, stderr) = outcome_of(wrong);
        assert_eq!(status, Some(78), "{stderr}");
        assert!(stderr.contains(complaint) && stderr.contains("wakeupd.socket"), "{stderr}");
    }
}

#[test]
fn a_socket_that_is_bound_to_nothing_of_use_is_told_to_be_wrong() {
    require!([Need::Ipv6]);
    let new = |domain| socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
    let unbound = new(socket2::Domain::IPV4);
    let only_v6 = new(socket2::Domain::IPV6);
    only_v6.set_only_v6(true).unwrap();
    only_v6.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let connected = listening_at("127.0.0.1:0");
    connected.connect("127.0.0.1:9").unwrap();
    for (wrong, complaint) in [
        (unbound, "it is not bound to a port"),
        (only_v6, "but takes no IPv4"),
        (connected.into(), "it is connected to 127.0.0.1:9"),
    ] {
        let (status, stderr) = outcome_of(vec![wrong.into()]);
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains(complaint), "{stderr}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    for pid in [None, Some(""), Some("1")] {
        let mut command = wakeupd(&SERVING);
        command.env("LISTEN_FDS", "1").env("LOG_LEVEL", "DEBUG");
        command.envs(pid.map(|pid| ("LISTEN_PID", pid)));
        let daemon = Daemon::start_command(command.stdin(Stdio::null()));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        client.ping();
        assert_eq!(count(&daemon.stop(), "handed over"), 0);
    }
}

#[test]
fn a_huge_number_of_sockets_takes_no_memory() {
    let mut command = Command::new("/bin/sh");
    let become_it = r#"ulimit -v 1000000; export LISTEN_PID=$$ LISTEN_FDS=2147483647; exec "$0""#;
    command.args(["-c", become_it, PROGRAM]).env_clear().env("ENV_FILE", "none").envs(SERVING);
    let (status, _, stderr) = output(&mut command);
    assert_eq!(status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("2147483647 sockets were handed over"), "{stderr}");
}

/// The exit code and the error output of a daemon that is passed these descriptors.
fn outcome_of(what: Vec<OwnedFd>) -> (Option<i32>, String) {
    let daemon = handed_over(what).stderr(Stdio::piped()).spawn().unwrap();
    let output = daemon.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn systemd_hands_its_socket_over() {
    require!([Need::Program("systemd-socket-activate")]);
    let address = free_address();
    let client = client_of(address);
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--datagram", "--listen", &address.to_string(), "--setenv=HTTP_ADDR=", PROGRAM]);
    let daemon = thread::scope(|scope| {
        // The first heartbeat starts the daemon, but systemd-socket-activate gives no sign that it listens.
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && !client.has_ping() {
                client.heartbeat(&[]);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Daemon::start_command(&mut command)
    });
    assert_eq!(daemon.address, address);
    client.ping();
}

/// An address that is free at the moment.
fn free_address() -> SocketAddr {
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
fn it_tells_when_it_is_bound_and_when_it_stops() {
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
fn a_manager_that_is_not_there_does_no_harm() {
    let daemon = Daemon::start(&[("NOTIFY_SOCKET", "/nowhere"), ("WATCHDOG_USEC", "1")]);
    daemon.wait_for_line("cannot reach the service manager");
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
}

#[test]
fn a_manager_whose_queue_is_full_costs_no_ping_and_learns_of_the_start_later() {
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
fn the_watchdog_and_the_operator_learn_of_a_stuck_worker() {
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
    let halted = Halted::new(daemon.thread("worker-3"));
    let stuck = daemon.wait_for_line("These tasks have not responded");
    assert!(stuck.contains("tasks=\"worker 3\""), "{stuck}");
    assert!(manager.misses("WATCHDOG", Duration::from_secs(3)));
    let health = get(http, "/healthz");
    assert_eq!(health.status, 503);
    assert_eq!(health.body, r#"{"healthy":false,"stuck":["worker 3"]}"#);
    let (status, stdout, _) = healthcheck();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "unhealthy: stuck tasks: worker 3\n");
    wait_for(http, "/status", |status| status["findings"][0]["id"] == "stuck");
    assert!(get(http, "/metrics").body.contains("\nwakeupd_stuck_tasks 1\n"));

    drop(halted);
    manager.wait_for("WATCHDOG=1");
    daemon.wait_for_line("all tasks are running again");
    assert_eq!(get(http, "/healthz").status, 200);
    assert!(healthcheck().0.success());
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_left_alone() {
    let (manager, address) = Manager::abstract_one("other");
    let variables =
        [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "20000000"), ("WATCHDOG_PID", "1")];
    let _daemon = Daemon::start(&variables);
    manager.wait_for("READY=1");
    assert!(manager.misses("WATCHDOG", Duration::from_secs(3)));
}
