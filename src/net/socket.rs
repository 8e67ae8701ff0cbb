//! The bound UDP socket.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::Interest;

use super::buffers::{BUFFERS, Buffers, grow_receive_buffer, request_buffers};
#[cfg(target_os = "linux")]
use super::linux;
use super::{
    BATCH, Datagram, Missing, NetworkError, SendFailure, Sender, SocketOption, batch, bound,
    new_socket,
};

/// The least memory that a datagram takes in a socket's buffer: the kernel's record of it
/// (`struct sk_buff`) is 232 bytes.
const LEAST_IN_BUFFER: usize = 232;

/// The bound UDP socket that receives. [`Sender`]s are made of it.
#[derive(Debug)]
pub struct Socket {
    io: tokio::net::UdpSocket,
    address: SocketAddr,
    buffers: Buffers,
    /// How many datagrams the kernel had dropped before.
    dropped_before: u64,
    /// The network interface that all sockets are bound to; empty if to none.
    interface: OsString,
    /// The sockets of the [`Sender`]s.
    senders: Vec<Arc<UdpSocket>>,
    control: Control,
    missing: Missing,
}

/// The control messages that come with datagrams.
#[derive(Debug)]
pub(super) struct Control {
    /// Bytes of room for those of one datagram.
    #[cfg_attr(
        any(not(target_os = "linux"), portable_net),
        expect(dead_code, reason = "only recvmsg(2) takes it")
    )]
    pub(super) room: usize,
    /// How often the room was too small.
    pub(super) truncated: AtomicU64,
}

impl Control {
    fn new(room: usize) -> Self {
        Self { room, truncated: AtomicU64::default() }
    }
}

