//! Disks that fail, hang, or are shared by several daemons; and clocks of another time namespace.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use wakeupd::snapshot::Snapshot;

use crate::deny_file::DenyFile;
use crate::restart::{Home, crowd, restored};
use crate::support::daemon::{
    Client, Daemon, PROGRAM, count, field, send_signal, wait_until, wakeupd, with_mount,
};
use crate::support::needs::{Need, OWN_MOUNT};
use crate::support::web;

/// A disk that seems slow or broken to one daemon.
struct Disk {
    library: PathBuf,
    files: String,
    seconds: u32,
    error: i32,
}

/// Longer than any test waits.
const FOREVER: u32 = 3600;

impl Disk {
    const NEEDS: [Need; 1] = [Need::Program("cc")];

    /// Every access to these files takes this many seconds, and then fails with this error unless it is 0.
    fn new(files: &[&Path], seconds: u32, error: i32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let name = format!("disk-{}-{number}.so", std::process::id());
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/disks.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().unwrap().success());
        let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        Self { library, files: files.join(":"), seconds, error }
    }

    fn start(&self, home: &Home, variables: &[(&str, &str)]) -> Daemon {
        let (seconds, error) = (self.seconds.to_string(), self.error.to_string());
        let own = [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("DISK_FILES", &self.files),
            ("DISK_SECONDS", &seconds),
            ("DISK_ERROR", &error),
            ("HTTP_ADDR", "127.0.0.1:0"),
        ];
        home.start(&[&own, variables].concat())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.library);
    }
}

fn findings(daemon: &Daemon) -> String {
    web::get(daemon.http(), "/status").json()["findings"].to_string()
}

#[test]
fn a_disk_that_never_answers_blocks_neither_serving_nor_stopping() {
    require!(Disk::NEEDS);
    let home = Home::new(110);
    let file = DenyFile::new("disks-1", "198.51.100.0/24\n");
    let disk = Disk::new(&[&home.snapshot(), Path::new(file.path())], FOREVER, 0);
    let daemon = disk.start(&home, &[("DENY_FILE", file.path())]);
    daemon.wait_for_line("ERROR The daemon cannot load DENY_FILE: the disk did not answer");
    daemon.wait_for_line(
        "WARN When the daemon started, it could not use the snapshot: the disk did not answer",
    );
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.pings(2);
    daemon.signal(Signal::SIGHUP);
    wait_until("/status reports both problems", || {
        let findings = findings(&daemon);
        ["snapshot_unused", "deny_file_stale", "critical"].iter().all(|id| findings.contains(id))
    });
    client.ping();
    let lines = daemon.stop();
    assert_eq!(count(&lines, "the final snapshot took longer than 2s"), 1, "{lines:#?}");
}

#[test]
fn a_start_that_waits_for_a_disk_ends_at_sigterm() {
    require!(Disk::NEEDS);
    let home = Home::new(119);
    let file = DenyFile::new("disks-2", "198.51.100.0/24\n");
    let cases = [(Path::new(file.path()), "disk"), (&home.snapshot(), "snapshot")];
    for (path, thread) in cases {
        let disk = Disk::new(&[path], FOREVER, 0);
        let mut command = wakeupd(&[("HTTP_ADDR", ""), ("DENY_FILE", file.path())]);
        command.envs(home.variables()).env("DISK_FILES", &disk.files);
        command.env("LD_PRELOAD", &disk.library).env("DISK_SECONDS", disk.seconds.to_string());
        command.env("DISK_ERROR", "0");
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the thread starts", || has_thread(child.id(), thread));
        send_signal(&child, Signal::SIGTERM);
        let ended = child.wait_with_output().unwrap();
        let log = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{log}");
        // The daemon did not wait for its own deadline.
        let next = if thread == "disk" { "starting" } else { "could not use the snapshot" };
        assert!(!log.contains(next), "{log}");
    }
}

fn has_thread(process: u32, name: &str) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let names = tasks.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
    names.flatten().any(|comm| comm.trim() == name)
}

#[test]
fn a_write_that_never_returns_blocks_neither_serving_nor_stopping() {
    require!(Disk::NEEDS);
    let home = Home::new(111);
    let daemon = Disk::new(&[&home.beside(".tmp")], FOREVER, 0).start(&home, &[]);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    wait_until("/status reports the problem", || {
        findings(&daemon).contains("is slow or does not answer")
    });
    client.forget_pings();
    client.pings(2);
    let lines = daemon.stop();
    assert_eq!(count(&lines, "the final snapshot took longer than 2s"), 1, "{lines:#?}");
}

