//! The kernel refuses socket options, as old kernels, gVisor, WSL1 and seccomp filters do. `refuse.c` stands
//! in for such a kernel.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use nix::errno::Errno;
use nix::libc;

use crate::support::daemon::{Client, Daemon, PROGRAM, SERVING, field};
use crate::support::needs::Need;
use crate::support::scene::undisturbed;

/// The number of daemons that run in parallel.
const AT_A_TIME: usize = 6;

const REFUSALS: [Errno; 3] = [Errno::ENOPROTOOPT, Errno::EOPNOTSUPP, Errno::EPERM];

/// A setsockopt or getsockopt call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// `set` or `get`.
    kind: &'static str,
    level: i32,
    option: i32,
    /// As strace(1) prints it.
    name: &'static str,
}

const fn set(level: i32, option: i32, name: &'static str) -> Call {
    Call { kind: "set", level, option, name }
}

const fn get(level: i32, option: i32, name: &'static str) -> Call {
    Call { kind: "get", level, option, name }
}

const SET_RCVBUF: Call = set(libc::SOL_SOCKET, libc::SO_RCVBUF, "SO_RCVBUF");
pub const SET_SNDBUF: Call = set(libc::SOL_SOCKET, libc::SO_SNDBUF, "SO_SNDBUF");
const FORCE_RCVBUF: Call = set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, "SO_RCVBUFFORCE");
pub const FORCE_SNDBUF: Call = set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, "SO_SNDBUFFORCE");
const GET_RCVBUF: Call = get(libc::SOL_SOCKET, libc::SO_RCVBUF, "SO_RCVBUF");
const GET_SNDBUF: Call = get(libc::SOL_SOCKET, libc::SO_SNDBUF, "SO_SNDBUF");
const REUSEADDR: Call = set(libc::SOL_SOCKET, libc::SO_REUSEADDR, "SO_REUSEADDR");
const TIMESTAMPNS: Call = set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, "SO_TIMESTAMPNS");
const MEMINFO: Call = get(libc::SOL_SOCKET, libc::SO_MEMINFO, "SO_MEMINFO");
const PKTINFO: Call = set(libc::IPPROTO_IP, libc::IP_PKTINFO, "IP_PKTINFO");
const RECVERR: Call = set(libc::IPPROTO_IP, libc::IP_RECVERR, "IP_RECVERR");
const MTU_DISCOVER: Call = set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, "IP_MTU_DISCOVER");
const PKTINFO_V6: Call = set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO");
const RECVERR_V6: Call = set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, "IPV6_RECVERR");
const V6ONLY: Call = set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, "IPV6_V6ONLY");
/// Options that a sending socket inherits from the receiving one. These tests do not depend on them.
const INHERITED: [Call; 10] = [
    get(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, "SO_BINDTODEVICE"),
    get(libc::SOL_SOCKET, libc::SO_MARK, "SO_MARK"),
    get(libc::SOL_SOCKET, libc::SO_PRIORITY, "SO_PRIORITY"),
    get(libc::IPPROTO_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT"),
    get(libc::IPPROTO_IP, libc::IP_TTL, "IP_TTL"),
    get(libc::IPPROTO_IP, libc::IP_TOS, "IP_TOS"),
    get(libc::IPPROTO_IP, libc::IP_FREEBIND, "IP_FREEBIND"),
    set(libc::IPPROTO_IP, libc::IP_FREEBIND, "IP_FREEBIND"),
    get(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS"),
    get(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, "IPV6_TCLASS"),
];
const GET_V6ONLY: Call = get(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, "IPV6_V6ONLY");

const ALL: [Call; 16] = [
    SET_RCVBUF,
    SET_SNDBUF,
    FORCE_RCVBUF,
    FORCE_SNDBUF,
    GET_RCVBUF,
    GET_SNDBUF,
    REUSEADDR,
    TIMESTAMPNS,
    MEMINFO,
    PKTINFO,
    RECVERR,
    MTU_DISCOVER,
    PKTINFO_V6,
    RECVERR_V6,
    V6ONLY,
    GET_V6ONLY,
];

/// The bind address of a daemon, the calls that fail, and the options that it reports as missing. Without
/// `SO_REUSEADDR` there are no sockets that would need `IP_MTU_DISCOVER`.
type Case = (&'static str, &'static [Call], &'static [&'static str]);

const CASES: [Case; 23] = [
    ("0.0.0.0", &INHERITED, &[]),
    ("::", &INHERITED, &[]),
    ("0.0.0.0", &[FORCE_RCVBUF], &[]),
    ("0.0.0.0", &[FORCE_SNDBUF], &[]),
    ("0.0.0.0", &[FORCE_RCVBUF, SET_RCVBUF], &["SO_RCVBUF"]),
    ("0.0.0.0", &[FORCE_SNDBUF, SET_SNDBUF], &["SO_SNDBUF"]),
    ("0.0.0.0", &[GET_RCVBUF], &["SO_RCVBUF"]),
    ("0.0.0.0", &[GET_SNDBUF], &["SO_SNDBUF"]),
    ("0.0.0.0", &[REUSEADDR], &["SO_REUSEADDR"]),
    ("127.0.0.1", &[REUSEADDR], &["SO_REUSEADDR"]),
    ("::", &[REUSEADDR], &["SO_REUSEADDR"]),
    ("0.0.0.0", &[TIMESTAMPNS], &["SO_TIMESTAMPNS"]),
    ("0.0.0.0", &[MEMINFO], &["SO_MEMINFO"]),
    ("0.0.0.0", &[PKTINFO], &["IP_PKTINFO"]),
    // The daemon does not set the option on a single address.
    ("127.0.0.1", &[PKTINFO], &[]),
    ("0.0.0.0", &[RECVERR], &["IP_RECVERR"]),
    ("0.0.0.0", &[MTU_DISCOVER], &["IP_MTU_DISCOVER"]),
    ("::", &[MTU_DISCOVER], &["IP_MTU_DISCOVER"]),
    ("::", &[PKTINFO_V6], &["IPV6_RECVPKTINFO"]),
    ("::", &[RECVERR, RECVERR_V6], &["IPV6_RECVERR", "IP_RECVERR"]),
    ("::", &[V6ONLY], &["IPV6_V6ONLY"]),
    (
        "0.0.0.0",
        &ALL,
        &[
            "IP_PKTINFO",
            "IP_RECVERR",
            "SO_MEMINFO",
            "SO_RCVBUF",
            "SO_REUSEADDR",
            "SO_SNDBUF",
            "SO_TIMESTAMPNS",
        ],
    ),
    ("::", &ALL, &EVERYTHING_V6),
];

const EVERYTHING_V6: [&str; 9] = [
    "IPV6_RECVERR",
    "IPV6_RECVPKTINFO",
    "IPV6_V6ONLY",
    "IP_RECVERR",
    "SO_MEMINFO",
    "SO_RCVBUF",
    "SO_REUSEADDR",
    "SO_SNDBUF",
    "SO_TIMESTAMPNS",
];

/// The program that refuses the options.
pub struct Refuser(PathBuf);

impl Refuser {
    pub fn new(test: &str) -> Self {
        let name = format!("refuse-{test}-{}", std::process::id());
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/refuse.c");
        let mut compiler = Command::new("cc");
        compiler.arg("-o").arg(&program).arg(source);
        assert!(compiler.status().unwrap().success());
        Self(program)
    }

    /// The words of a command that runs the daemon and makes these calls fail with this error.
    pub fn words(&self, error: Errno, calls: &[Call]) -> Vec<String> {
        let mut words = vec![self.0.to_str().unwrap().to_owned(), (error as i32).to_string()];
        let calls = calls.iter();
        words.extend(
            calls.map(|Call { kind, level, option, .. }| format!("{kind}:{level}:{option}")),
        );
        words.extend(["--", PROGRAM].map(str::to_owned));
        words
    }
}

impl Drop for Refuser {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The options that a daemon reports as missing, each with its log line. Checks that each line states the
/// consequences.
fn told(daemon: &Daemon) -> Vec<(String, String)> {
    let lines = daemon.lines();
    let lines = lines.iter().filter(|line| line.contains("The kernel refuses the socket option"));
    let mut told: Vec<_> = lines
        .map(|line| {
            let cost = line.split("The cost: ").nth(1).unwrap_or_default();
            assert!(cost.contains(' '), "{line}");
            (field(line, "option").trim_matches('"').to_owned(), line.clone())
        })
        .collect();
    told.sort();
    told
}

/// Checks that the daemon pings a client of each family that it serves.
fn is_served(daemon: &Daemon) {
    let families: &[&str] =
        if daemon.address.is_ipv6() { &["127.0.0.1", "::1"] } else { &["127.0.0.1"] };
    for ip in families {
        let server = SocketAddr::new(ip.parse().unwrap(), daemon.address.port());
        let client = Client::new(UdpSocket::bind((server.ip(), 0)).unwrap(), server);
        client.heartbeat(&[]);
        client.ping();
    }
}

/// Checks each case with each error, several in parallel.
fn for_each<T: Sync>(cases: &[T], check: impl Fn(&T, Errno) + Sync) {
    let _undisturbed = undisturbed();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Relaxed));
                let pairs = numbers.map_while(|number| {
                    let case = cases.get(number / REFUSALS.len())?;
                    Some((case, REFUSALS[number % REFUSALS.len()]))
                });
                pairs.for_each(|(case, error)| check(case, error));
            });
        }
    });
}

