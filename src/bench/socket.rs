//! The crowd's sockets: a heartbeat from any local address, pings with the kernel's time of arrival.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{self, in_addr, in_pktinfo, in6_addr, in6_pktinfo, timespec};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmsg, setsockopt, sockopt,
};
use nix::{cmsg_space, setsockopt_impl, sockopt_impl};
use socket2::{SockFilter, SockRef};

use crate::clock::Time;
use crate::wire::PING;

/// The most datagrams that one call receives.
const BATCH: usize = 64;

/// As large as the kernel will have it: what waits here was timed already.
const RECEIVE_BUFFER: usize = 32 << 20;

/// What came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) source: Option<SocketAddr>,
    /// The local address it came to.
    pub(super) local: Option<IpAddr>,
    /// By the wall clock.
    pub(super) at: Time,
    pub(super) is_ping: bool,
}

/// Opens a socket on every local address of the family, at a port of the system's choice.
pub(super) fn open(family: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    if family.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    enlarge(&socket)?;
    Ok(socket)
}

fn enlarge(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER))
}

sockopt_impl!(
    /// Whether datagrams may be cut up on their way, as `IP_PMTUDISC_DONT` and its like tell.
    MtuDiscover,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);

/// Forbids that what is sent from this socket is cut up.
pub(super) fn forbid_fragments(socket: &UdpSocket) -> nix::Result<()> {
    setsockopt(socket, MtuDiscover, &libc::IP_PMTUDISC_PROBE)
}

/// Makes the kernel drop, and count, whatever comes to this socket.
pub(super) fn deafen(socket: &UdpSocket) -> io::Result<()> {
    /// `BPF_RET | BPF_K` of `linux/bpf_common.h`: ends the filter, and so many bytes are let in.
    const RETURN: u16 = 0x06;
    SockRef::from(socket).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}

/// Sends a heartbeat from a local address, or else from the one that the kernel picks.
pub(super) fn send(
    socket: &UdpSocket,
    local: Option<IpAddr>,
    server: &SockaddrStorage,
) -> nix::Result<()> {
    let payload = [IoSlice::new(&PING)];
    let fd = socket.as_raw_fd();
    let send = |control: &[ControlMessage]| {
        sendmsg(fd, &payload, control, MsgFlags::empty(), Some(server)).map(drop)
    };
    match local {
        None => send(&[]),
        Some(IpAddr::V4(ip)) => {
            let info = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: ip.to_bits().to_be() },
                ipi_addr: in_addr { s_addr: 0 },
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(ip)) => {
            let address = in6_addr { s6_addr: ip.octets() };
            let info = in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    }
}

/// Appends what is waiting to `received`, a batch at the most. Returns whether there may be more.
pub(super) fn receive(socket: &UdpSocket, received: &mut Vec<Received>) -> nix::Result<bool> {
    let mut payloads = [[0; PING.len() + 1]; BATCH];
    let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
    let space = cmsg_space!(in6_pktinfo, timespec);
    // Made afresh for each call: used again, they keep the length of what the kernel wrote last.
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(space));
    let flags = MsgFlags::MSG_DONTWAIT;
    let before = received.len();
    let messages = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
    for message in messages {
        let mut ping = Received {
            source: message.address.as_ref().and_then(socket_address),
            local: None,
            at: Time::default(),
            is_ping: message.iovs().next().is_some_and(|payload| payload == PING),
        };
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    ping.local = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    ping.local = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                ControlMessageOwned::ScmTimestampns(time) => {
                    ping.at = Time::default() + time.into();
                }
                _ => {}
            }
        }
        received.push(ping);
    }
    Ok(received.len() == before + BATCH)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}
