//! The fuzz targets. A test of the daemon replays the seeds through the same functions.

mod daemon;
mod snapshot;

use std::ffi::OsStr;
#[cfg(target_os = "linux")]
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use wakeupd::config::{Config, parse_deny_file};
use wakeupd::engine::guard::network;

use self::daemon::Daemon;
pub use self::snapshot::snapshot;

/// The fuzzer's bytes that are not yet used.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk()?;
        self.0 = left;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }
}

/// Runs the engine through events that the bytes describe.
///
/// # Panics
/// If the guard's counts differ from the registry's, a cap is exceeded, or a ping goes to the wrong address.
pub fn core(data: &[u8]) {
    let mut bytes = Bytes(data);
    let Some(mut daemon) = Daemon::start(&mut bytes) else { return };
    while daemon.live(&mut bytes).is_some() {
        daemon.check();
    }
    daemon.fall_silent();
}

/// Parses control messages. The bytes fill nix's types, because nix alone parses the raw messages.
///
/// # Panics
/// If any other error is taken for a closed port, or an address differs from the given one.
#[cfg(target_os = "linux")]
pub fn control_messages(data: &[u8]) {
    let mut bytes = Bytes(data);
    while control_message(&mut bytes).is_some() {}
}

#[cfg(target_os = "linux")]
fn control_message(bytes: &mut Bytes) -> Option<()> {
    use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo, sock_extended_err};
    use nix::sys::socket::{ControlMessageOwned, SockaddrIn, SockaddrIn6, SockaddrStorage};
    use wakeupd::net::linux::{is_port_unreachable, local_address};
    use wakeupd::net::socket_address;

    let [kind, ee_origin, ee_type, ee_code, ee_pad] = bytes.take()?;
    let port = u16::from_be_bytes(bytes.take()?);
    let [one, two, three] = [bytes.take()?, bytes.take()?, bytes.take()?].map(u32::from_ne_bytes);
    let octets = bytes.take::<16>()?;
    let v4 = SocketAddrV4::new(one.into(), port);
    let v6 = SocketAddrV6::new(octets.into(), port, two, three);
    let error = sock_extended_err {
        ee_errno: one,
        ee_origin,
        ee_type,
        ee_code,
        ee_pad,
        ee_info: two,
        ee_data: three,
    };
    let has_offender = kind & 8 != 0;
    let is_closed_port = matches!((ee_origin, ee_type, ee_code), (2, 3, 3) | (3, 1, 4));
    let (message, local, is_closed_port) = match kind % 5 {
        0 => {
            let info = in_pktinfo {
                ipi_ifindex: three.cast_signed(),
                ipi_spec_dst: in_addr { s_addr: one },
                ipi_addr: in_addr { s_addr: two },
            };
            let local = IpAddr::from(one.to_ne_bytes());
            // The kernel reports an unknown address as all zeros.
            let local = (one != 0).then_some(local);
            (ControlMessageOwned::Ipv4PacketInfo(info), local, false)
        }
        1 => {
            let info = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: octets }, ipi6_ifindex: three };
            let local = match octets {
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ip @ ..] => IpAddr::from(ip),
                ip => IpAddr::from(ip),
            };
            (ControlMessageOwned::Ipv6PacketInfo(info), Some(local), false)
        }
        2 => {
            let offender = has_offender.then(|| SockaddrIn::from(v4).into());
            (ControlMessageOwned::Ipv4RecvErr(error, offender), None, is_closed_port)
        }
        3 => {
            let offender = has_offender.then(|| SockaddrIn6::from(v6).into());
            (ControlMessageOwned::Ipv6RecvErr(error, offender), None, is_closed_port)
        }
        _ => (ControlMessageOwned::RxqOvfl(one), None, false),
    };
    assert_eq!(local_address(&message), local);
    assert_eq!(is_port_unreachable(&message), is_closed_port);
    assert_eq!(socket_address(&SockaddrStorage::from(v4)), Some(v4.into()));
    assert_eq!(socket_address(&SockaddrStorage::from(v6)), Some(v6.into()));
    Some(())
}

/// Parses a `DENY_FILE`.
///
/// # Panics
/// If the networks change when printed and parsed again, or an error message could move the terminal's
/// cursor.
pub fn deny_file(data: &[u8]) {
    let networks = match parse_deny_file(data) {
        Ok(networks) => networks,
        Err(error) => return assert_plain(&error.to_string()),
    };
    let printed = networks.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&networks));
    assert_eq!(parse_deny_file(printed.replace(',', "\n").as_bytes()).unwrap(), networks);
    let text = String::from_utf8_lossy(data);
    for network in text.lines().filter_map(|line| network(line.trim()).ok()) {
        assert!(networks.contains(network.network()) && networks.contains(network.broadcast()));
    }
}

/// Parses the settings from an environment, with a NUL after each variable.
///
/// # Panics
/// If the settings change when printed and parsed again, or an error message could move the terminal's
/// cursor.
pub fn configuration(data: &[u8]) {
    let vars = data.split(|byte| *byte == 0).map(|variable| {
        let mut parts = variable.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = match (name, parts.next().unwrap_or_default()) {
            // The fuzzer must not choose which files are opened.
            (b"DENY_FILE", value) if value != b"none" => b"/dev/null/none",
            (_, value) => value,
        };
        (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned())
    });
    match Config::from_vars(vars) {
        Ok((config, misspelt)) => {
            for misspelt in misspelt {
                assert_plain(&misspelt.to_string());
            }
            let printed = config.to_string();
            let lines = printed.lines().map(|line| line.split_once('=').unwrap());
            let again = Config::from_vars(lines.map(|(name, value)| (name.into(), value.into())));
            assert_eq!(again, Ok((config, vec![])));
        }
        Err(mistakes) => assert_plain(&mistakes.to_string()),
    }
}

fn assert_plain(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
