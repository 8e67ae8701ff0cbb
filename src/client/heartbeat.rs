//! The health check of a daemon without an HTTP endpoint: a heartbeat over UDP.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use wakeupd_protocol::{HEARTBEAT, PERIOD, PING};

/// How long to wait for a ping. The first ping is due within a second.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// Sends heartbeats to the daemon at `host`, which can be a wildcard, and waits for a ping.
///
/// The sender becomes a client of the daemon. Its socket is closed right after the ping, so the kernel
/// answers the next pings with ICMP port unreachable, until the daemon mutes the client.
pub(super) fn answered(host: &str, port: u16) -> io::Result<()> {
    let address = reachable(host, port)?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let end = Instant::now() + TIMEOUT;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        socket.send(&HEARTBEAT).map_err(|error| explain(address, &error))?;
        // The socket API rejects a timeout of zero.
        let wait = left.min(PERIOD).max(Duration::from_millis(1));
        if receive(&socket, wait).map_err(|error| explain(address, &error))? {
            return Ok(());
        }
    }
    Err(io::Error::other(format!(
        "no ping from UDP {address} within {} s. Check the daemon's log, and whether MAX_CLIENTS or REFUSE_NETS refuses new clients from this machine.",
        TIMEOUT.as_secs()
    )))
}

/// Returns true if a ping arrives in time. Other datagrams do not prolong the wait.
fn receive(socket: &UdpSocket, wait: Duration) -> io::Result<bool> {
    let end = Instant::now() + wait;
    let mut buffer = [0; 16];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(length) if buffer[..length].starts_with(&PING) => return Ok(true),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The address at which this machine can reach the daemon that is bound to `host`. If `host` is a name with
/// an IPv4 address, the daemon binds that address.
fn reachable(host: &str, port: u16) -> io::Result<SocketAddr> {
    let all = (host, port).to_socket_addrs()?;
    let bound = all.min_by_key(SocketAddr::is_ipv6);
    let bound = bound.ok_or_else(|| {
        io::Error::other(format!(
            "HOST={host} does not resolve to an address. Set HOST to an IP address."
        ))
    })?;
    // A socket bound to `::` serves IPv4 too, and IPv6 may be off on the loopback interface.
    Ok(super::request::local(bound).into_iter().find(can_reach).unwrap_or(bound))
}

fn can_reach(address: &SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

fn explain(address: SocketAddr, error: &io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::ConnectionRefused => io::Error::other(format!(
            "nothing listens on UDP {address}. Start the daemon, or set HOST and PORT to the daemon's values."
        )),
        _ => io::Error::other(format!("cannot reach UDP {address}: {error}")),
    }
}
