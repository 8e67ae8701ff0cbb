//! Resolves the addresses, and binds the sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use tokio::runtime::Runtime;
use tracing::{info, warn};

use super::detection::after_detection;
use super::error::{CheckError, StartError, bind_error};
use crate::catalogue::machine::HOST_LOOPBACK;
use crate::clock::{self, Time};
use crate::config::{Config, Misspelt};
use crate::http::Server;
use crate::machine::Machine;
use crate::memory::Needs;
use crate::net::{Sender, Socket, SocketOption};

/// The bound sockets.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) socket: Socket,
    /// One sender for each worker.
    pub(super) senders: Vec<Sender>,
    pub(super) http: Option<Server>,
    /// No datagram that arrived before this time is waiting in the receive buffer.
    pub(super) drained_until: Time,
}

/// Binds all sockets, or adopts the handed-over one, and checks the memory limits.
pub(super) fn bind(
    config: &Config,
    handed_over: Option<UdpSocket>,
    runtime: &Runtime,
) -> Result<Bound, StartError> {
    // A handed-over socket may hold datagrams from any time since the machine started.
    let drained_until = if handed_over.is_some() { clock::MACHINE_START } else { clock::now() };
    let mut socket = open_socket(config, handed_over, runtime)?;
    Needs::of(config, socket.address().is_ipv6()).check(&Machine::new("/"))?;
    let senders = open_senders(&mut socket, config.worker_pool_size)
        .map_err(|error| bind_error(socket.address(), error))?;
    let http = bind_http(config)?;
    Ok(Bound { socket, senders, http, drained_until })
}

/// Checks settings with valid values further, without opening a socket: that no variable is misspelt, that
/// `HOST` resolves, and that the memory limits have room for `MAX_CLIENTS`. Returns the errors.
#[must_use]
pub fn check(config: &Config, misspelt: &[Misspelt]) -> Vec<CheckError> {
    let would_start = || -> Result<(), StartError> {
        let address = resolve(&config.host, config.port)?;
        Ok(Needs::of(config, address.is_ipv6()).check(&Machine::new("/"))?)
    };
    let misspelt = misspelt.iter().cloned().map(CheckError::Misspelt);
    misspelt.chain(would_start().err().map(CheckError::Start)).collect()
}

/// Opens a sending socket for each worker, or makes all workers send from the receiving socket.
fn open_senders(socket: &mut Socket, workers: usize) -> io::Result<Vec<Sender>> {
    socket.senders(workers).or_else(|error| {
        // A refused option is reported with the others.
        if !socket.missing().has(SocketOption::ShareAddress) {
            warn!(
                %error,
                "cannot open sending sockets with the options of the receiving socket, so all workers send through the receiving socket. This lowers the maximum ping rate by up to 15 %. In wakeupd.service, set AmbientCapabilities=CAP_NET_ADMIN if wakeupd.socket sets Mark=, Transparent= or a Priority= above 6, or AmbientCapabilities=CAP_NET_RAW if it sets BindToDevice= and Linux is older than 5.7."
            );
        }
        socket.shared_senders(workers)
    })
}

fn adopt(config: &Config, socket: UdpSocket) -> Result<Socket, StartError> {
    let socket = Socket::adopt(socket).map_err(StartError::HandedOver)?;
    let address = socket.address();
    if config.agrees_with(address) {
        info!(%address, "serving the UDP socket that the service manager handed over");
    } else {
        warn!(%address, "serving the UDP socket that the service manager handed over, so HOST and PORT have no effect. Set its address with `systemctl edit wakeupd.socket`.");
    }
    Ok(socket)
}

/// Adopts the handed-over socket, or binds one to the configured address.
fn open_socket(
    config: &Config,
    handed_over: Option<UdpSocket>,
    runtime: &Runtime,
) -> Result<Socket, StartError> {
    let _within = runtime.enter();
    if let Some(socket) = handed_over {
        return adopt(config, socket);
    }
    let address = resolve(&config.host, config.port)?;
    let bound = after_detection(address.ip(), || Socket::bind(address));
    bound.map_err(|error| bind_error(address, error))
}

/// The address to bind. If `host` is a name that resolves to several addresses, prefers IPv4, because the
/// original daemon served only IPv4.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip.to_canonical(), port));
    }
    let unresolved = |error| StartError::Unresolved { host: host.to_owned(), error };
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
    let first = found.iter().min_by_key(|address| address.is_ipv6());
    let address = *first.ok_or_else(|| unresolved(io::ErrorKind::NotFound.into()))?;
    if found.iter().any(|other| *other != address) {
        info!(%host, ip = %address.ip(), "HOST resolves to several addresses, but the daemon binds only this address. Set HOST to :: to bind all addresses of this machine.");
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let means_loopback = name == "localhost" || name.ends_with(".localhost");
    if address.ip().to_canonical().is_loopback() && !means_loopback {
        let ip = address.ip();
        let problem = HOST_LOOPBACK.with(&[("host", &host), ("ip", &ip)]);
        warn!(%host, %ip, "{problem}");
    }
    Ok(address)
}

fn bind_http(config: &Config) -> Result<Option<Server>, StartError> {
    let Some(address) = config.http_addr else { return Ok(None) };
    let bound = after_detection(address.ip(), || Server::bind(address, config));
    bound.map(Some).map_err(|error| StartError::Http { address, error })
}
