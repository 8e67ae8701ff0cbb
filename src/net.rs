//! The UDP socket. Knows nothing of clients, and is alone in the daemon in making raw socket calls.
//!
//! Addresses outside this module are canonical: an IPv4 peer is an IPv4 address, also where the
//! socket is an IPv6 one that serves both and the kernel speaks of IPv4-mapped addresses.

#[cfg(all(target_os = "linux", not(portable_net)))]
#[path = "net/mmsg.rs"]
mod batch;
#[cfg(any(not(target_os = "linux"), portable_net))]
#[path = "net/portable.rs"]
mod batch;
mod failure;
#[cfg(all(target_os = "linux", not(portable_net)))]
mod inherit;
#[cfg(target_os = "linux")]
pub mod linux;
mod options;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;

pub use self::failure::{Reaction, SendFailure, is_broken, reaction};
pub use self::options::{Missing, SocketOption};

/// The most datagrams that one call receives or sends.
pub const BATCH: usize = 64;

/// What is asked of the kernel, in bytes. About 10,000 heartbeats fit into the receive buffer,
/// which is what 200,000 a second bring in 50 ms.
pub const BUFFERS: Buffers = Buffers { receive: 8 << 20, send: 4 << 20 };

/// Sizes of a socket's two buffers in bytes, in the unit of `net.core.rmem_max` and `wmem_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Holds what has arrived and was not yet received.
    pub receive: usize,
    /// Holds what was sent and has not yet left.
    pub send: usize,
}

/// The part of a payload that is received, in bytes. No datagram of the protocol is longer.
const MAX_PAYLOAD: usize = 80;

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it came from.
    pub source: SocketAddr,
    /// The local address it was sent to, if the kernel says.
    pub local: Option<IpAddr>,
    /// The length of its payload in bytes.
    pub length: usize,
    /// The kernel's receive timestamp: wall-clock time since 1970.
    pub arrived: Option<Duration>,
    payload: [u8; MAX_PAYLOAD],
}

impl Datagram {
    fn new(
        source: SocketAddr,
        local: Option<IpAddr>,
        arrived: Option<Duration>,
        length: usize,
        content: &[u8],
    ) -> Self {
        let mut payload = [0; MAX_PAYLOAD];
        let kept = content.len().min(MAX_PAYLOAD);
        payload[..kept].copy_from_slice(&content[..kept]);
        Self { source, local, length, arrived, payload }
    }

    /// The payload, cut off at [`MAX_PAYLOAD`] bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload[..self.length.min(MAX_PAYLOAD)]
    }
}

/// What the network said of a datagram that had been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Nobody listens at the port that it was sent to.
    PortUnreachable(SocketAddr),
    /// Anything else.
    Other,
}

/// The broadcast addresses of the networks that this machine is on: those that are configured, and the last
/// address of each network, which the kernel takes for one too. None if the kernel does not list its
/// interfaces.
#[must_use]
pub fn broadcasts() -> Option<Vec<Ipv4Addr>> {
    let interfaces = getifaddrs().ok()?;
    let ip = |address: Option<SockaddrStorage>| Some(address?.as_sockaddr_in()?.ip());
    let of = |interface: InterfaceAddress| {
        let last = ip(interface.address).zip(ip(interface.netmask)).map(|(address, mask)| {
            // A network of one or two addresses has none (RFC 3021).
            (mask.to_bits().count_ones() < 31).then(|| address | !mask)
        });
        [ip(interface.broadcast), last.flatten()]
    };
    Some(interfaces.flat_map(of).flatten().filter(|ip| !ip.is_unspecified()).collect())
}

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
struct Control {
    /// Bytes of room for those of one datagram.
    #[cfg_attr(
        any(not(target_os = "linux"), portable_net),
        expect(dead_code, reason = "only recvmsg(2) takes it")
    )]
    room: usize,
    /// How often the room was too small.
    truncated: AtomicU64,
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

/// A socket to send from. Each thread has its own, so that none waits for another in the kernel,
/// which need not tell the runtime either whenever a datagram has left.
#[derive(Debug)]
pub struct Sender {
    socket: Arc<UdpSocket>,
    /// All workers share these. They take over while the buffer of the own socket is full.
    spares: Arc<[Arc<UdpSocket>]>,
    receiver: Arc<UdpSocket>,
    address: SocketAddr,
}

