//! The sizes of the sockets' buffers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Missing, SocketOption, batch, new_socket};

/// The requested sizes in bytes. The receive buffer holds about 10,000 heartbeats: 50 ms at 200,000 a second.
pub const BUFFERS: Buffers = Buffers { receive: 8 << 20, send: 4 << 20 };

/// Sizes of a socket's two buffers in bytes, in the unit of `net.core.rmem_max` and `wmem_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Size of the receive buffer.
    pub receive: usize,
    /// Size of the send buffer.
    pub send: usize,
}

/// The buffer sizes that the kernel grants to a socket that requests [`BUFFERS`], as the daemon's sockets do.
///
/// # Errors
/// If no UDP socket can be opened.
pub fn granted_buffers() -> io::Result<Buffers> {
    let any_family = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let [v4, v6] = any_family.map(|ip: IpAddr| SocketAddr::new(ip, 0));
    let mut missing = Missing::default();
    let socket = new_socket(v4, &mut missing).or_else(|_| new_socket(v6, &mut missing))?;
    Ok(request_buffers(&socket, &mut missing))
}

pub(super) fn request_buffers(socket: &socket2::Socket, missing: &mut Missing) -> Buffers {
    let requested = batch::request_receive_buffer(socket, BUFFERS.receive);
    missing.note(SocketOption::ReceiveBuffer, requested);
    let requested = batch::request_send_buffer(socket, BUFFERS.send);
    missing.note(SocketOption::SendBuffer, requested);
    let send = missing.note(SocketOption::SendBuffer, socket.send_buffer_size());
    Buffers { receive: receive_buffer(socket, missing), send: send.map_or(BUFFERS.send, granted) }
}

/// The size of the receive buffer, or the requested size if the kernel does not report it.
fn receive_buffer(socket: &socket2::Socket, missing: &mut Missing) -> usize {
    let size = missing.note(SocketOption::ReceiveBuffer, socket.recv_buffer_size());
    size.map_or(BUFFERS.receive, granted)
}

/// Requests a larger receive buffer, unless the current buffer is large enough: the process that created the
/// socket can have been allowed a larger buffer than this process. Returns the granted size in bytes.
pub(super) fn grow_receive_buffer(socket: &socket2::Socket, missing: &mut Missing) -> usize {
    if receive_buffer(socket, missing) < BUFFERS.receive {
        let requested = batch::request_receive_buffer(socket, BUFFERS.receive);
        missing.note(SocketOption::ReceiveBuffer, requested);
    }
    receive_buffer(socket, missing)
}

/// The granted size, from the size that the system reports. Linux doubles the requested size to make room for
/// its bookkeeping.
fn granted(size: usize) -> usize {
    if cfg!(target_os = "linux") { size / 2 } else { size }
}
