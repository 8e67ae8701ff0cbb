//! Two private network namespaces, connected by a pair of virtual Ethernet devices.
//!
//! The namespaces have no names and live only as long as the processes in them, so the kernel removes them
//! however the bench ends. The crowd lives in the bench's own namespace, and the daemon runs in the other one.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

/// The time limit for the wire to come up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Locally administered MAC addresses.
const CROWD_MAC: &str = "02:00:00:00:00:02";
const DAEMON_MAC: &str = "02:00:00:00:00:01";

/// A wire between two network namespaces.
#[derive(Debug)]
pub(crate) struct Wire {
    near: File,
    far: File,
    pub(crate) family: Family,
}

/// The address family of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// The address of the first client. The addresses of the other clients follow it. They are in the
    /// daemon's `LOCAL_NETS`, where `MAX_CLIENTS_PER_ADDRESS` does not apply.
    pub(crate) fn first_client(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 1, 0, 0).into(),
            Self::Ipv6 => Ipv6Addr::new(0xfd00, 0, 1, 0, 0, 0, 0, 0).into(),
        }
    }

    /// The daemon's address.
    pub(crate) fn server(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(192, 0, 2, 1).into(),
            Self::Ipv6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The address of the crowd's end of the wire.
    fn gateway(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(192, 0, 2, 2).into(),
            Self::Ipv6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
        }
    }

    /// The address that the daemon binds: the wildcard address, as by default.
    pub(crate) fn any(self) -> &'static str {
        match self {
            Self::Ipv4 => "0.0.0.0",
            Self::Ipv6 => "::",
        }
    }
}

impl Wire {
    /// Moves this thread to a new network namespace, and connects this namespace to a second one. Call this
    /// before the process starts other threads, because they would stay in the old namespace.
    pub(crate) fn put_up(family: Family) -> io::Result<Self> {
        let far = enter_new_network()?;
        let near = enter_new_network()?;
        let far_path = format!("/proc/{}/fd/{}", std::process::id(), far.as_raw_fd());
        let wire = Self { near, far, family };
        run(&format!(
            "ip link add crowd address {CROWD_MAC} type veth peer name daemon address {DAEMON_MAC}"
        ))?;
        run(&format!("ip link set daemon netns {far_path}"))?;
        let (crowd, server) = (family.gateway(), family.server());
        let (network, prefix, options) = match family {
            Family::Ipv4 => ("10.0.0.0/8", 30, ""),
            Family::Ipv6 => ("fd00:0:1::/48", 64, "nodad"),
        };
        if matches!(family, Family::Ipv6) {
            // Otherwise the kernel refuses source addresses that no interface has.
            fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1")?;
        }
        // Static neighbour entries: no ARP or neighbour discovery, and no packets lost while one is pending.
        let neighbour = |ip, mac, device| {
            run(&format!("ip neighbour replace {ip} lladdr {mac} dev {device} nud permanent"))
        };
        run(&format!("ip address add {crowd}/{prefix} dev crowd {options}"))?;
        run("ip link set crowd up")?;
        run(&format!("ip route add local {network} dev lo"))?;
        neighbour(server, DAEMON_MAC, "crowd")?;
        wire.far(|| {
            run(&format!("ip address add {server}/{prefix} dev daemon {options}"))?;
            run("ip link set daemon up")?;
            run(&format!("ip route add {network} via {crowd}"))?;
            neighbour(crowd, CROWD_MAC, "daemon")?;
            wait_until_up("daemon")
        })?;
        wait_until_up("crowd")?;
        run("nft add table netdev crowd")?;
        run(
            "nft add chain netdev crowd ingress { type filter hook ingress device crowd priority 0 ; }",
        )?;
        Ok(wire)
    }

    /// Runs `action` in the daemon's namespace. Sockets and processes that it creates stay there.
    pub(crate) fn far<T>(&self, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        setns(&self.far, CloneFlags::CLONE_NEWNET)?;
        let done = action();
        setns(&self.near, CloneFlags::CLONE_NEWNET)?;
        done
    }

    /// Makes the kernel drop and count the datagrams for this port, before they reach the network stack.
    /// Datagrams for other ports pass.
    pub(crate) fn drop_at(port: u16) -> io::Result<()> {
        run("nft flush chain netdev crowd ingress")?;
        run(&format!("nft add rule netdev crowd ingress udp dport {port} counter drop"))
    }

    /// The number of datagrams dropped so far.
    pub(crate) fn dropped() -> io::Result<u64> {
        let rules = output("nft list chain netdev crowd ingress")?;
        let mut words = rules.split_ascii_whitespace().skip_while(|word| *word != "packets");
        let count = words.nth(1).and_then(|count| count.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("nft printed no counter: {rules}")))
    }
}

fn enter_new_network() -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| match error {
        Errno::EPERM => {
            io::Error::other("--wire creates network namespaces, so run wakeupd-bench as root")
        }
        error => error.into(),
    })?;
    run("ip link set lo up")?;
    File::open("/proc/thread-self/ns/net")
}

/// Waits until the kernel reports the device as up. Packets sent before that are lost.
fn wait_until_up(device: &str) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !output(&format!("ip link show {device}"))?.contains("state UP") {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("the network device {device} did not come up")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn run(command: &str) -> io::Result<()> {
    output(command).map(drop)
}

/// Runs a command line. Arguments must not contain spaces.
fn output(command: &str) -> io::Result<String> {
    let mut words = command.split_ascii_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output().map_err(|error| {
        io::Error::other(format!(
            "cannot run `{program}` ({error}). --wire needs the packages iproute2 and nftables."
        ))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("`{command}` failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