#[test]
fn a_deny_file_that_answers_late_is_applied_once_read() {
    require!(Disk::NEEDS);
    let home = Home::new(112);
    let file = DenyFile::new("disks-3", "127.0.0.0/8\n");
    let disk = Disk::new(&[Path::new(file.path())], 12, 0);
    let daemon = disk.start(&home, &[("DENY_FILE", file.path())]);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    assert!(findings(&daemon).contains("denies none of the networks in DENY_FILE"));
    let line = daemon.wait_for_line("loaded DENY_FILE");
    assert_eq!((field(&line, "networks"), field(&line, "removed")), ("1", "1"));
    assert!(client.is_left_alone_for(Duration::from_millis(2_500)));
    wait_until("/status no longer reports the problem", || {
        !findings(&daemon).contains("deny_file_stale")
    });
    // A slow reload is reported, and applied in the end.
    file.write("198.51.100.0/24\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("WARN The daemon cannot reload DENY_FILE");
    daemon.wait_for_lines("loaded DENY_FILE", 2);
    client.heartbeat(&[]);
    client.ping();
    daemon.stop();
}

#[test]
fn a_snapshot_that_cannot_be_read_is_put_aside() {
    require!(Disk::NEEDS);
    let home = Home::new(113);
    let daemon = home.start(&[]);
    let _clients = crowd(&daemon, 3);
    daemon.stop();
    let whole = fs::read(home.snapshot()).unwrap();
    let disk = Disk::new(&[&home.snapshot()], 0, Errno::EIO as i32);
    let daemon = disk.start(&home, &[]);
    let line = daemon.wait_for_line("could not use the snapshot");
    assert!(line.contains("the file cannot be read (Input/output error"), "{line}");
    assert_eq!(fs::read(home.beside(".bad")).unwrap(), whole);
    wait_until("/status reports the problem", || findings(&daemon).contains("snapshot_unused"));
    daemon.stop();

    fs::remove_file(home.snapshot()).unwrap();
    symlink(home.snapshot(), home.snapshot()).unwrap();
    let daemon = home.start(&[]);
    daemon.wait_for_line("the file cannot be read (Too many levels of symbolic links");
    assert!(fs::symlink_metadata(home.beside(".bad")).unwrap().is_symlink());
    daemon.stop();
    assert_eq!(home.read().map(|snapshot| snapshot.len()), Some(0));
}

#[test]
fn a_snapshot_that_cannot_be_put_aside_is_not_overwritten() {
    let home = Home::new(114);
    fs::write(home.snapshot(), "something else").unwrap();
    // A folder cannot be replaced by a file.
    fs::create_dir(home.beside(".bad")).unwrap();
    let daemon = home.start(&[]);
    daemon.wait_for_line("not yet renamed");
    daemon.wait_for_line("cannot write the snapshot");
    assert_eq!(fs::read(home.snapshot()).unwrap(), b"something else");
    fs::remove_dir(home.beside(".bad")).unwrap();
    daemon.wait_for_line("the daemon can write the snapshot again");
    assert_eq!(fs::read(home.beside(".bad")).unwrap(), b"something else");
    daemon.stop();
    assert!(home.read().is_some());
}

#[test]
fn the_second_daemon_with_a_snapshot_does_not_write_it() {
    let home = Home::new(115);
    let first = home.start(&[]);
    let clients = crowd(&first, 3);
    home.wait_for_snapshot(3);
    let second = home.start(&[("PORT", "27562"), ("HTTP_ADDR", "127.0.0.1:0")]);
    second.wait_for_line("another wakeupd uses this snapshot");
    let theirs = crowd(&second, 1);
    wait_until("/status suggests the remedy", || {
        findings(&second).contains("give each daemon its own SNAPSHOT_PATH")
    });
    first.stop();
    theirs[0].forget_pings();
    theirs[0].ping();
    second.stop();
    assert!(!home.beside(".bad").exists());
    let first = home.start(&[]);
    assert_eq!(restored(&first), ["3", "0", "0"]);
    clients.iter().for_each(Client::forget_pings);
    clients.iter().for_each(Client::ping);
}

#[test]
fn a_successor_waits_for_the_last_snapshot() {
    let home = Home::new(116);
    let daemon = home.start(&[]);
    let _clients = crowd(&daemon, 3);
    daemon.stop();
    let lock = File::open(home.beside(".lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .expect("a stopped daemon releases the lock");
    let ending = thread::spawn(move || {
        thread::sleep(Duration::from_secs(1));
        drop(lock);
    });
    let daemon = home.start(&[]);
    ending.join().unwrap();
    assert_eq!(restored(&daemon), ["3", "0", "0"]);
}

#[test]
fn a_snapshot_that_is_a_mount_point_is_reported_with_the_remedy() {
    require!(OWN_MOUNT);
    let home = Home::new(117);
    fs::write(home.snapshot(), "").unwrap();
    let mut command = with_mount(&format!("--bind '{0}' '{0}'", home.snapshot().display()));
    command.envs(home.variables());
    let daemon =
        Daemon::start_command(command.env("HTTP_ADDR", "127.0.0.1:0").env("LOG_LEVEL", "INFO"));
    let remedy = "mount the folder of SNAPSHOT_PATH instead of the file";
    let line = daemon.wait_for_line("cannot write the snapshot");
    assert!(line.contains(remedy), "{line}");
    wait_until("/status reports the problem", || findings(&daemon).contains(remedy));
    daemon.stop();
}

#[test]
fn the_age_of_a_snapshot_is_right_in_another_time_namespace() {
    require!([Need::Root, Need::Program("unshare")]);
    let home = Home::new(118);
    let start = |offset: i64| {
        let mut command = Command::new("unshare");
        command.args(["--fork", "--kill-child", "--time", "--boottime", &offset.to_string()]);
        command.arg(PROGRAM).env_clear().envs(home.variables()).env("HTTP_ADDR", "");
        let path = std::env::var_os("PATH").unwrap();
        let mut daemon = Daemon::start_command(command.env("PATH", path));
        daemon.descend();
        daemon
    };
    let daemon = start(0);
    let clients = crowd(&daemon, 3);
    daemon.stop();
    let taken = |snapshot: &Snapshot| snapshot.header().taken.now;
    let first = taken(&home.read().unwrap());
    for offset in [86_400, 7, 0] {
        let daemon = start(offset);
        assert_eq!(restored(&daemon), ["3", "0", "0"]);
        let age = field(&daemon.wait_for_line(" restored "), "age_seconds").parse::<f64>();
        assert!((0.0..60.0).contains(&age.unwrap()));
        clients.iter().for_each(Client::forget_pings);
        clients.iter().for_each(Client::ping);
        daemon.stop();
        let later = taken(&home.read().unwrap());
        assert!(offset < 86_400 || later.since(first) > Duration::from_secs(80_000));
    }
}
