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

/// The least memory that a datagram takes in a socket buffer: the kernel's `struct sk_buff` is 232 bytes.
const LEAST_IN_BUFFER: usize = 232;

/// The bound UDP socket that receives datagrams, and creates the [`Sender`]s.
#[derive(Debug)]
pub struct Socket {
    io: tokio::net::UdpSocket,
    address: SocketAddr,
    buffers: Buffers,
    /// The kernel's drop count when the daemon took over the socket.
    dropped_before: u64,
    /// The network interface that all sockets are bound to. Empty if they are bound to none.
    interface: OsString,
    /// The sockets of the [`Sender`]s.
    senders: Vec<Arc<UdpSocket>>,
    control: Control,
    missing: Missing,
}

/// The buffer size for control messages, and the count of truncated ones.
#[derive(Debug)]
pub(super) struct Control {
    /// Buffer size in bytes for the control messages of one datagram.
    #[cfg_attr(
        any(not(target_os = "linux"), portable_net),
        expect(dead_code, reason = "only recvmsg(2) takes it")
    )]
    pub(super) room: usize,
    /// How often the buffer was too small.
    pub(super) truncated: AtomicU64,
}

impl Control {
    fn new(room: usize) -> Self {
        Self { room, truncated: AtomicU64::default() }
    }
}

impl Socket {
    /// Binds exclusively to `address`. `[::]` also serves IPv4.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut missing = Missing::default();
        let socket = new_socket(address, &mut missing)?;
        let buffers = request_buffers(&socket, &mut missing);
        batch::describe_arrivals(&socket, address, &mut missing);
        batch::bind(&socket, address, &mut missing)?;
        Self::of_bound(socket, buffers, Control::new(batch::OWN_CONTROL), missing)
    }

    /// Adopts a socket that another process bound. Datagrams already in its receive buffer will be received.
    ///
    /// # Errors
    /// If the socket is unsuitable, or the kernel refuses a call on it.
    pub fn adopt(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let socket = socket2::Socket::from(socket);
        let unsuitable = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        if address.port() == 0 {
            return unsuitable("the socket is not bound to a port");
        }
        let mut missing = Missing::default();
        if address.is_ipv6()
            && address.ip().is_unspecified()
            && missing.note(SocketOption::DualStack, socket.only_v6()) == Some(true)
        {
            return unsuitable(
                "the socket is bound to ::, but does not accept IPv4: set BindIPv6Only=both",
            );
        }
        if let Ok(peer) = socket.peer_addr() {
            let peer = peer.as_socket().map(|peer| format!(" to {peer}")).unwrap_or_default();
            return unsuitable(&format!(
                "the socket is connected{peer}, so it receives datagrams only from that peer: hand over a bound socket that is not connected"
            ));
        }
        socket.set_nonblocking(true)?;
        // Without broadcast, a forged heartbeat from a broadcast address cannot cause a ping to a whole
        // network.
        if socket.broadcast().unwrap_or(false) {
            socket.set_broadcast(false)?;
        }
        let receive = grow_receive_buffer(&socket, &mut missing);
        let requested = batch::request_send_buffer(&socket, BUFFERS.send);
        missing.note(SocketOption::SendBuffer, requested);
        // The senders get the send buffer that a socket of this process gets.
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

    /// Turns the reporting of network errors about sent datagrams on or off.
    ///
    /// # Errors
    /// If the kernel refuses an option that it has not refused before.
    pub fn report_errors(&self, is_on: bool) -> io::Result<()> {
        let mut refused = Missing::default();
        batch::report_errors(&self.io, self.address.is_ipv6(), is_on, &mut refused);
        refused.unless_known(&self.missing)
    }

    /// Upper bound on the number of datagrams in the receive buffer.
    #[must_use]
    pub fn most_waiting(&self) -> usize {
        // Linux grants twice the requested size.
        2 * self.buffers.receive / LEAST_IN_BUFFER
    }

    /// The local address that the socket is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether this socket can ping `client`. An IPv4 socket reaches no IPv6 client, and a socket bound to a
    /// specific IPv6 address reaches no IPv4 client.
    #[must_use]
    pub fn reaches(&self, client: SocketAddr) -> bool {
        let ip = self.address().ip().to_canonical();
        ip.is_ipv6() == client.is_ipv6() || ip == IpAddr::from(Ipv6Addr::UNSPECIFIED)
    }

    /// The granted buffer sizes.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// The number of datagrams dropped because the receive buffer was full, if the system reports it.
    #[must_use]
    pub fn receive_drops(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        return linux::receive_drops(&self.io)
            .ok()
            .map(|drops| drops.saturating_sub(self.dropped_before));
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// The number of datagrams and ICMP errors with truncated control messages. The local address and the
    /// arrival time of such a datagram, and the cause of such an error, are unknown.
    #[must_use]
    pub fn truncated_control(&self) -> u64 {
        self.control.truncated.load(Relaxed)
    }

    /// Waits until a datagram or an error is probably pending.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.io.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    /// Appends up to [`BATCH`] pending datagrams to `received`. If it appends fewer, the buffer is empty.
    ///
    /// The call always asks the kernel. The runtime may not know of an arrival yet: after a stop of the
    /// process, its timers fire first.
    ///
    /// # Errors
    /// If the receive call fails, except because the buffer is empty.
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

    /// Appends up to [`BATCH`] pending errors to `errors`. If it appends fewer, the runtime knows of no
    /// further errors.
    ///
    /// # Errors
    /// If the receive call fails, except because the queue is empty.
    pub fn receive_errors(&self, errors: &mut Vec<NetworkError>) -> io::Result<()> {
        unless_empty(self.io.try_io(Interest::ERROR, || {
            take_batch(errors, |errors| batch::receive_errors(&self.io, &self.control, errors))
        }))
    }

    /// Opens more sockets on the same port, only for sending. They inherit the options that a service manager
    /// set on this socket.
    ///
    /// # Errors
    /// If the sockets cannot be opened, or refuse these options. Fall back to [`shared_senders`].
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

    /// Creates senders that all use the receiving socket. Threads contend for it, and each ping that leaves
    /// wakes the runtime.
    ///
    /// # Errors
    /// If the process has reached its limit on open files.
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

    /// Rebinds the sockets that lost their network interface, and returns their number. Sockets lose it if a
    /// tool disconnects them (`ss -K`, Android's netd), or if the interface is deleted and re-created under
    /// the same name. Their pings would then leave through another interface.
    ///
    /// # Errors
    /// If the interface does not exist, or the process lacks the privilege (`CAP_NET_RAW`).
    pub fn restore_interface(&self) -> io::Result<usize> {
        if self.interface.is_empty() {
            return Ok(0);
        }
        let receiver = self.receiver()?;
        let all = self.senders.iter().chain([&receiver]).map(Arc::as_ref);
        batch::restore_interface(all, &self.interface)
    }
}

/// Takes a batch from a socket. An incomplete batch means that the socket is empty, so the result tells the
/// runtime to wait for readiness.
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
