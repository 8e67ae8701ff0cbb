//! Lists the open sockets and the processes that hold them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::{fs, io};

use crate::machine::{Machine, if_any};

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// The listening state of a TCP socket (`include/net/tcp_states.h`).
const LISTEN: &str = "0A";

impl Protocol {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    const fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Udp => ["proc/net/udp", "proc/net/udp6"],
            Self::Tcp => ["proc/net/tcp", "proc/net/tcp6"],
        }
    }
}

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) is_wakeupd: bool,
}

/// The holder of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Processes(Vec<Process>),
    /// Processes with file descriptors that the caller cannot read.
    Hidden {
        uid: u32,
        /// The pid of a wakeupd that runs as the same user, and so possibly holds the port.
        wakeupd: Option<u32>,
    },
}

/// A row of a socket table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    address: SocketAddr,
    listens: bool,
    uid: u32,
    inode: u64,
}

/// Finds the holder of `address`: the processes with a socket that prevents another socket from binding it.
pub(super) fn holder(
    machine: &Machine,
    protocol: Protocol,
    address: SocketAddr,
) -> io::Result<Holder> {
    let mut inodes = BTreeSet::new();
    let mut uid = None;
    let [of_ipv4, of_ipv6] = protocol.tables();
    for path in [of_ipv4, of_ipv6] {
        let table = machine.text(path);
        // The IPv6 table is missing if the kernel lacks IPv6.
        let table = if path == of_ipv6 { if_any(table)? } else { Some(table?) };
        let Some(table) = table else { continue };
        // The first line is a header.
        for line in table.lines().skip(1) {
            let socket = socket(line).ok_or_else(|| machine.malformed(path, line))?;
            let is_bound = protocol == Protocol::Udp || socket.listens;
            if is_bound && collide(socket.address, address) {
                inodes.insert(socket.inode);
                uid = uid.or(Some(socket.uid));
            }
        }
    }
    let Some(uid) = uid else { return Ok(Holder::Nobody) };
    let holders: Vec<_> =
        pids(machine)?.into_iter().filter(|pid| holds(machine, *pid, &inodes)).collect();
    if holders.is_empty() {
        let is_it =
            |pid: &u32| owner(machine, *pid) == Some(uid) && process(machine, *pid).is_wakeupd;
        return Ok(Holder::Hidden { uid, wakeupd: pids(machine)?.into_iter().find(is_it) });
    }
    Ok(Holder::Processes(holders.into_iter().map(|pid| process(machine, pid)).collect()))
}

/// Lists the names of all processes.
pub(super) fn names(machine: &Machine) -> io::Result<Vec<String>> {
    Ok(pids(machine)?.into_iter().map(|pid| process(machine, pid).name).collect())
}

fn pids(machine: &Machine) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(machine.path("proc"))?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Describes a process. The name is empty if the process has exited.
fn process(machine: &Machine, pid: u32) -> Process {
    let name = machine.text(&format!("proc/{pid}/comm")).unwrap_or_default();
    let program = |process: &str| fs::read_link(machine.path(&format!("proc/{process}/exe"))).ok();
    let is_this_program = program(&pid.to_string()).is_some_and(|it| Some(it) == program("self"));
    Process { pid, is_wakeupd: name == "wakeupd" || is_this_program, name }
}

fn owner(machine: &Machine, pid: u32) -> Option<u32> {
    fs::metadata(machine.path(&format!("proc/{pid}"))).ok().map(|process| process.uid())
}

/// Whether a process holds one of the sockets. False if the caller cannot read its file descriptors.
fn holds(machine: &Machine, pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let files = fs::read_dir(machine.path(&format!("proc/{pid}/fd")));
    files.into_iter().flatten().filter_map(Result::ok).any(|file| {
        let target = fs::read_link(file.path()).ok();
        let inode = target.as_ref().and_then(|target| {
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        });
        inode.is_some_and(|inode: u64| inodes.contains(&inode))
    })
}

fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    Some(Socket {
        address: address(fields.get(1)?)?,
        listens: *fields.get(3)? == LISTEN,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Parses an address of a table: hexadecimal 32-bit words in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = ip.as_bytes().chunks_exact(8);
    if !words.remainder().is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for word in words {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk()?).into(),
        16 => Ipv6Addr::from(*bytes.first_chunk()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Whether two sockets cannot both be bound. `::` covers all addresses of both families.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: IpAddr, ip: IpAddr| match wide {
        IpAddr::V6(wide) => wide.is_unspecified(),
        IpAddr::V4(wide) => wide.is_unspecified() && ip.is_ipv4(),
    };
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::machine::fake::Fake;

    const TITLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";

    /// Builds a row as a little-endian machine shows it.
    fn line(address: &str, uid: u32, inode: u64) -> String {
        line_in_state("07", address, uid, inode)
    }

    fn line_in_state(state: &str, address: &str, uid: u32, inode: u64) -> String {
        format!(
            "  533: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 2 0000000000000000 0"
        )
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_in_proc_are_parsed_in_host_byte_order() {
        let addresses = [
            ("0100007F:1D89", "127.0.0.1:7561"),
            ("00000000:0035", "0.0.0.0:53"),
            ("00000000000000000000000000000000:1D89", "[::]:7561"),
            ("00000000000000000000000001000000:0001", "[::1]:1"),
            ("0000000000000000FFFF0000020A0A0A:0001", "10.10.10.2:1"),
            ("B80D0120000000000000000009000000:0001", "[2001:db8::9]:1"),
        ];
        for (text, expected) in addresses {
            assert_eq!(address(text), Some(at(expected)), "{text}");
        }
        for text in ["", ":", "0100007F", "0100:1D89", "0100007F:", "0100007F0:1", "x:1", "é:1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn a_wildcard_socket_conflicts_with_every_address() {
        for (one, other, expected) in [
            ("0.0.0.0:1", "0.0.0.0:1", true),
            ("0.0.0.0:1", "0.0.0.0:2", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::1]:1", "127.0.0.1:1", false),
        ] {
            assert_eq!(collide(at(one), at(other)), expected, "{one} {other}");
            assert_eq!(collide(at(other), at(one)), expected, "{other} {one}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_holder_of_a_port_is_found_by_its_socket() {
        let table = [TITLE, &line("00000000:1D89", 65_532, 77), &line("0100007F:0035", 0, 78)];
        let fake = Fake::new(&[
            ("proc/net/udp", &table.join("\n")),
            ("proc/12/comm", "wakeupd\n"),
            ("proc/13/comm", "named\n"),
            ("proc/14/comm", "renamed\n"),
            ("proc/tty/comm", "no process\n"),
        ]);
        fake.link("proc/self/exe", "/usr/bin/program");
        fake.link("proc/14/exe", "/usr/bin/program");
        fake.link("proc/13/fd/0", "/dev/null");
        fake.link("proc/13/fd/3", "socket:[78]");
        fake.link("proc/14/fd/9", "socket:[77]");
        let holder = |address| holder(&fake.0, Protocol::Udp, at(address)).unwrap();
        let renamed = Process { pid: 14, name: "renamed".into(), is_wakeupd: true };
        assert_eq!(holder("192.0.2.1:7561"), Holder::Processes(vec![renamed]));
        let other = Process { pid: 13, name: "named".into(), is_wakeupd: false };
        assert_eq!(holder("127.0.0.1:53"), Holder::Processes(vec![other]));
        assert_eq!(holder("127.0.0.2:53"), Holder::Nobody);
        assert_eq!(holder("[::1]:7561"), Holder::Nobody);
        let mut names = names(&fake.0).unwrap();
        names.sort_unstable();
        assert_eq!(names, ["named", "renamed", "wakeupd"]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_process_that_cannot_be_inspected_is_hidden() {
        let udp = |uid| format!("{TITLE}\n{}", line("00000000:1D89", uid, 77));
        let nobodys = Fake::new(&[
            ("proc/net/udp", TITLE),
            ("proc/net/udp6", &udp(4_294_967_290)),
            ("proc/12/comm", "wakeupd"),
        ]);
        let holder = |fake: &Fake| holder(&fake.0, Protocol::Udp, at("0.0.0.0:7561")).unwrap();
        assert_eq!(holder(&nobodys), Holder::Hidden { uid: 4_294_967_290, wakeupd: None });
        let uid = fs::metadata(nobodys.0.path("proc/12")).unwrap().uid();
        let ours = Fake::new(&[("proc/net/udp", &udp(uid)), ("proc/12/comm", "wakeupd")]);
        assert_eq!(holder(&ours), Holder::Hidden { uid, wakeupd: Some(12) });
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_listening_tcp_sockets_hold_a_port() {
        for (state, is_held) in [(LISTEN, true), ("01", false), ("06", false)] {
            let table = format!("{TITLE}\n{}", line_in_state(state, "0100007F:1D89", 0, 77));
            let fake = Fake::new(&[("proc/net/tcp", &table), ("proc/net/udp", TITLE)]);
            let held = |protocol| holder(&fake.0, protocol, at("0.0.0.0:7561")).unwrap();
            assert_eq!(held(Protocol::Tcp) != Holder::Nobody, is_held, "{state}");
            assert_eq!(held(Protocol::Udp), Holder::Nobody);
        }
    }

    #[test]
    fn a_malformed_socket_table_is_an_error() {
        let fake = Fake::new(&[("proc/net/udp", "title\nnonsense")]);
        let error = holder(&fake.0, Protocol::Udp, at("0.0.0.0:1")).unwrap_err().to_string();
        assert!(error.contains("proc/net/udp has the unexpected content \"nonsense\""), "{error}");
        let error = holder(&fake.0, Protocol::Tcp, at("0.0.0.0:1")).unwrap_err().to_string();
        assert!(error.contains("proc/net/tcp: "), "{error}");
    }
}
