//! Limits on threads: a daemon gets all of its threads, or it does not start.

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::deny_file::DenyFile;
use crate::doctor::after;
use crate::support::control_group::ControlGroup;
use crate::support::daemon::{Client, PATIENCE, SERVING, send_signal};
use crate::support::needs::Need;

/// Far more threads than the daemon needs.
const ENOUGH: u64 = 40;

/// The outcome of a daemon's run.
struct Life {
    has_served: bool,
    status: ExitStatus,
    log: String,
}

/// Starts a daemon, stops it once it pings, and waits for it to exit.
fn live(command: &mut Command) -> Life {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = command.env("PORT", port.to_string()).stderr(Stdio::piped()).spawn().unwrap();
    let client = Client::new(
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        SocketAddr::from(([127, 0, 0, 1], port)),
    );
    let deadline = Instant::now() + PATIENCE;
    let mut has_served = false;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the daemon neither serves nor exits");
        client.heartbeat(&[]);
        if !client.is_left_alone_for(Duration::from_millis(200)) {
            has_served = true;
            send_signal(&child, Signal::SIGTERM);
            child.wait().unwrap();
        }
    }
    let mut log = String::new();
    let mut stderr: ChildStderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    Life { has_served, status: child.wait().unwrap(), log }
}

#[test]
fn with_too_few_threads_the_start_fails_with_the_reason() {
    require!([Need::Root, Need::ControlGroup]);
    let snapshot = std::env::temp_dir().join(format!("wakeupd-threads-{}", std::process::id()));
    let deny_file = DenyFile::new("threads-1", "198.51.100.0/24\n");
    let mut enough = None;
    for threads in 1..ENOUGH {
        let group = ControlGroup::with_threads(threads).unwrap();
        let mut command = after(&group.preparation(), &SERVING);
        command.envs([("WORKER_POOL_SIZE", "3"), ("HTTP_ADDR", "127.0.0.1:0")]);
        command.env("DENY_FILE", deny_file.path());
        let life = live(command.env("SNAPSHOT_PATH", &snapshot));
        let Life { has_served, status, log } = &life;
        assert_eq!(status.signal(), None, "{threads}: {log}");
        assert!(!log.contains("panicked"), "{threads}: {log}");
        if status.success() {
            assert!(has_served, "{threads}: {log}");
            enough = Some(threads);
            break;
        }
        assert_eq!(status.code(), Some(1), "{threads}: {log}");
        assert!(log.contains("cannot start the thread "), "{threads}: {log}");
        assert!(log.contains(&format!("control group limit: {threads},")), "{log}");
        assert!(log.contains("TasksMax=") && log.contains("--pids-limit"), "{log}");
    }
    let _ = std::fs::remove_file(&snapshot);
    // The main thread, three workers, and one thread each for signals, log, listener, HTTP endpoint,
    // snapshots and DENY_FILE.
    assert_eq!(enough, Some(1 + 3 + 6));
}
