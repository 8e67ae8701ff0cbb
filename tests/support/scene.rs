//! A daemon on a host of its own, a stranger at the other end of the wire, and a witness: a client that must
//! miss no ping, regardless of the stranger's traffic.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::daemon::{Daemon, field, summary};
use super::network::Host;
use super::stranger::{Sniffer, Stranger};
use super::witness::Witness;

pub const SERVER: &str = "192.0.2.1";
pub const SERVER_V6: &str = "2001:db8::1";
pub const CLIENT: &str = "192.0.2.9";
pub const CLIENT_V6: &str = "2001:db8::9";
pub const PORT: u16 = 7561;

/// The most datagrams that a stranger may send in a scene that runs beside others.
const LARGEST_CALM: u32 = 20_000;

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that floods. A flood saturates the machine, so no test with a witness runs beside it.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test with a witness but without a flood. Any number of these run in parallel.
pub fn undisturbed() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// The lock that a scene holds.
#[derive(Debug)]
enum Hold {
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    Undisturbed { _guard: RwLockReadGuard<'static, ()> },
}

#[derive(Debug)]
pub struct Scene {
    pub server: Host,
    pub client: Host,
    pub daemon: Daemon,
    pub stranger: Stranger,
    /// Captures the pings that reach the client's host.
    pub wire: Sniffer,
    witness: Option<Witness>,
    _hold: Hold,
}

impl Scene {
    /// A scene with these settings. All packets that the daemon sends go to the client's host.
    pub fn new(variables: &[(&str, &str)]) -> Self {
        Self::on_port(PORT, variables)
    }

    /// A scene with another `PORT`.
    pub fn on_port(port: u16, variables: &[(&str, &str)]) -> Self {
        let hold = Hold::Undisturbed { _guard: undisturbed() };
        Self::on_wire(hold, Some(LARGEST_CALM), port, variables)
    }

    /// A scene in which the stranger floods the daemon.
    pub fn flooded(variables: &[(&str, &str)]) -> Self {
        Self::on_wire(Hold::Alone { _guard: alone() }, None, PORT, variables)
    }

    fn on_wire(hold: Hold, limit: Option<u32>, port: u16, variables: &[(&str, &str)]) -> Self {
        let (server, client) = (Host::new(), Host::new());
        server.wire("wire", &client, "wire");
        server.run(
            "ip address add 192.0.2.1/24 dev wire
             ip address add 2001:db8::1/64 dev wire nodad
             ip route add default via 192.0.2.9
             ip route add default via 2001:db8::9",
        );
        client.run(
            "ip address add 192.0.2.9/24 dev wire
             ip address add 2001:db8::9/64 dev wire nodad",
        );
        let daemon = server.serve(variables);
        let (stranger, wire) = client.within(|| (Stranger::new(limit), Sniffer::new()));
        let phone = client.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let witness = Some(Witness::new(phone, at(SERVER, port)));
        Self { server, client, daemon, stranger, wire, witness, _hold: hold }
    }

    /// Checks that the witness missed no ping, stops the daemon and returns its log.
    pub fn end(mut self) -> Vec<String> {
        self.dismiss_witness();
        self.daemon.stop()
    }

    /// Checks that the witness missed no ping, and ends it.
    pub fn dismiss_witness(&mut self) {
        if let Some(witness) = self.witness.take() {
            witness.missed_nothing(&self.daemon);
        }
    }
}

pub fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// An address of a scene's daemon.
pub fn address(ip: &str) -> SocketAddr {
    at(ip, PORT)
}

/// A number from the summary.
pub fn number(lines: &[String], name: &str) -> u64 {
    field(summary(lines), name).parse().unwrap()
}
