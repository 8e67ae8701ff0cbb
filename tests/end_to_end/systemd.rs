//! Runs under a service manager: socket activation, notifications and the watchdog.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::notifications::free_address;
use crate::support::daemon::{
    Client, Daemon, PATIENCE, PROGRAM, SERVING, count, field, output, wakeupd,
};
use crate::support::needs::Need;

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
pub fn listening_at(address: &str) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

pub fn serve(socket: &UdpSocket) -> Daemon {
    Daemon::start_command(&mut handed_over(vec![socket.try_clone().unwrap().into()]))
}

pub fn client_of(server: SocketAddr) -> Client {
    Client::new(UdpSocket::bind((server.ip(), 0)).unwrap(), server)
}

#[test]
fn heartbeats_wait_in_the_handed_over_socket() {
    let socket = listening_at("127.0.0.1:0");
    let client = client_of(socket.local_addr().unwrap());
    for _ in 0..2 {
        client.forget_pings();
        client.heartbeat(&[0, 0]);
        let daemon = serve(&socket);
        assert_eq!(daemon.address, socket.local_addr().unwrap());
        client.pings(2);
        let lines = daemon.stop();
        assert!(lines.iter().any(|line| {
            line.contains("serving the UDP socket that the service manager handed over")
        }));
        assert!(!lines.iter().any(|line| line.contains("PORT have no effect")), "{lines:?}");
    }
}

#[test]
fn heartbeats_that_waited_longer_than_the_expiration_are_ignored() {
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
fn an_ipv6_socket_can_be_handed_over() {
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
fn pings_leave_from_the_address_a_queued_heartbeat_was_sent_to() {
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
fn a_larger_buffer_of_a_handed_over_socket_is_kept() {
    require!([Need::Root]);
    let socket = listening_at("127.0.0.1:0");
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    let daemon = serve(&socket);
    let listening = daemon.wait_for_line("listening");
    assert_eq!(field(&listening, "receive_buffer"), (16 << 20).to_string());
}

#[test]
fn host_and_port_have_no_effect_with_a_handed_over_socket() {
    let socket = listening_at("127.0.0.1:0");
    for (name, value) in [("PORT", "1"), ("HOST", "127.0.0.2"), ("HOST", "nowhere.invalid")] {
        let mut command = handed_over(vec![socket.try_clone().unwrap().into()]);
        let daemon = Daemon::start_command(command.env(name, value));
        daemon.wait_for_line("so HOST and PORT have no effect");
        assert_eq!(daemon.address, socket.local_addr().unwrap());
    }
}

#[test]
fn anything_but_one_udp_socket_is_an_error() {
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
fn an_unbound_connected_or_ipv6_only_socket_is_an_error() {
    require!([Need::Ipv6]);
    let new = |domain| socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
    let unbound = new(socket2::Domain::IPV4);
    let only_v6 = new(socket2::Domain::IPV6);
    only_v6.set_only_v6(true).unwrap();
    only_v6.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let connected = listening_at("127.0.0.1:0");
    connected.connect("127.0.0.1:9").unwrap();
    for (wrong, complaint) in [
        (unbound, "the socket is not bound to a port"),
        (only_v6, "but does not accept IPv4"),
        (connected.into(), "the socket is connected to 127.0.0.1:9"),
    ] {
        let (status, stderr) = outcome_of(vec![wrong.into()]);
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains(complaint), "{stderr}");
    }
}

#[test]
fn sockets_for_another_process_are_ignored() {
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
fn systemd_hands_over_its_socket() {
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
