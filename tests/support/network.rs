//! Network namespaces for tests. An idle process holds each one, and the kernel kills that process when the
//! test's thread ends, even after a panic. So no namespace is ever left behind.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::daemon::{Daemon, PROGRAM};
use super::needs::Need;

/// The needs of a test with namespaces.
pub const NEEDS: [Need; 4] =
    [Need::Root, Need::Program("ip"), Need::Program("nsenter"), Need::Program("setpriv")];

/// A virtual host: a network namespace of its own.
#[derive(Debug)]
pub struct Host(Child);

impl Host {
    pub fn new() -> Self {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut host = Self(child);
        // The empty line confirms that the process has left our namespace.
        std::io::Read::read_exact(host.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        // Without duplicate address detection, an address is usable at once instead of after a second.
        host.run(
            "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
             ip link set lo up",
        );
        host
    }

    /// The command to run a program on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), "--", program]);
        command
    }

    /// Starts a daemon on this host with these settings.
    pub fn serve(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(PROGRAM);
        command.env_clear().env("ENV_FILE", "none").envs([
            ("HOST", "::"),
            ("HTTP_ADDR", ""),
            ("LOG_LEVEL", "DEBUG"),
        ]);
        Daemon::start_command(command.envs(variables.iter().copied()))
    }

    /// Runs commands, one a line.
    pub fn run(&self, commands: &str) {
        for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let status = self.command("sh").args(["-c", line]).status().unwrap();
            assert!(status.success(), "{line}");
        }
    }

    /// Runs `action` on this host. The sockets that it opens belong to the host.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        thread::scope(|scope| {
            let there = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            there.join().unwrap()
        })
    }

    /// Connects two hosts with a wire: `name` on this one, `peer_name` on the other.
    pub fn wire(&self, name: &str, peer: &Self, peer_name: &str) {
        let peer_id = peer.0.id();
        self.run(&format!(
            "ip link add {name} type veth peer name {peer_name} netns {peer_id}
             ip link set {name} up"
        ));
        peer.run(&format!("ip link set {peer_name} up"));
        // The addresses of a link are unusable until it is up.
        thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
