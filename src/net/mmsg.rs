//! Many datagrams in one system call: `recvmmsg(2)` and `sendmmsg(2)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrLike, SockaddrStorage,
    recvmmsg, sendmmsg, setsockopt, sockopt,
};
use nix::{cmsg_space, libc};
use tokio::net::UdpSocket;

use super::{BATCH, Buffers, Datagram, canonical, native};

/// Asks for buffers of this size, beyond the system's limit where the process has `CAP_NET_ADMIN`.
pub(super) fn request_buffers(socket: &impl AsFd, size: Buffers) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &size.receive)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &size.receive))?;
    setsockopt(socket, sockopt::SndBufForce, &size.send)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &size.send))
}

/// Makes the kernel tell with each datagram which local address it hit.
pub(super) fn report_local_addresses(socket: &impl AsFd, address: SocketAddr) -> nix::Result<()> {
    if address.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)
    }
}

/// Appends up to [`BATCH`] waiting datagrams to `received`.
pub(super) fn receive(socket: &UdpSocket, received: &mut Vec<Datagram>) -> io::Result<()> {
    let mut payloads = [[0; 1]; BATCH];
    let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
    // Made afresh for each call: used again, they keep the length of what the kernel wrote last.
    let mut headers =
        MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo)));
    // With MSG_TRUNC the kernel tells the true length of a payload that it cuts off.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let messages = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
    received.extend(messages.filter_map(|message| {
        let source = canonical(socket_address(&message.address?)?);
        let local = message
            .cmsgs()
            .ok()
            .and_then(|mut messages| messages.find_map(|message| local_address(&message)));
        Some(Datagram { source, local, length: message.bytes })
    }));
    Ok(())
}

/// Sends `payload` to the first of `destinations` (at most [`BATCH`]) and as many more as it can.
pub(super) fn send(
    socket: &UdpSocket,
    socket_is_ipv6: bool,
    payload: &[u8],
    local: Option<IpAddr>,
    destinations: &[SocketAddr],
) -> io::Result<usize> {
    let addresses: Vec<_> = destinations
        .iter()
        .map(|&address| Some(SockaddrStorage::from(native(address, socket_is_ipv6))))
        .collect();
    let slice = [IoSlice::new(payload)];
    let slices = std::iter::repeat_n(&slice, destinations.len());
    let flags = MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_raw_fd();
    // The room for control messages must be exactly what they fill.
    let headers = |space| MultiHeaders::preallocate(destinations.len(), space);
    let sent = match local {
        None => sendmmsg(fd, &mut headers(None), slices, addresses, [], flags)?.count(),
        Some(IpAddr::V4(ip)) if !socket_is_ipv6 => {
            let info = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: ip.to_bits().to_be() },
                ipi_addr: in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            let mut headers = headers(Some(cmsg_space!(in_pktinfo)));
            sendmmsg(fd, &mut headers, slices, addresses, control, flags)?.count()
        }
        Some(ip) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let info =
                in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            let mut headers = headers(Some(cmsg_space!(in6_pktinfo)));
            sendmmsg(fd, &mut headers, slices, addresses, control, flags)?.count()
        }
    };
    Ok(sent)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    match i32::from(address.family()? as libc::sa_family_t) {
        libc::AF_INET => address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into()),
        libc::AF_INET6 => address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()),
        _ => None,
    }
}

fn local_address(message: &ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical())
        }
        _ => None,
    }
}
