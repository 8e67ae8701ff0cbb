//! Batched datagrams: `recvmmsg(2)` and `sendmmsg(2)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    CmsgIterator, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn,
    SockaddrIn6, SockaddrLike, SockaddrStorage, recvmmsg, recvmsg, sendmmsg, setsockopt, sockopt,
};
use socket2::SockRef;

use super::datagram::MAX_PAYLOAD;
use super::{
    BATCH, BUFFERS, Control, Datagram, Missing, NetworkError, SocketOption, canonical, inherit,
    linux, native, new_socket, socket_address, without_flow,
};

pub(super) use super::inherit::{interface, restore_interface};
pub(super) use super::linux::request_receive_buffer;

/// The smallest send buffer for which [`spares`] computes the number of spare sockets. It caps that number at
/// 63, even if the kernel grants less or does not report the granted size.
const LEAST_SEND_BUFFER: usize = 64 << 10;

/// The port to which [`is_local`] connects a socket (RFC 863). No datagram is sent to it.
const DISCARD: u16 = 9;

/// Requests a send buffer of this size, above the system's limit if the process has `CAP_NET_ADMIN`.
pub(super) fn request_send_buffer(socket: &impl AsFd, size: usize) -> nix::Result<()> {
    setsockopt(socket, sockopt::SndBufForce, &size)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &size))
}

/// Room for the control messages of [`describe_arrivals`]: an `in6_pktinfo` and a `timespec`.
pub(super) const OWN_CONTROL: usize = 72;

/// Room for the control messages of a handed-over socket. Options that its creator set stay on and add more
/// messages. All fixed-size ones of Linux take about 500 bytes, and the kernel writes the two that the daemon
/// reads before any of variable size.
pub(super) const ANY_CONTROL: usize = 512;

/// Makes the kernel report each datagram's arrival time and, on a wildcard address, its local address.
pub(super) fn describe_arrivals(socket: &impl AsFd, address: SocketAddr, missing: &mut Missing) {
    let timestamps = setsockopt(socket, sockopt::ReceiveTimestampns, &true);
    missing.note(SocketOption::Timestamps, timestamps);
    if address.ip().is_unspecified() {
        let is_ipv6 = address.is_ipv6();
        let option = if is_ipv6 { SocketOption::PacketInfoV6 } else { SocketOption::PacketInfoV4 };
        missing.note(option, linux::report_local_addresses(socket, is_ipv6));
    }
}

/// The control messages of `message`. If they are truncated, counts the message and returns `None`, because
/// nix does not parse truncated control messages.
fn control_messages<'a, S>(
    message: &'a RecvMsg<'_, '_, S>,
    control: &Control,
) -> Option<CmsgIterator<'a>> {
    let messages = message.cmsgs().ok();
    if messages.is_none() {
        control.truncated.fetch_add(1, Relaxed);
    }
    messages
}

/// Appends up to [`BATCH`] waiting datagrams to `received`.
pub(super) fn receive(
    socket: &impl AsFd,
    control: &Control,
    received: &mut Vec<Datagram>,
) -> io::Result<()> {
    let mut payloads = [[0; MAX_PAYLOAD]; BATCH];
    let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
    // A new buffer for each call: a reused one would keep the length of the last control messages.
    let space = Vec::with_capacity(control.room);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(space));
    // With MSG_TRUNC the kernel reports the full length of a truncated payload.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let messages = recvmmsg(socket.as_fd().as_raw_fd(), &mut headers, &mut slices, flags, None)?;
    received.extend(messages.filter_map(|message| {
        let (mut local, mut arrived) = (None, None);
        for message in control_messages(&message, control).into_iter().flatten() {
            match message {
                ControlMessageOwned::ScmTimestampns(time) => arrived = Some(time.into()),
                message => local = local.or_else(|| linux::local_address(&message)),
            }
        }
        let source = socket_address(&message.address?)?;
        // An IPv4-mapped address on the wire is not IPv4.
        let is_ipv6 = local.is_some_and(|local: IpAddr| local.is_ipv6());
        let source = if is_ipv6 { without_flow(source) } else { canonical(source) };
        let payload = message.iovs().next().unwrap_or_default();
        Some(Datagram::new(source, local, arrived, message.bytes, payload))
    }));
    Ok(())
}