#[test]
fn every_refused_option_is_logged_once_and_the_daemon_still_serves() {
    require!([Need::Program("cc"), Need::Ipv6]);
    let refuser = Refuser::new("bound");
    for_each(&CASES, |(host, calls, expected), error| {
        let words = refuser.words(error, calls);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(SERVING).env("HOST", host);
        let daemon = Daemon::start_command(&mut command);
        is_served(&daemon);
        let told = told(&daemon);
        let options: Vec<_> = told.iter().map(|(option, _)| option.as_str()).collect();
        assert_eq!(options, *expected, "{host} {calls:?} {error}: {told:#?}");
        let reason = format!("(os error {})", error as i32);
        assert!(told.iter().all(|(_, line)| line.contains(&reason)), "{error}: {told:#?}");
        daemon.stop();
    });
}

#[test]
fn a_handed_over_socket_is_served_without_the_options() {
    require!([Need::Program("cc"), Need::Ipv6]);
    let refuser = Refuser::new("handed-over");
    let cases: [Case; 2] = [("[::]:0", &ALL, &EVERYTHING_V6), ("[::]:0", &[], &[])];
    for_each(&cases, |(address, calls, expected), error| {
        let socket = UdpSocket::bind(address).unwrap();
        let become_it = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", become_it, "sh"]).args(refuser.words(error, calls));
        command.env_clear().envs(SERVING).stdin(std::os::fd::OwnedFd::from(socket));
        let daemon = Daemon::start_command(&mut command);
        is_served(&daemon);
        let options: Vec<_> = told(&daemon).into_iter().map(|(option, _)| option).collect();
        assert_eq!(options, *expected, "{error}");
        daemon.stop();
    });
}