impl Sender {
    /// Sends `payload` to each of `destinations` (at most [`BATCH`]) in turn, from `local`, or else from the
    /// address that the daemon is bound to, until one fails. Returns how many the kernel took, and the error of
    /// the next one.
    #[must_use]
    pub fn send(
        &self,
        payload: &[u8],
        local: Option<IpAddr>,
        destinations: &[SocketAddr],
    ) -> (usize, Option<io::Error>) {
        let local = local.or(self.bound());
        // Only the receiving socket leaves the choice of a source address to the kernel.
        let (mut socket, mut spares) = match local {
            Some(_) => (&self.socket, self.spares.iter()),
            None => (&self.receiver, [].iter()),
        };
        let (mut sent, mut tries) = (0, 0);
        while sent < destinations.len() {
            let rest = &destinations[sent..];
            match batch::send(socket, self.address.is_ipv6(), payload, local, rest) {
                Ok(n) => (sent, tries) = (sent + n, 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match spares.next() {
                    Some(spare) => socket = spare,
                    None => return (sent, Some(error)),
                },
                Err(error) if tries < SendFailure::from(&error).retries() => tries += 1,
                Err(error) => return (sent, Some(error)),
            }
        }
        (sent, None)
    }

    /// The address that the daemon is bound to, unless it serves every address.
    #[must_use]
    pub fn bound(&self) -> Option<IpAddr> {
        bound(self.address)
    }

    /// Whether pings can still leave from `ip`: whether it is an address of this machine.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        batch::is_local(&self.socket, ip)
    }
}

/// The one address that a socket is bound to.
fn bound(address: SocketAddr) -> Option<IpAddr> {
    let ip = address.ip().to_canonical();
    (!ip.is_unspecified()).then_some(ip)
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

/// Listens for TCP connections. `SO_REUSEADDR` lets a restarted process take its port back at once; where the
/// kernel refuses that, its error comes along.
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

/// What a socket is granted that asks for [`BUFFERS`] as the daemon's do.
///
/// # Errors
/// With what the kernel said.
pub fn granted_buffers() -> io::Result<Buffers> {
    let any_family = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let [v4, v6] = any_family.map(|ip: IpAddr| SocketAddr::new(ip, 0));
    let mut missing = Missing::default();
    let socket = new_socket(v4, &mut missing).or_else(|_| new_socket(v6, &mut missing))?;
    Ok(request_buffers(&socket, &mut missing))
}

fn request_buffers(socket: &socket2::Socket, missing: &mut Missing) -> Buffers {
    let requested = batch::request_receive_buffer(socket, BUFFERS.receive);
    missing.note(SocketOption::ReceiveBuffer, requested);
    let requested = batch::request_send_buffer(socket, BUFFERS.send);
    missing.note(SocketOption::SendBuffer, requested);
    let send = missing.note(SocketOption::SendBuffer, socket.send_buffer_size());
    Buffers { receive: receive_buffer(socket, missing), send: send.map_or(BUFFERS.send, granted) }
}

/// The size of the receive buffer, or the size that the daemon asks for if the kernel does not say.
fn receive_buffer(socket: &socket2::Socket, missing: &mut Missing) -> usize {
    let size = missing.note(SocketOption::ReceiveBuffer, socket.recv_buffer_size());
    size.map_or(BUFFERS.receive, granted)
}

/// Asks for a larger receive buffer, unless it is large enough: whoever made the socket may have been
/// allowed more than this process is.
fn grow_receive_buffer(socket: &socket2::Socket, missing: &mut Missing) -> usize {
    if receive_buffer(socket, missing) < BUFFERS.receive {
        let requested = batch::request_receive_buffer(socket, BUFFERS.receive);
        missing.note(SocketOption::ReceiveBuffer, requested);
    }
    receive_buffer(socket, missing)
}

/// What was granted, by what the system says. Linux doubles what it was asked for, to have room for its
/// own bookkeeping.
fn granted(size: usize) -> usize {
    if cfg!(target_os = "linux") { size / 2 } else { size }
}

/// The canonical form of an address as a socket of either family, or an operator, tells it.
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

/// The form in which a socket of the given family wants a canonical address.
fn native(address: SocketAddr, socket_is_ipv6: bool) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if socket_is_ipv6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_plain_ipv4_one() {
        let mapped = "[::ffff:192.0.2.1]:7".parse().unwrap();
        let plain = "192.0.2.1:7".parse().unwrap();
        assert_eq!(canonical(mapped), plain);
        assert_eq!(native(plain, true), mapped);
        assert_eq!(native(plain, false), plain);
        let v6 = "[2001:db8::1]:7".parse().unwrap();
        assert_eq!((canonical(v6), native(v6, true)), (v6, v6));
    }

    #[test]
    fn the_flow_is_no_part_of_who_somebody_is_but_the_interface_is() {
        let link_local = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 99, 3);
        let canonical = canonical(link_local.into());
        assert_eq!(canonical.to_string(), "[fe80::1%3]:7");
        assert_ne!(canonical, link_local.into());
    }

    #[tokio::test]
    async fn a_socket_that_is_handed_over_sends_no_broadcast() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let mut adopted = Socket::adopt(socket.try_clone().unwrap()).unwrap();
        assert!(!socket.broadcast().unwrap());
        for sender in adopted.senders(2).unwrap() {
            assert!(!sender.socket.broadcast().unwrap());
        }
    }
}
