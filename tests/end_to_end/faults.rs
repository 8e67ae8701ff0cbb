//! System calls of a running daemon fail for a while. strace(1) injects the errors.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::daemon::{Client, Daemon, count, send_signal, wait_until};
use crate::support::needs::Need;
use crate::support::scene::alone;
use crate::support::web::{get, metric};
use crate::support::witness::Witness;

/// strace needs root to attach to a process that it did not start.
const NEEDS: [Need; 2] = [Need::Root, Need::Program("strace")];

/// The length of a fault.
const WHILE: Duration = Duration::from_secs(4);

/// Far more calls a second than a daemon makes unless it spins.
const MANY_CALLS: u64 = 500;

/// A running strace, killed on drop.
struct Fault {
    strace: Child,
    trace: PathBuf,
}

impl Fault {
    /// Makes `call` fail with `error`. A suffix of `error` may select some calls by number, counted per
    /// thread.
    fn new(daemon: &Daemon, call: &str, error: &str) -> Self {
        let name = format!("fault-{}", daemon.pid());
        let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let strace = Command::new("strace")
            .args(["-f", "-o", trace.to_str().unwrap(), "-p", &daemon.pid().to_string()])
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error={error}")])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("every thread is traced", || is_traced(daemon.pid()));
        Self { strace, trace }
    }

    /// The number of failed calls.
    fn failures(&self) -> u64 {
        fs::read_to_string(&self.trace).unwrap().matches("(INJECTED)").count() as u64
    }

    fn wait_for_one(&self) {
        wait_until("a call fails", || self.failures() > 0);
    }

    /// Ends the fault and returns the number of failed calls.
    fn end(mut self) -> u64 {
        send_signal(&self.strace, Signal::SIGTERM);
        self.strace.wait().unwrap();
        self.failures()
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
        let _ = fs::remove_file(&self.trace);
    }
}

/// Whether all live threads of the process are traced.
fn is_traced(process: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.map(|thread| thread.unwrap().path().join("status")).all(|status| {
        let status = fs::read_to_string(status).unwrap_or_default();
        status.contains("State:\tZ") || !status.contains("TracerPid:\t0")
    })
}

/// A daemon, and a witness of it.
fn serve() -> (Daemon, Witness) {
    let daemon = Daemon::start(&[("LOG_LEVEL", "INFO"), ("HTTP_ADDR", "127.0.0.1:0")]);
    let witness = Witness::new(UdpSocket::bind("127.0.0.1:0").unwrap(), daemon.address);
    (daemon, witness)
}

/// Registers a client that closes its port at once. The kernel answers its pings with port unreachable.
fn register_closed_port(daemon: &Daemon) {
    Client::of(daemon).heartbeat(&[]);
}

/// Checks all cases in parallel.
fn for_each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    let _alone = alone();
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

#[test]
fn a_call_that_fails_once_costs_no_ping() {
    require!(NEEDS);
    // `failing` has more cases of sendmmsg, such as the retry when buffers are full. The daemon does not
    // retry after EPERM, because the firewall has dropped that ping.
    let cases = [
        ("recvmmsg", "EAGAIN"),
        ("recvmmsg", "EINTR"),
        ("recvmmsg", "ENETDOWN"),
        ("recvmmsg", "ENOBUFS"),
        ("recvmmsg", "ENOMEM"),
        ("recvmmsg", "EPERM"),
        ("recvmsg", "EINTR"),
        ("recvmsg", "ENOMEM"),
        ("sendmmsg", "EBADF"),
        ("sendmmsg", "EINTR"),
        ("sendmmsg", "ENETDOWN"),
        ("sendmmsg", "ENOMEM"),
        ("epoll_wait", "EINTR"),
        ("futex", "EINTR"),
    ];
    for_each(&cases, |(call, error)| {
        let (daemon, witness) = serve();
        let fault = Fault::new(&daemon, call, &format!("{error}:when=1"));
        register_closed_port(&daemon);
        fault.wait_for_one();
        witness.sees(4);
        fault.end();
        witness.missed_nothing(&daemon);
        let lines = daemon.stop();
        assert_eq!(count(&lines, "cannot send"), 0, "{call} {error}: {lines:#?}");
    });
}

