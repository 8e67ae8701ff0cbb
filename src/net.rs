//! The UDP socket. This module does not know the protocol or its clients, and is the daemon's only module
//! with raw socket calls.
//!
//! Addresses outside this module are canonical: an IPv4 peer is an IPv4 address, even if a dual-stack IPv6
//! socket reports it as IPv4-mapped.

#[cfg(all(target_os = "linux", not(portable_net)))]
#[path = "net/mmsg.rs"]
mod batch;
#[cfg(any(not(target_os = "linux"), portable_net))]
#[path = "net/portable.rs"]
mod batch;
mod buffers;
mod datagram;
mod failure;
#[cfg(all(target_os = "linux", not(portable_net)))]
mod inherit;
#[cfg(target_os = "linux")]
pub mod linux;
mod options;
mod sender;
mod socket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, Type};

pub use self::buffers::{BUFFERS, Buffers, granted_buffers};
pub use self::datagram::Datagram;
pub use self::failure::{Reaction, SendFailure, is_broken, reaction};
pub use self::options::{Missing, SocketOption};
pub use self::sender::Sender;
use self::socket::Control;
pub use self::socket::Socket;

/// The maximum number of datagrams per receive or send call.
pub const BATCH: usize = 64;

/// An error that the network reported about a sent datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// The destination port is closed.
    PortUnreachable(SocketAddr),
    /// Any other error.
    Other,
}

/// The broadcast addresses of this machine's networks: the configured ones, and the last address of each
/// network, which the kernel also treats as broadcast. Returns `None` if the kernel does not list its
/// interfaces.
#[must_use]
pub fn broadcasts() -> Option<Vec<Ipv4Addr>> {
    let interfaces = getifaddrs().ok()?;
    let ip = |address: Option<SockaddrStorage>| Some(address?.as_sockaddr_in()?.ip());
    let of = |interface: InterfaceAddress| {
        let last = ip(interface.address).zip(ip(interface.netmask)).map(|(address, mask)| {
            // A /31 or /32 network has no broadcast address (RFC 3021).
            (mask.to_bits().count_ones() < 31).then(|| address | !mask)
        });
        [ip(interface.broadcast), last.flatten()]
    };
    Some(interfaces.flat_map(of).flatten().filter(|ip| !ip.is_unspecified()).collect())
}

/// The address that a socket is bound to, unless it is the wildcard address.
fn bound(address: SocketAddr) -> Option<IpAddr> {
    let ip = address.ip().to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}

/// Listens for TCP connections. `SO_REUSEADDR` lets a restarted process bind its port at once. If the kernel
/// refuses that option, its error is returned with the listener.
///
/// # Errors
/// If the address cannot be bound.
pub fn listen_tcp(address: SocketAddr) -> io::Result<(TcpListener, Option<io::Error>)> {
    const BACKLOG: i32 = 128;
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    let refused = socket.set_reuse_address(true).err();
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), refused))
}

fn new_socket(address: SocketAddr, missing: &mut Missing) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        missing.note(SocketOption::DualStack, socket.set_only_v6(false));
    }
    Ok(socket)
}

/// The peer address of a received datagram.
#[must_use]
pub fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

/// The canonical form of an address from an operator or from a socket of either family.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        IpAddr::V6(_) => without_flow(address),
    }
}

fn without_flow(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_flowinfo(0);
    }
    address
}

/// The form of a canonical address for a socket of the given family.
fn native(address: SocketAddr, socket_is_ipv6: bool) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if socket_is_ipv6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn an_ipv4_mapped_address_becomes_an_ipv4_address() {
        let mapped = "[::ffff:192.0.2.1]:7".parse().unwrap();
        let plain = "192.0.2.1:7".parse().unwrap();
        assert_eq!(canonical(mapped), plain);
        assert_eq!(native(plain, true), mapped);
        assert_eq!(native(plain, false), plain);
        let v6 = "[2001:db8::1]:7".parse().unwrap();
        assert_eq!((canonical(v6), native(v6, true)), (v6, v6));
    }

    #[test]
    fn a_canonical_address_keeps_the_scope_and_drops_the_flow_label() {
        let link_local = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 99, 3);
        let canonical = canonical(link_local.into());
        assert_eq!(canonical.to_string(), "[fe80::1%3]:7");
        assert_ne!(canonical, link_local.into());
    }

    #[tokio::test]
    async fn a_handed_over_socket_sends_no_broadcasts() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let mut adopted = Socket::adopt(socket.try_clone().unwrap()).unwrap();
        assert!(!socket.broadcast().unwrap());
        for sender in adopted.senders(2).unwrap() {
            assert!(!sender.socket.broadcast().unwrap());
        }
    }
}
