//! Limits on memory, and whether `MAX_CLIENTS` fits within them.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use std::{fs, thread};

use crate::crowd::Crowd;
use crate::daemon::{Client, Daemon, SERVING, field, output};
use crate::doctor::after;
use crate::needs::{self, Need};

/// A control group with a limit.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A control group with a memory limit in bytes.
    pub fn with_memory(bytes: u64) -> Option<Self> {
        Self::new("memory", "memory.max", "memory.limit_in_bytes", bytes)
    }

    /// A control group with a limit on threads.
    pub fn with_threads(threads: u64) -> Option<Self> {
        Self::new("pids", "pids.max", "pids.max", threads)
    }

    /// Creates a group below that of this process, or below its nearest ancestor that supports the limit.
    fn new(controller: &str, file: &str, old_file: &str, limit: u64) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wakeupd-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (root, file) = match fields.next()? {
                "" => (PathBuf::from("/sys/fs/cgroup"), file),
                name if name == controller => (Path::new("/sys/fs/cgroup").join(name), old_file),
                _ => return None,
            };
            let own = root.join(fields.next()?.trim_start_matches('/'));
            own.ancestors().take_while(|folder| folder.starts_with(&root)).find_map(|folder| {
                let group = folder.join(&name);
                fs::create_dir(&group).ok()?;
                let group = Self(group);
                // The file exists only if the folder is a control group.
                let mut file = OpenOptions::new().write(true).open(group.0.join(file)).ok()?;
                file.write_all(limit.to_string().as_bytes()).ok()?;
                Some(group)
            })
        })
    }

    /// A shell command that moves the shell into the group.
    pub fn preparation(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A process of the group may still be exiting.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The program with this `MAX_CLIENTS`, after some preparation in a shell.
fn program(preparation: &str, max_clients: &str) -> Command {
    let mut command = after(preparation, &SERVING);
    command.envs([
        ("MAX_CLIENTS", max_clients),
        ("LOG_LEVEL", "INFO"),
        ("HTTP_ADDR", "127.0.0.1:0"),
    ]);
    command
}

/// The error message of a daemon that does not start because the memory limit is too low.
fn complaint(preparation: &str, max_clients: &str) -> String {
    let (status, _, stderr) = output(&mut program(preparation, max_clients));
    // This exit code keeps a service manager from retrying.
    assert_eq!(status.code(), Some(78), "{stderr}");
    let line = stderr.lines().find(|line| line.contains("ERROR")).unwrap();
    assert!(line.contains(&format!("MAX_CLIENTS={max_clients} needs up to ")), "{line}");
    line.to_owned()
}

/// The limit that the message asks for, in megabytes.
fn enough(complaint: &str) -> u64 {
    let (_, figure) = complaint.split_once("Raise the limit to ").unwrap();
    figure.split_once(" MB (").unwrap().0.parse().unwrap()
}

/// Checks that a daemon serves this many clients.
fn serve(daemon: &Daemon, clients: u32) {
    let SocketAddr::V4(server) = daemon.address else { panic!("the daemon is bound to 127.0.0.1") };
    let addresses: Vec<_> = (0..clients).map(|n| Ipv4Addr::from_bits(0x7F10_0000 + n)).collect();
    Crowd::new(server).register(daemon.http(), &addresses);
}

#[test]
fn a_limit_of_the_process_that_is_too_small_is_told_at_the_start() {
    for (option, name) in [("v", "address space (`ulimit -v`)"), ("d", "data (`ulimit -d`)")] {
        let limited = |megabytes: u64| format!("ulimit -{option} {}", megabytes * 1_000_000 / 1024);
        let most = "3000000";
        let told = complaint(&limited(300), most);
        let (status, _, stderr) = output(program(&limited(300), most).arg("--check-config"));
        assert_eq!(status.code(), Some(78), "{stderr}");
        assert!(stderr.contains("MAX_CLIENTS=3000000 needs up to "), "{stderr}");
        assert!(told.contains(name) && told.contains("unlimited"), "{told}");
        let enough = enough(&told);
        complaint(&limited(enough - 1), most);
        let daemon = Daemon::start_command(&mut program(&limited(enough), most));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        client.ping();
        daemon.stop();
    }
}

#[test]
fn a_limit_of_the_control_group_that_is_too_small_is_told_at_the_start() {
    let name = "a_limit_of_the_control_group_that_is_too_small_is_told_at_the_start";
    if !needs::met(name, &[Need::Root, Need::ControlGroup]) {
        return;
    }
    let group = ControlGroup::with_memory(36_000_000).unwrap();
    let told = complaint(&group.preparation(), "30000");
    assert!(
        told.contains("the limit of the control group") && told.contains("MemoryMax="),
        "{told}"
    );

    // With the limit that it asks for, the daemon serves them all.
    let larger = ControlGroup::with_memory(enough(&told) * 1_000_000).unwrap();
    let daemon = Daemon::start_command(&mut program(&larger.preparation(), "30000"));
    serve(&daemon, 30_000);
    daemon.stop();

    let (_, fewer) = told.split_once("set MAX_CLIENTS=").unwrap();
    let (fewer, _) = fewer.split_once(' ').unwrap();
    let daemon = Daemon::start_command(&mut program(&group.preparation(), fewer));
    serve(&daemon, fewer.parse().unwrap());
    let lines = daemon.stop();
    let starting = lines.iter().find(|line| line.contains(" starting ")).unwrap();
    assert_eq!(field(starting, "max_clients"), fewer);
}