impl Socket {
    /// Binds to `address`, which nobody else may be bound to. `[::]` serves IPv4 as well.
    ///
    /// # Errors
    /// With what the kernel said.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut missing = Missing::default();
        let socket = new_socket(address, &mut missing)?;
        let buffers = request_buffers(&socket, &mut missing);
        batch::describe_arrivals(&socket, address, &mut missing);
        batch::bind(&socket, address, &mut missing)?;
        Self::of_bound(socket, buffers, Control::new(batch::OWN_CONTROL), missing)
    }

    /// Takes over a socket that somebody else has bound. What is waiting in it will be received.
    ///
    /// # Errors
    /// With what the kernel said, or why the socket will not do.
    pub fn adopt(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let socket = socket2::Socket::from(socket);
        let unsuitable = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        if address.port() == 0 {
            return unsuitable("it is not bound to a port");
        }
        let mut missing = Missing::default();
        if address.is_ipv6()
            && address.ip().is_unspecified()
            && missing.note(SocketOption::DualStack, socket.only_v6()) == Some(true)
        {
            return unsuitable("it is bound to every IPv6 address, but takes no IPv4");
        }
        if let Ok(peer) = socket.peer_addr() {
            let peer = peer.as_socket().map(|peer| format!(" to {peer}")).unwrap_or_default();
            return unsuitable(&format!(
                "it is connected{peer}, so it receives from that peer alone: hand over a bound socket that is not connected"
            ));
        }
        socket.set_nonblocking(true)?;
        // A forged heartbeat from a broadcast address must not make a ping to a whole network.
        if socket.broadcast().unwrap_or(false) {
            socket.set_broadcast(false)?;
        }
        let receive = grow_receive_buffer(&socket, &mut missing);
        let requested = batch::request_send_buffer(&socket, BUFFERS.send);
        missing.note(SocketOption::SendBuffer, requested);
        // The senders get what a socket of this process gets.
        let send = request_buffers(&new_socket(address, &mut missing)?, &mut missing).send;
        batch::describe_arrivals(&socket, address, &mut missing);
        let control = Control::new(batch::ANY_CONTROL);
        let mut socket = Self::of_bound(socket, Buffers { receive, send }, control, missing)?;
        socket.dropped_before = socket.receive_drops().unwrap_or_default();
        Ok(socket)
    }

    fn of_bound(
        socket: socket2::Socket,
        buffers: Buffers,
        control: Control,
        mut missing: Missing,
    ) -> io::Result<Self> {
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        let address = io.local_addr()?;
        batch::report_errors(&io, address.is_ipv6(), true, &mut missing);
        #[cfg(target_os = "linux")]
        missing.note(SocketOption::MemoryInfo, linux::receive_drops(&io));
        let interface = batch::interface(&io).unwrap_or_default();
        let senders = Vec::new();
        Ok(Self { io, address, buffers, dropped_before: 0, interface, senders, control, missing })
    }

    /// The socket options that the kernel refused.
    #[must_use]
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// Listens to what the network says of the datagrams that were sent, or does not.
    ///
    /// # Errors
    /// With what the kernel said.
    pub fn report_errors(&self, is_on: bool) -> io::Result<()> {
        let mut refused = Missing::default();
        batch::report_errors(&self.io, self.address.is_ipv6(), is_on, &mut refused);
        refused.unless_known(&self.missing)
    }

    /// More datagrams than can wait to be received.
    #[must_use]
    pub fn most_waiting(&self) -> usize {
        // Linux grants twice what it is asked for.
        2 * self.buffers.receive / LEAST_IN_BUFFER
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a ping to `client` can leave from here at all: an IPv4 socket reaches no IPv6 client, and one
    /// that is bound to an IPv6 address no IPv4 client.
    #[must_use]
    pub fn reaches(&self, client: SocketAddr) -> bool {
        let ip = self.address().ip().to_canonical();
        ip.is_ipv6() == client.is_ipv6() || ip == IpAddr::from(Ipv6Addr::UNSPECIFIED)
    }

    /// The buffers that the kernel granted.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// How many datagrams the kernel has dropped because the receive buffer was full, if it can be known.
    #[must_use]
    pub fn receive_drops(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        return linux::receive_drops(&self.io)
            .ok()
            .map(|drops| drops.saturating_sub(self.dropped_before));
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Datagrams and ICMP errors with truncated control messages: their local address, time of arrival and cause
    /// are unknown.
    #[must_use]
    pub fn truncated_control(&self) -> u64 {
        self.control.truncated.load(Relaxed)
    }

    /// Waits until there may be something to receive, be it an error.
    ///
    /// # Errors
    /// Where the runtime is being shut down.
    pub async fn readable(&self) -> io::Result<()> {
        self.io.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    /// Appends up to [`BATCH`] waiting datagrams to `received`; fewer mean that no more are waiting.
    ///
    /// The kernel is asked in any case. The runtime may not have learnt yet that something arrived,
    /// as after a stop of the process, when its timers fire first.
    ///
    /// # Errors
    /// With what the kernel said; that nothing is waiting is no error.
    pub fn receive(&self, received: &mut Vec<Datagram>) -> io::Result<()> {
        let (begin, mut tries) = (received.len(), 0);
        loop {
            let mut is_asked = false;
            let mut result = self.io.try_io(Interest::READABLE, || {
                is_asked = true;
                take_batch(received, |received| batch::receive(&self.io, &self.control, received))
            });
            if !is_asked {
                result = batch::receive(&self.io, &self.control, received);
            }
            match unless_empty(result) {
                Err(error) if tries < SendFailure::from(&error).retries() => tries += 1,
                result => {
                    let bound = bound(self.address);
                    received[begin..].iter_mut().for_each(|it| it.local = it.local.or(bound));
                    return result;
                }
            }
        }
    }

    /// Appends up to [`BATCH`] waiting errors to `errors`; fewer mean that the runtime knows of no
    /// more.
    ///
    /// # Errors
    /// With what the kernel said; that nothing is waiting is no error.
    pub fn receive_errors(&self, errors: &mut Vec<NetworkError>) -> io::Result<()> {
        unless_empty(self.io.try_io(Interest::ERROR, || {
            take_batch(errors, |errors| batch::receive_errors(&self.io, &self.control, errors))
        }))
    }

    /// Opens more sockets on the same port, only to send from. They get the options that a service manager
    /// set on this socket.
    ///
    /// # Errors
    /// If the sockets cannot be opened or given these options. [`shared_senders`] remain.
    ///
    /// [`shared_senders`]: Self::shared_senders
    pub fn senders(&mut self, count: usize) -> io::Result<Vec<Sender>> {
        let all = count + batch::spares(self.buffers.send);
        let sockets = batch::open_senders(all, self.io.as_fd(), self.address, &mut self.missing)?;
        self.senders = sockets.into_iter().map(Arc::new).collect();
        let receiver = self.receiver()?;
        let (own, spares) = self.senders.split_at(count);
        let spares = Arc::from(spares);
        let sender = |socket: &Arc<UdpSocket>| self.sender(Arc::clone(socket), &spares, &receiver);
        Ok(own.iter().map(sender).collect())
    }

    /// Senders that all send from the socket that receives. Threads wait for each other there, and each
    /// ping that leaves wakes the runtime.
    ///
    /// # Errors
    /// When the process may open no more files.
    pub fn shared_senders(&mut self, count: usize) -> io::Result<Vec<Sender>> {
        let size = batch::request_send_buffer(&self.io, BUFFERS.send);
        self.missing.note(SocketOption::SendBuffer, size);
        let receiver = self.receiver()?;
        let spares = Arc::from([]);
        Ok((0..count).map(|_| self.sender(Arc::clone(&receiver), &spares, &receiver)).collect())
    }

    fn receiver(&self) -> io::Result<Arc<UdpSocket>> {
        Ok(Arc::new(self.io.as_fd().try_clone_to_owned()?.into()))
    }

    fn sender(
        &self,
        socket: Arc<UdpSocket>,
        spares: &Arc<[Arc<UdpSocket>]>,
        receiver: &Arc<UdpSocket>,
    ) -> Sender {
        let (spares, receiver) = (Arc::clone(spares), Arc::clone(receiver));
        Sender { socket, spares, receiver, address: self.address }
    }

    /// Binds the sockets to their network interface again that have lost it, and returns how many had. That
    /// happens when a tool disconnects sockets (`ss -K`, Android's netd), so that pings would leave
    /// elsewhere, and when the interface is deleted and made again under its name.
    ///
    /// # Errors
    /// If there is no such interface now, or the process lacks the privilege (`CAP_NET_RAW`).
    pub fn restore_interface(&self) -> io::Result<usize> {
        if self.interface.is_empty() {
            return Ok(0);
        }
        let receiver = self.receiver()?;
        let all = self.senders.iter().chain([&receiver]).map(Arc::as_ref);
        batch::restore_interface(all, &self.interface)
    }
}

/// Takes a batch of what waits in a socket. Less than a full one means that nothing is left, and the
/// runtime is told so.
fn take_batch<T>(
    taken: &mut Vec<T>,
    take: impl FnOnce(&mut Vec<T>) -> io::Result<()>,
) -> io::Result<()> {
    let full = taken.len() + BATCH;
    take(taken)?;
    if taken.len() < full { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

fn unless_empty(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}
