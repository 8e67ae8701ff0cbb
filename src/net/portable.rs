//! One datagram in one system call, for systems other than Linux. Pings leave from the address that
//! the kernel picks.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;

use super::{BATCH, Datagram, NetworkError, canonical, native};

/// Asks for a buffer of this size, or keeps what the system gives unasked: some systems refuse a
/// size above their limit instead of granting the limit.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn request_receive_buffer(socket: &socket2::Socket, size: usize) -> io::Result<()> {
    let _ = socket.set_recv_buffer_size(size);
    Ok(())
}

/// Likewise.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn request_send_buffer(socket: &socket2::Socket, size: usize) -> io::Result<()> {
    let _ = socket.set_send_buffer_size(size);
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn report_local_addresses(_: &socket2::Socket, _: SocketAddr) -> io::Result<()> {
    Ok(())
}

/// Appends up to [`BATCH`] waiting datagrams to `received`.
pub(super) fn receive(socket: &impl AsFd, received: &mut Vec<Datagram>) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let mut payload = [MaybeUninit::uninit(); 2048];
    for n in 0..BATCH {
        match socket.recv_from(&mut payload) {
            Ok((length, source)) => {
                let source = source.as_socket().map(canonical);
                received.extend(source.map(|source| Datagram { source, local: None, length }));
            }
            Err(error) if n == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Elsewhere the network's errors are not told with the client that they are about.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn report_errors(_: &impl AsFd, _is_ipv6: bool, _is_on: bool) -> nix::Result<()> {
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the counterpart on Linux can fail")]
pub(super) fn receive_errors(_: &impl AsFd, _: &mut Vec<NetworkError>) -> io::Result<()> {
    Ok(())
}

/// Binds the socket that receives.
pub(super) fn bind(socket: &socket2::Socket, address: SocketAddr) -> io::Result<()> {
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

/// The one socket will do to send from.
pub(super) fn open_senders(
    count: usize,
    receiver: BorrowedFd,
    _: SocketAddr,
) -> io::Result<Vec<UdpSocket>> {
    (0..count).map(|_| Ok(receiver.try_clone_to_owned()?.into())).collect()
}

/// Pings leave from the kernel's choice in any case.
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
