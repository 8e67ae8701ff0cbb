//! The crowd's sockets: they send heartbeats from any local address and receive pings with kernel timestamps.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in6_pktinfo, timespec};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmsg, setsockopt, sockopt,
};
use socket2::{SockFilter, SockRef};

use wakeupd::clock::Time;
use wakeupd::net::{BATCH, linux, socket_address};
use wakeupd_protocol::PING;

/// The requested receive buffer, in bytes. The kernel can grant less. A ping that waits in the buffer already
/// has its timestamp.
const RECEIVE_BUFFER: usize = 32 << 20;

/// A datagram that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) source: Option<SocketAddr>,
    /// The local address that the datagram was sent to.
    pub(crate) local: Option<IpAddr>,
    /// The kernel's receive timestamp, by the wall clock.
    pub(crate) at: Time,
    pub(crate) is_ping: bool,
}

/// Binds the wildcard address of the family, at a port that the kernel chooses.
pub(crate) fn open(family: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    linux::report_local_addresses(&socket, family.is_ipv6())?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    linux::request_receive_buffer(&socket, RECEIVE_BUFFER)?;
    Ok(socket)
}

/// Makes the kernel drop and count all datagrams for this socket.
pub(crate) fn deafen(socket: &UdpSocket) -> io::Result<()> {
    /// `BPF_RET | BPF_K` of `linux/bpf_common.h`: returns the number of bytes to accept.
    const RETURN: u16 = 0x06;
    SockRef::from(socket).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}

/// Sends a heartbeat from the address `local`. If `local` is `None`, the kernel chooses the source address.
pub(crate) fn send(
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
            let info = linux::from_v4(ip);
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(ip)) => {
            let info = linux::from_v6(ip);
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    }
}

/// Appends up to one batch of waiting datagrams to `received`. Returns true if more can be waiting.
pub(crate) fn receive(socket: &UdpSocket, received: &mut Vec<Received>) -> nix::Result<bool> {
    let mut payloads = [[0; PING.len() + 1]; BATCH];
    let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
    let space = cmsg_space!(in6_pktinfo, timespec);
    // Allocated for each call: reused headers keep the length of the kernel's last control message.
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
            if let ControlMessageOwned::ScmTimestampns(time) = control {
                ping.at = Time::default() + time.into();
            } else if let Some(local) = linux::local_address(&control) {
                ping.local = Some(local);
            }
        }
        received.push(ping);
    }
    Ok(received.len() == before + BATCH)
}