/// Binds the receiving socket.
///
/// A tool that disconnects sockets (`ss -K`) unbinds a port that the kernel chose, but not an explicitly
/// requested one. So if `address` leaves the choice to the kernel, a second socket is used to choose the
/// port.
pub(super) fn bind(
    socket: &socket2::Socket,
    address: SocketAddr,
    missing: &mut Missing,
) -> io::Result<()> {
    if address.port() != 0 {
        return socket.bind(&address.into());
    }
    let chooser = new_socket(address, missing)?;
    chooser.bind(&address.into())?;
    let shared = share_port(&[chooser.as_fd(), socket.as_fd()], true);
    if missing.note(SocketOption::ShareAddress, shared).is_none() {
        return socket.bind(&address.into());
    }
    socket.bind(&chooser.local_addr()?)?;
    Ok(share_port(&[socket.as_fd()], false)?)
}

/// Opens more sockets on the port of `receiver`, which still receives all datagrams.
///
/// They are bound to addresses that no datagram is sent to, so the kernel never delivers a heartbeat to them.
/// Each ping sets its source address explicitly.
pub(super) fn open_senders(
    count: usize,
    receiver: BorrowedFd,
    address: SocketAddr,
    missing: &mut Missing,
) -> io::Result<Vec<UdpSocket>> {
    let senders = (0..count).map(|_| new_socket(address, missing));
    let senders = senders.collect::<io::Result<Vec<_>>>()?;
    for sender in &senders {
        inherit::copy(&receiver, sender, address.is_ipv6())?;
        // Without this option, the bind fails while the loopback interface is down.
        let _ = inherit::allow_any_address(sender);
    }
    // Share the port only for a moment, so no other process can bind it.
    let all: Vec<_> = senders.iter().map(AsFd::as_fd).chain([receiver]).collect();
    let shared = share_port(&all, true);
    missing.note(SocketOption::ShareAddress, shared);
    shared?;
    let bound = senders.iter().try_for_each(|sender| {
        let nowhere = SocketAddr::new(nowhere(address.ip()), address.port());
        sender.bind(&native(nowhere, address.is_ipv6()).into())
    });
    share_port(&all, false)?;
    bound?;
    for sender in &senders {
        inherit::copy_allowed_addresses(&receiver, sender)?;
        // A connected socket saves the kernel a flow hash per ping. Failure is harmless.
        let peer = SocketAddr::new(nowhere(address.ip()), fastrand::u16(1..1024));
        let _ = sender.connect(&native(peer, address.is_ipv6()).into());
        // These sockets receive nothing except forged errors.
        missing.note(SocketOption::ReceiveBuffer, request_receive_buffer(sender, 0));
        missing.note(SocketOption::SendBuffer, request_send_buffer(sender, BUFFERS.send));
        missing.note(SocketOption::PathMtu, linux::forbid_fragments(sender));
        report_errors(sender, address.is_ipv6(), true, missing);
    }
    Ok(senders.into_iter().map(UdpSocket::from).collect())
}

/// Turns address sharing on or off, so that the sockets can be bound to one port.
fn share_port(sockets: &[BorrowedFd], is_shared: bool) -> nix::Result<()> {
    sockets.iter().try_for_each(|socket| setsockopt(socket, sockopt::ReuseAddr, &is_shared))
}

/// An address that no datagram is sent to, of a family that can reach all clients of a socket bound to `ip`.
/// It is random, because a forged ICMP error must name it to make a send fail.
fn nowhere(ip: IpAddr) -> IpAddr {
    let is_ipv4 = ip.is_unspecified() || ip.to_canonical().is_ipv4();
    if is_ipv4 {
        // Only this machine reaches 127.0.0.0/8, and it rarely uses addresses beyond 127.0.0.0/16.
        return Ipv4Addr::from_bits(0x7F00_0000 | fastrand::u32(0x1_0000..0xFF_FFFF)).into();
    }
    // Routers discard datagrams to 100::/64 (RFC 6666). A socket with an IPv4 address would block other
    // processes from the port of 0.0.0.0.
    Ipv6Addr::from_bits(0x0100 << 112 | u128::from(fastrand::u64(..))).into()
}

/// Whether this machine has the address `ip`. Also returns true if the address cannot be checked, such as a
/// link-local address without its interface.
pub(super) fn is_local(sender: &UdpSocket, ip: IpAddr) -> bool {
    if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return true;
    }
    let try_source = || -> io::Result<()> {
        let socket = new_socket(SocketAddr::new(ip, 0), &mut Missing::default())?;
        // An address of a VRF is valid only within that VRF.
        if let Some(device) = SockRef::from(sender).device()? {
            socket.bind_device(Some(&device))?;
        }
        socket.bind(&SocketAddr::new(ip, 0).into())?;
        if ip.is_ipv4() {
            // net.ipv4.ip_nonlocal_bind allows binding to any address, but not using it as the source of a
            // route.
            socket.connect(&SocketAddr::new(ip, DISCARD).into())?;
        }
        Ok(())
    };
    let refused = try_source().err().and_then(|error| error.raw_os_error());
    !matches!(refused.map(Errno::from_raw), Some(Errno::EADDRNOTAVAIL | Errno::EINVAL))
}