/// The cost of calls that fail for a while.
#[derive(Clone, Copy, PartialEq)]
enum Costs {
    Nothing,
    /// No client can register during the fault.
    Arrivals,
    /// No client is pinged during the fault.
    Pings,
}

#[test]
fn calls_that_fail_for_a_while_cost_only_their_own_datagrams() {
    require!(NEEDS);
    let nothing = String::new;
    let receives = || "wakeupd_failed_receives_total".to_owned();
    let pings = |reason| format!("wakeupd_failed_pings_total{{reason=\"{reason}\"}}");
    let cases = [
        ("recvmmsg", "EAGAIN", Costs::Arrivals, nothing()),
        ("recvmmsg", "EINTR", Costs::Arrivals, receives()),
        ("recvmmsg", "ENETDOWN", Costs::Arrivals, receives()),
        ("recvmmsg", "ENOBUFS", Costs::Arrivals, receives()),
        ("recvmmsg", "ENOMEM", Costs::Arrivals, receives()),
        ("recvmmsg", "EPERM", Costs::Arrivals, receives()),
        ("recvmsg", "ENOMEM", Costs::Nothing, receives()),
        ("recvmsg", "EPERM", Costs::Nothing, receives()),
        ("sendmmsg", "EAGAIN", Costs::Pings, pings("would_block")),
        ("sendmmsg", "EINTR", Costs::Pings, pings("other")),
        ("sendmmsg", "ENETDOWN", Costs::Pings, pings("other")),
        ("sendmmsg", "ENOBUFS", Costs::Pings, pings("no_buffers")),
        ("sendmmsg", "ENOMEM", Costs::Pings, pings("other")),
        ("sendmmsg", "EPERM", Costs::Pings, pings("not_permitted")),
        // Signals interrupt some calls, but not all.
        ("epoll_wait", "EINTR:when=1..99+2", Costs::Nothing, nothing()),
        ("futex", "EINTR:when=1..9+2", Costs::Nothing, nothing()),
    ];
    for_each(&cases, |(call, error, costs, counted)| {
        let (daemon, witness) = serve();
        let (lines, cpu_time, begin) = (daemon.lines().len(), daemon.cpu_time(), Instant::now());
        let fault = Fault::new(&daemon, call, error);
        register_closed_port(&daemon);
        fault.wait_for_one();
        let newcomer = Client::of(&daemon);
        newcomer.heartbeat(&[]);
        if *costs == Costs::Nothing {
            newcomer.ping();
        }
        thread::sleep(WHILE);
        let failures = fault.end();
        let lines = daemon.lines().len() - lines;
        let cpu_time = daemon.cpu_time().saturating_sub(cpu_time);
        let time = begin.elapsed();

        if *costs == Costs::Pings {
            witness.comes_back(&daemon);
        }
        newcomer.pings(2);
        witness.missed_nothing(&daemon);
        if !counted.is_empty() {
            let count = metric(&get(daemon.http(), "/metrics").body, counted);
            assert!(count >= 2.0, "{call} {error}: {count}");
        }
        let told = format!("{call} {error}: {failures} failures, {lines} lines, {cpu_time:?}");
        assert!(failures < MANY_CALLS * time.as_secs(), "{told}");
        assert!(cpu_time < time / 2, "{told}");
        assert!(lines as u64 <= time.as_secs() + 2, "{told}: {:#?}", daemon.lines());
        daemon.stop();
    });
}

#[test]
fn a_process_with_a_broken_socket_exits() {
    require!(NEEDS);
    let cases = [
        (
            "recvmmsg",
            Some(1),
            "ERROR the daemon cannot receive any more and exits, because its UDP socket no longer works: Bad file descriptor",
        ),
        // One failed worker is enough: its clients would never be pinged again.
        (
            "sendmmsg",
            Some(1),
            "ERROR the daemon cannot send to some clients any more and exits, because a sending socket no longer works: Bad file descriptor",
        ),
        // The runtime panics on one of the threads.
        ("epoll_wait", None, "Bad file descriptor"),
    ];
    for_each(&cases, |(call, code, complaint)| {
        let (mut daemon, _witness) = serve();
        let _fault = Fault::new(&daemon, call, "EBADF");
        let status = daemon.wait();
        assert!(
            code.map_or(!status.success(), |code| status.code() == Some(code)),
            "{call}: {status}"
        );
        daemon.wait_for_line(complaint);
    });
}
