//! Many clients on one socket. It is bound to the wildcard address, so it can send from any local address and
//! reads the destination address of each ping. All of 127.0.0.0/8 is local.

use std::collections::{HashMap, HashSet};
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use crate::support::daemon::{Daemon, PATIENCE, PING, wait_until};
use crate::support::web::{get, metric};

#[derive(Debug)]
pub struct Crowd {
    socket: UdpSocket,
    server: SocketAddrV4,
}

impl Crowd {
    pub fn new(server: SocketAddrV4) -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
        setsockopt(&socket, sockopt::RcvBuf, &(4 << 20)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket, server }
    }

    /// Sends a heartbeat from each of these addresses.
    pub fn heartbeats<'a>(&self, addresses: impl IntoIterator<Item = &'a Ipv4Addr>) {
        for address in addresses {
            self.heartbeat(*address);
        }
    }

    fn heartbeat(&self, address: Ipv4Addr) {
        let info = in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr { s_addr: address.to_bits().to_be() },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let payload = [IoSlice::new(PING)];
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let server = SockaddrIn::from(self.server);
        let flags = MsgFlags::empty();
        sendmsg(self.socket.as_raw_fd(), &payload, &control, flags, Some(&server)).unwrap();
    }

    /// Registers these addresses in batches that fit the smallest receive buffer.
    pub fn register(&self, http: SocketAddr, addresses: &[Ipv4Addr]) {
        let registered = || metric(&get(http, "/metrics").body, "wakeupd_registrations_total");
        let mut wanted = registered();
        for some in addresses.chunks(200) {
            self.heartbeats(some);
            wanted += f64::from(u32::try_from(some.len()).unwrap());
            wait_until("a batch is registered", || registered() >= wanted);
        }
    }

    /// Discards the pings that have arrived so far.
    pub fn forget_pings(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 64]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    /// Counts the pings to each address until `enough` returns true. Panics after [`PATIENCE`].
    pub fn listen(
        &self,
        mut enough: impl FnMut(&HashMap<Ipv4Addr, u32>) -> bool,
    ) -> HashMap<Ipv4Addr, u32> {
        let mut pings = HashMap::new();
        let deadline = Instant::now() + PATIENCE;
        while !enough(&pings) {
            assert!(Instant::now() < deadline, "only {} were pinged", pings.len());
            if let Some(address) = self.ping() {
                *pings.entry(address).or_default() += 1;
            }
        }
        pings
    }

    /// Receives a ping, if one arrives soon, and returns its destination.
    fn ping(&self) -> Option<Ipv4Addr> {
        let mut buffer = [0; 64];
        let mut payload = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!(in_pktinfo);
        let fd = self.socket.as_raw_fd();
        let message =
            recvmsg::<SockaddrIn>(fd, &mut payload, Some(&mut space), MsgFlags::empty()).ok()?;
        let info = message.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let (length, source) = (message.bytes, message.address);
        assert_eq!(&buffer[..length], PING);
        assert_eq!(source.map(SocketAddrV4::from), Some(self.server));
        Some(Ipv4Addr::from_bits(u32::from_be(info.unwrap().ipi_addr.s_addr)))
    }
}

#[test]
fn a_thousand_clients_of_one_socket_are_pinged() {
    let daemon = Daemon::start(&[]);
    let SocketAddr::V4(server) = daemon.address else { panic!("the daemon is bound to 127.0.0.1") };
    let crowd = Crowd::new(server);
    let clients: HashSet<_> = (0..1_000).map(|n| Ipv4Addr::from_bits(0x7F01_0001 + n)).collect();
    crowd.heartbeats(&clients);
    let pings = crowd
        .listen(|pings| pings.len() == clients.len() && pings.values().all(|count| *count >= 3));
    assert_eq!(pings.into_keys().collect::<HashSet<_>>(), clients);
}

#[test]
fn a_long_client_list_is_streamed() {
    const CLIENTS: usize = 50_000;
    let variables = [("HTTP_ADDR", "127.0.0.1:0"), ("LOG_LEVEL", "INFO")];
    let daemon = Daemon::start(&variables);
    let http = daemon.http();
    let SocketAddr::V4(server) = daemon.address else { panic!("the daemon is bound to 127.0.0.1") };
    let crowd = Crowd::new(server);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| Ipv4Addr::from_bits(0x7F02_0000 + u32::try_from(n).unwrap()))
        .collect();
    crowd.register(http, &clients);
    let before = daemon.resident_kilobytes();
    let list = get(http, "/clients?limit=all");
    let growth = daemon.resident_kilobytes().saturating_sub(before);
    let list_kilobytes = list.body.len() as u64 / 1024;
    assert!(growth * 3 < list_kilobytes, "{growth} kB more for a list of {list_kilobytes} kB");

    let list = list.json();
    let listed = list["clients"].as_array().unwrap().iter();
    let listed: HashSet<&str> = listed.map(|client| client["address"].as_str().unwrap()).collect();
    assert_eq!(listed.len(), CLIENTS);
    let port = crowd.socket.local_addr().unwrap().port();
    assert!(clients.iter().all(|client| listed.contains(format!("{client}:{port}").as_str())));
    let densest = get(http, "/prefixes?limit=1").json();
    assert_eq!(densest["prefixes"][0]["clients"], 256);
}