/// The number of spare sockets needed to reach the requested send buffer size, if each socket has `granted`
/// bytes. Pings to hosts that do not answer address resolution stay in their socket's buffer for seconds, and
/// must leave room for the others.
pub(super) fn spares(granted: usize) -> usize {
    BUFFERS.send.div_ceil(granted.max(LEAST_SEND_BUFFER)) - 1
}

/// Turns the reporting of full queues and network errors on or off. Turning it off drops the pending errors.
pub(super) fn report_errors(socket: &impl AsFd, is_ipv6: bool, is_on: bool, missing: &mut Missing) {
    let switched = setsockopt(socket, sockopt::Ipv4RecvErr, &is_on);
    missing.note(SocketOption::ErrorQueueV4, switched);
    if is_ipv6 {
        let switched = setsockopt(socket, sockopt::Ipv6RecvErr, &is_on);
        missing.note(SocketOption::ErrorQueueV6, switched);
    }
}

/// Appends up to [`BATCH`] pending errors to `errors`. If it appends fewer, the queue is empty.
pub(super) fn receive_errors(
    socket: &impl AsFd,
    control: &Control,
    errors: &mut Vec<NetworkError>,
) -> io::Result<()> {
    // The error itself comes last, after the control messages of the datagram it is about.
    let mut space = vec![0; 2 * ANY_CONTROL];
    for _ in 0..BATCH {
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_fd().as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut [], Some(&mut space), flags)?;
        let destination = message.address.as_ref().and_then(socket_address).map(canonical);
        let mut messages = control_messages(&message, control).into_iter().flatten();
        let is_closed_port = messages.any(|message| linux::is_port_unreachable(&message));
        errors.push(match destination {
            Some(destination) if is_closed_port => NetworkError::PortUnreachable(destination),
            _ => NetworkError::Other,
        });
    }
    Ok(())
}

/// Sends `payload` to as many of `destinations` (at most [`BATCH`]) as possible, in order.
pub(super) fn send(
    socket: &UdpSocket,
    socket_is_ipv6: bool,
    payload: &[u8],
    local: Option<IpAddr>,
    destinations: &[SocketAddr],
) -> io::Result<usize> {
    if socket_is_ipv6 {
        let addresses = destinations.iter().map(|address| match native(*address, true) {
            SocketAddr::V6(v6) => Some(SockaddrIn6::from(v6)),
            SocketAddr::V4(_) => None,
        });
        let addresses: Vec<_> = addresses.collect();
        let Some(local) = local else {
            return send_batch(socket, payload, &addresses, None, &[]);
        };
        let ip = match local {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let info = linux::from_v6(ip);
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        return send_batch(socket, payload, &addresses, Some(cmsg_space!(in6_pktinfo)), &control);
    }
    let addresses = destinations.iter().map_while(|address| match address {
        SocketAddr::V4(v4) => Some(Some(SockaddrIn::from(*v4))),
        SocketAddr::V6(_) => None,
    });
    let addresses: Vec<_> = addresses.collect();
    if addresses.is_empty() {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    let Some(IpAddr::V4(ip)) = local else {
        return send_batch(socket, payload, &addresses, None, &[]);
    };
    let info = linux::from_v4(ip);
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    send_batch(socket, payload, &addresses, Some(cmsg_space!(in_pktinfo)), &control)
}

/// The control message buffer `space` must have exactly the size of the messages.
fn send_batch<A: SockaddrLike + Copy>(
    socket: &UdpSocket,
    payload: &[u8],
    addresses: &[Option<A>],
    space: Option<Vec<u8>>,
    control: &[ControlMessage],
) -> io::Result<usize> {
    let slice = [IoSlice::new(payload)];
    let slices = std::iter::repeat_n(&slice, addresses.len());
    let mut headers = MultiHeaders::preallocate(addresses.len(), space);
    let flags = MsgFlags::MSG_DONTWAIT;
    Ok(sendmmsg(socket.as_raw_fd(), &mut headers, slices, addresses, control, flags)?.count())
}
