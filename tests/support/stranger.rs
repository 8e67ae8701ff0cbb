//! A stranger that forges packets, and a sniffer on the wire.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::libc::{ETH_P_IP, ETH_P_IPV6};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::daemon::PING;

const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Sends datagrams with arbitrary source addresses, from the host on which it was created.
#[derive(Debug)]
pub struct Stranger {
    v4: Socket,
    v6: Socket,
    sent: AtomicU32,
    limit: Option<u32>,
}

impl Stranger {
    /// A stranger that may send at most `limit` datagrams.
    pub fn new(limit: Option<u32>) -> Self {
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap();
        Self { v4: raw(Domain::IPV4), v6: raw(Domain::IPV6), sent: AtomicU32::new(0), limit }
    }

    /// Sends a heartbeat to `server` that seems to come from `source`.
    pub fn heartbeat(&self, source: SocketAddr, server: SocketAddr) {
        self.send(source.ip(), server.ip(), UDP, &udp(source, server));
    }

    /// Sends `server` an ICMP port unreachable error for a ping to `client`.
    pub fn port_unreachable(&self, client: SocketAddr, server: SocketAddr) {
        self.unreachable(3, 4, client, server);
    }

    /// Sends `server` the ICMP error of a firewall that prohibits a ping to `client`.
    pub fn administratively_prohibited(&self, client: SocketAddr, server: SocketAddr) {
        self.unreachable(13, 1, client, server);
    }

    /// Sends `server` a destination unreachable error for a ping to `client`, with these codes of ICMP
    /// (RFC 792, RFC 1812) and `ICMPv6` (RFC 4443).
    fn unreachable(&self, code: u8, code_v6: u8, client: SocketAddr, server: SocketAddr) {
        // Any host on the path may send the error.
        let router = if server.is_ipv6() { "2001:db8:8::1" } else { "198.51.100.1" };
        let router = router.parse().unwrap();
        let quoted = packet(server.ip(), client.ip(), UDP, &udp(server, client));
        let (protocol, kind) =
            if server.is_ipv6() { (ICMPV6, [1, code_v6]) } else { (ICMP, [3, code]) };
        let mut message = [&kind[..], &[0; 6], &quoted].concat();
        let pseudo = if server.is_ipv6() {
            pseudo_header(router, server.ip(), protocol, message.len())
        } else {
            vec![]
        };
        let checksum = checksum(&[&pseudo[..], &message].concat());
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.send(router, server.ip(), protocol, &message);
    }

    fn send(&self, source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) {
        let sent = self.sent.fetch_add(1, Relaxed);
        assert!(self.limit.is_none_or(|limit| sent < limit), "a flood needs Scene::flooded");
        let packet = packet(source, destination, protocol, payload);
        let socket = if destination.is_ipv6() { &self.v6 } else { &self.v4 };
        // The destination port of a raw socket must be 0. Some packets are dropped on their way out.
        let _ = socket.send_to(&packet, &SocketAddr::new(destination, 0).into());
    }
}

fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            let [high, low] = length;
            let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&checksum);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => panic!("{source} and {destination} are of different families"),
    };
    [&header[..], payload].concat()
}

fn udp(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut datagram = [source.port(), destination.port(), 10, 0].map(u16::to_be_bytes).concat();
    datagram.extend([0, 0]);
    let mut summed = pseudo_header(source.ip(), destination.ip(), UDP, datagram.len());
    summed.extend(&datagram);
    let checksum = checksum(&summed).to_be_bytes();
    datagram[6..8].copy_from_slice(&checksum);
    datagram
}

/// The pseudo-header that the checksum covers besides the payload (RFC 768, RFC 8200).
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = u16::try_from(length).unwrap().to_be_bytes();
    [octets(source), octets(destination), vec![0, protocol], length.to_vec()].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !u16::try_from((sum & 0xFFFF) + (sum >> 16)).unwrap()
}

/// Captures every ping that reaches a host, for any destination.
#[derive(Debug)]
pub struct Sniffer(Vec<Socket>);

impl Sniffer {
    /// Listens on every interface of the host on which it is created.
    pub fn new() -> Self {
        let listen = |kind: i32| {
            let kind = i32::from(u16::try_from(kind).unwrap().to_be());
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(kind.into())).unwrap();
            setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self(vec![listen(ETH_P_IP), listen(ETH_P_IPV6)])
    }

    /// Counts the pings to each address during this time, and those captured earlier but not yet read.
    pub fn pings(&self, time: Duration) -> HashMap<SocketAddr, u32> {
        let mut pings = HashMap::new();
        let end = Instant::now() + time;
        loop {
            let is_over = Instant::now() >= end;
            while let Some(packet) = self.next() {
                if let Some(destination) = ping(&packet) {
                    *pings.entry(destination).or_default() += 1;
                }
            }
            if is_over {
                return pings;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        self.0.iter().find_map(|socket| {
            let length = std::io::Read::read(&mut &*socket, &mut buffer).ok()?;
            Some(buffer[..length].to_vec())
        })
    }
}

/// The destination of a packet, if it is a ping.
fn ping(packet: &[u8]) -> Option<SocketAddr> {
    let (protocol, destination, datagram): (_, IpAddr, _) = match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (packet[9], Ipv4Addr::from(octets).into(), packet.get(20..)?)
        }
        6 => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (packet[6], Ipv6Addr::from(octets).into(), packet.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?);
    (protocol == UDP && datagram.get(8..10)? == PING).then_some(SocketAddr::new(destination, port))
}
