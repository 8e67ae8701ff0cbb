//! One datagram per system call, for systems other than Linux. The kernel chooses the source address of
//! pings.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::SockRef;

use super::{BATCH, Control, Datagram, Missing, NetworkError, canonical, native, socket_address};

/// These systems use no control messages.
pub(super) const OWN_CONTROL: usize = 0;
pub(super) const ANY_CONTROL: usize = 0;

/// Requests a buffer of this size, or keeps the default: some systems refuse a size above their limit instead
/// of granting the limit.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn request_receive_buffer(socket: &impl AsFd, size: usize) -> io::Result<()> {
    let _ = SockRef::from(socket).set_recv_buffer_size(size);
    Ok(())
}

/// Requests a buffer of this size, or keeps the default.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn request_send_buffer(socket: &impl AsFd, size: usize) -> io::Result<()> {
    let _ = SockRef::from(socket).set_send_buffer_size(size);
    Ok(())
}

pub(super) fn describe_arrivals(_: &socket2::Socket, _: SocketAddr, _: &mut Missing) {}

/// Appends up to [`BATCH`] waiting datagrams to `received`.
pub(super) fn receive(
    socket: &impl AsFd,
    _: &Control,
    received: &mut Vec<Datagram>,
) -> io::Result<()> {
    let mut buffer = [0; 2048];
    for n in 0..BATCH {
        match recvfrom::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut buffer) {
            Ok((length, source)) => {
                let source = source.as_ref().and_then(socket_address).map(canonical);
                let payload = &buffer[..length];
                received.extend(source.map(|it| Datagram::new(it, None, None, length, payload)));
            }
            Err(error) if n == 0 => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Other systems do not report network errors with the client that they are about.
pub(super) fn report_errors(_: &impl AsFd, _is_ipv6: bool, _is_on: bool, _: &mut Missing) {}

#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn receive_errors(
    _: &impl AsFd,
    _: &Control,
    _: &mut Vec<NetworkError>,
) -> io::Result<()> {
    Ok(())
}

/// Binds the receiving socket.
pub(super) fn bind(
    socket: &socket2::Socket,
    address: SocketAddr,
    _: &mut Missing,
) -> io::Result<()> {
    socket.bind(&address.into())
}

/// Other systems do not unbind a socket from its interface.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn interface(_: &impl AsFd) -> nix::Result<OsString> {
    Ok(OsString::new())
}

#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn restore_interface<'a>(
    _: impl Iterator<Item = &'a UdpSocket>,
    _: &OsString,
) -> io::Result<usize> {
    Ok(0)
}

/// All senders share the receiving socket.
pub(super) fn open_senders(
    count: usize,
    receiver: BorrowedFd,
    _: SocketAddr,
    _: &mut Missing,
) -> io::Result<Vec<UdpSocket>> {
    (0..count).map(|_| Ok(receiver.try_clone_to_owned()?.into())).collect()
}

/// All senders share one buffer, so spares would not help.
pub(super) fn spares(_granted: usize) -> usize {
    0
}

/// The kernel chooses the source address in any case.
pub(super) fn is_local(_: &UdpSocket, _: IpAddr) -> bool {
    true
}

/// Sends `payload` to the first of `destinations`.
pub(super) fn send(
    socket: &UdpSocket,
    socket_is_ipv6: bool,
    payload: &[u8],
    _local: Option<IpAddr>,
    destinations: &[SocketAddr],
) -> io::Result<usize> {
    let destination = native(destinations[0], socket_is_ipv6).into();
    SockRef::from(socket).send_to(payload, &destination)?;
    Ok(1)
}
