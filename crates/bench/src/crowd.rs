//! Many clients on a few sockets.
//!
//! In a network where every address is local, such as 127.0.0.0/8, each client has an address of its own and
//! two sockets serve all clients. One socket is for the measured clients. The other socket is for all other
//! clients: the kernel drops and counts their pings, so that receiving these pings takes no processor time
//! from the daemon. In other networks each client has a socket of its own.
//!
//! A crowd has a fixed number of places, each with one client at a time. A client's number determines its
//! address and its place: the numbers of successive clients in one place are the crowd's size apart.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::SockaddrStorage;

use crate::processes;
use crate::socket::{self, Received};
use crate::wire::Wire;

/// The maximum number of measured clients.
const MEASURED: u32 = 16_384;

/// The maximum number of measured clients over a wire. The kernel delivers their pings in the daemon's
/// processor time, so the number is smaller.
const MEASURED_OVER_A_WIRE: u32 = 4_096;

/// A network of local addresses that needs no privileges.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 1, 0, 0));

/// Simulated clients of one daemon.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// The number of places. The first clients of the places have the numbers from 0.
    pub(crate) size: u32,
    /// One in this many places is measured.
    pub(crate) measured_every: u32,
    /// How many clients take each place, one after the other, before the address of the first client is used
    /// again.
    pub(crate) turns: u32,
    pub(crate) server: SocketAddr,
    server_storage: SockaddrStorage,
    home: Home,
}

#[derive(Debug)]
enum Home {
    /// Each client is an address, counted from `first`.
    Network { first: IpAddr, measured: UdpSocket, rest: UdpSocket, is_wired: bool },
    /// Each client is a socket.
    Sockets(Vec<UdpSocket>),
}

impl Crowd {
    /// Creates clients at the addresses from `first` on, on loopback or at the end of a wire.
    pub(crate) fn in_network(
        size: u32,
        first: IpAddr,
        server: SocketAddr,
        is_wired: bool,
    ) -> io::Result<Self> {
        let (measured, rest) = (socket::open(first)?, socket::open(first)?);
        socket::deafen(&rest)?;
        if is_wired {
            Wire::drop_at(rest.local_addr()?.port())?;
        }
        let most = if is_wired { MEASURED_OVER_A_WIRE } else { MEASURED };
        let measured_every = size.div_ceil(most).next_power_of_two();
        let home = Home::Network { first, measured, rest, is_wired };
        let turns = turns(first, size);
        Ok(Self { size, measured_every, turns, server, server_storage: server.into(), home })
    }

    /// Creates clients that share this machine's address.
    pub(crate) fn of_sockets(size: u32, server: SocketAddr) -> io::Result<Self> {
        let sockets = (0..size).map(|_| socket::open(server.ip()));
        let sockets = sockets.collect::<io::Result<_>>().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot open {size} sockets, one for each client ({error}). Raise `ulimit -n` or lower --clients."
                ),
            )
        })?;
        let home = Home::Sockets(sockets);
        let server_storage = server.into();
        Ok(Self { size, measured_every: 1, turns: 1, server, server_storage, home })
    }

    /// The number of measured places.
    pub(crate) fn measured(&self) -> u32 {
        self.size.div_ceil(self.measured_every)
    }

    /// The position of a client's place among the measured places. `None` if the client is not measured.
    pub(crate) fn position(&self, client: u32) -> Option<u32> {
        let place = client % self.size;
        place.is_multiple_of(self.measured_every).then_some(place / self.measured_every)
    }

    /// Sends a client's heartbeat.
    pub(crate) fn heartbeat(&self, client: u32) -> nix::Result<()> {
        match &self.home {
            Home::Network { first, measured, rest, .. } => {
                let socket = if self.position(client).is_some() { measured } else { rest };
                socket::send(socket, Some(nth(*first, client)), &self.server_storage)
            }
            Home::Sockets(sockets) => {
                socket::send(&sockets[client as usize], None, &self.server_storage)
            }
        }
    }

    /// The sockets that receive the measured pings.
    pub(crate) fn sockets(&self) -> &[UdpSocket] {
        match &self.home {
            Home::Network { measured, .. } => std::slice::from_ref(measured),
            Home::Sockets(sockets) => sockets,
        }
    }

    /// The measured client that a datagram was sent to. `None` if there is no such client. `socket` is the
    /// index of the receiving socket.
    pub(crate) fn recipient(&self, socket: usize, received: &Received) -> Option<u32> {
        match &self.home {
            Home::Network { first, .. } => {
                let client = distance(*first, received.local?)?;
                self.position(client).map(|_| client)
            }
            Home::Sockets(_) => socket.try_into().ok(),
        }
    }

    /// The address at which the daemon pings a client.
    pub(crate) fn address(&self, client: u32) -> io::Result<SocketAddr> {
        match &self.home {
            Home::Network { first, measured, rest, .. } => {
                let socket = if self.position(client).is_some() { measured } else { rest };
                Ok(SocketAddr::new(nth(*first, client), socket.local_addr()?.port()))
            }
            Home::Sockets(sockets) => {
                let port = sockets[client as usize].local_addr()?.port();
                Ok(SocketAddr::new(self.server.ip(), port))
            }
        }
    }

    /// Pings so far to the clients that are not measured.
    pub(crate) fn pings_to_the_rest(&self) -> io::Result<u64> {
        match &self.home {
            Home::Network { is_wired: true, .. } => Wire::dropped(),
            Home::Network { rest, .. } => processes::drops(None, &[rest.local_addr()?.port()]),
            Home::Sockets(_) => Ok(0),
        }
    }

    /// Pings to measured clients that the kernel dropped at a full buffer.
    pub(crate) fn drops(&self) -> io::Result<u64> {
        let ports = self.sockets().iter().map(|socket| Ok(socket.local_addr()?.port()));
        processes::drops(None, &ports.collect::<io::Result<Vec<_>>>()?)
    }
}

/// How many times a crowd fits into its network, if its first client has the address `first`.
pub(crate) fn turns(first: IpAddr, size: u32) -> u32 {
    /// The host part of an IPv4 address in a /8. The last address is for broadcasts.
    const HOST: u32 = 0x00ff_ffff;
    let room = match first {
        IpAddr::V4(ip) => HOST - (ip.to_bits() & HOST),
        IpAddr::V6(_) => u32::MAX,
    };
    room / size
}

fn nth(first: IpAddr, n: u32) -> IpAddr {
    match first {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + n).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(n)).into(),
    }
}

fn distance(first: IpAddr, other: IpAddr) -> Option<u32> {
    match (first, other) {
        (IpAddr::V4(first), IpAddr::V4(other)) => other.to_bits().checked_sub(first.to_bits()),
        (IpAddr::V6(first), IpAddr::V6(other)) => {
            other.to_bits().checked_sub(first.to_bits())?.try_into().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_turn_ends_before_the_networks_last_address() {
        let first = Ipv4Addr::new(127, 1, 0, 0);
        for size in [1, 1_000, 100_000, 10_000_000] {
            let turns = turns(first.into(), size);
            let last = nth(first.into(), turns * size - 1);
            assert!(last < Ipv4Addr::new(127, 255, 255, 255), "{size}: {last}");
            assert_eq!(distance(first.into(), last), Some(turns * size - 1));
            let beyond = u64::from(turns + 1) * u64::from(size);
            assert!(u64::from(first.to_bits()) + beyond > 0x7fff_ffff, "{size}");
        }
        assert_eq!(turns(Ipv6Addr::LOCALHOST.into(), 10), u32::MAX / 10);
    }
}