#[test]
fn http_is_served_without_the_option() {
    require!([Need::Program("cc")]);
    let refuser = Refuser::new("http");
    for_each(&[REUSEADDR], |call, error| {
        let words = refuser.words(error, &[*call]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(SERVING).env("HTTP_ADDR", "127.0.0.1:0");
        let daemon = Daemon::start_command(&mut command);
        assert_eq!(crate::support::web::get(daemon.http(), "/healthz").status, 200);
        daemon.wait_for_line("The cost: after a restart, the HTTP port can be unavailable");
        is_served(&daemon);
        daemon.stop();
    });
}

#[test]
fn the_daemon_uses_no_socket_option_outside_the_table() {
    require!([Need::Program("strace"), Need::Ipv6]);
    let known: BTreeSet<_> =
        ALL.iter().chain(&INHERITED).map(|call| (call.kind, call.name.to_owned())).collect();
    for host in ["0.0.0.0", "::"] {
        let trace = format!("options-{}", std::process::id());
        let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join(trace);
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=setsockopt,getsockopt", "-o"]).arg(&trace).arg(PROGRAM);
        command.env_clear().envs(SERVING).envs([("HOST", host), ("HTTP_ADDR", "127.0.0.1:0")]);
        let mut daemon = Daemon::start_command(&mut command);
        // Signal the daemon itself: strace would leave it running.
        daemon.descend();
        assert_eq!(crate::support::web::get(daemon.http(), "/healthz").status, 200);
        is_served(&daemon);
        daemon.stop();
        let calls = fs::read_to_string(&trace).unwrap();
        let asked: BTreeSet<_> = calls.lines().filter_map(call).collect();
        fs::remove_file(trace).unwrap();
        assert!(asked.len() > 8, "{calls}");
        assert_eq!(asked.difference(&known).collect::<Vec<_>>(), <[&_; 0]>::default(), "{calls}");
    }
}

/// The kind of a call and its option, in a line of strace(1).
fn call(line: &str) -> Option<(&'static str, String)> {
    let (call, arguments) = line.split_once("sockopt(")?;
    let kind = if call.ends_with("set") { "set" } else { "get" };
    let option = arguments.split(", ").nth(2)?;
    Some((kind, option.trim_end_matches("_OLD").to_owned()))
}
