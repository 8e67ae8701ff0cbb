//! The operator's endpoint: metrics, health, who is there, and a page to look at.
//!
//! It has a thread and a runtime of its own, reads what the others write, and can hold up nobody: how
//! many connections there are, how large a request is and how slowly either may go is limited.

mod access;
mod answer;
mod clients;
mod events;
mod exposition;
mod page;
mod prefixes;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tracing::{info, warn};

use self::access::Access;
use crate::clock;
use crate::config::Config;
use crate::monitor::Board;
use crate::net;
use crate::state::State;
use crate::throttle::Throttle;

/// The most connections at a time.
pub const MOST_CONNECTIONS: usize = 128;

/// The most connections at a time from other machines, so that this one always finds room.
const MOST_REMOTE_CONNECTIONS: usize = 96;

/// The most connections at a time from one address of another machine, an IPv4 address or an IPv6 /64.
const MOST_CONNECTIONS_PER_ADDRESS: usize = 32;

/// How long a request may take to arrive, and how long a connection may wait for the next.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

/// How long somebody may take none of an answer.
const LONGEST_STALL: Duration = Duration::from_secs(10);

/// The largest head of a request in bytes.
const LARGEST_HEAD: usize = 16 << 10;

/// The most header fields of a request.
const MOST_FIELDS: usize = 64;

/// How long to wait when no connection can be accepted, as when there are too many open files.
const RECOVERY: Duration = Duration::from_millis(100);

/// A bound endpoint.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    access: Access,
}

/// What answers are made of.
#[derive(Debug)]
struct Endpoint {
    access: Access,
    state: Arc<State>,
    board: Arc<Board>,
}

impl Server {
    /// Binds the endpoint, if there is to be one.
    ///
    /// # Errors
    /// With what the system said.
    pub fn bind(config: &Config) -> io::Result<Option<Self>> {
        let Some(address) = config.http_address else { return Ok(None) };
        let (listener, refused) = net::listen_tcp(address)?;
        if let Some(error) = refused {
            warn!(option = "SO_REUSEADDR", %error, "serving HTTP without a socket option that the kernel refuses: after a restart the port may be in use for a minute");
        }
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let access = Access::new(address, config.http_hosts.clone(), config.admin_token.clone());
        Ok(Some(Self { listener, address, access }))
    }

    /// Serves in a thread of its own until the process ends.
    ///
    /// # Errors
    /// Where the system gives no thread or what one needs.
    pub fn start(self, state: Arc<State>, board: Arc<Board>) -> io::Result<()> {
        let Self { listener, address, access } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let endpoint = Arc::new(Endpoint { access, state, board });
        let serve = move || runtime.block_on(accept(&listener, &endpoint));
        thread::Builder::new().name("http".to_owned()).spawn(serve)?;
        info!(%address, "listening for HTTP");
        Ok(())
    }
}

async fn accept(listener: &TcpListener, endpoint: &Arc<Endpoint>) {
    let connections = Connections::default();
    let (failures, refusals) = (Throttle::default(), Throttle::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = failures.pass(clock::now()) {
                    warn!(%error, left_out, "cannot accept an HTTP connection");
                }
                tokio::time::sleep(RECOVERY).await;
                continue;
            }
        };
        let Some(connection) = connections.admit(peer.ip()) else {
            if let Some(left_out) = refusals.pass(clock::now()) {
                warn!(%peer, left_out, "too many HTTP connections");
            }
            continue;
        };
        let endpoint = Arc::clone(endpoint);
        tokio::spawn(async move {
            serve(stream, endpoint).await;
            drop(connection);
        });
    }
}

async fn serve(stream: TcpStream, endpoint: Arc<Endpoint>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(LONGEST_STALL));
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        async move { Ok::<_, Infallible>(answer::answer(&request, &endpoint).await) }
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(LONGEST_REQUEST)
        .max_header_size(LARGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    // However it ends, only its own client has to know.
    let _ = connection.await;
}

/// How many connections there are from each address.
#[derive(Clone, Debug, Default)]
struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct Admitted {
    connections: Connections,
    peer: IpAddr,
}

impl Connections {
    fn admit(&self, peer: IpAddr) -> Option<Admitted> {
        let peer = site_of(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&peer).copied().unwrap_or(0);
        let all: usize = counts.values().sum();
        let is_refused = if peer.is_loopback() {
            all >= MOST_CONNECTIONS
        } else {
            all >= MOST_REMOTE_CONNECTIONS || count >= MOST_CONNECTIONS_PER_ADDRESS
        };
        if is_refused {
            return None;
        }
        counts.insert(peer, count + 1);
        Some(Admitted { connections: self.clone(), peer })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// What counts as one address: whoever has an IPv6 address has a /64.
fn site_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_altogether_and_for_each_address() {
        let connections = Connections::default();
        let remote = |n: usize| IpAddr::from([192, 0, 2, n.try_into().unwrap()]);
        let mut admitted = Vec::new();
        let mut admit = |ip| connections.admit(ip).map(|one| admitted.push(one)).is_some();
        for n in 0..MOST_REMOTE_CONNECTIONS / MOST_CONNECTIONS_PER_ADDRESS {
            assert!((0..MOST_CONNECTIONS_PER_ADDRESS).all(|_| admit(remote(n))));
            assert!(!admit(remote(n)));
        }
        assert!(!admit(remote(99)), "that is all that other machines may have");
        let local = Ipv6Addr::LOCALHOST.into();
        assert!((MOST_REMOTE_CONNECTIONS..MOST_CONNECTIONS).all(|_| admit(local)));
        assert!(!admit(local));
        admitted.pop();
        assert!(connections.admit(local).is_some());
        admitted.clear();
        assert!(connections.0.lock().unwrap().is_empty());
    }

    #[test]
    fn whoever_has_one_ipv6_address_has_many() {
        let site = |ip: &str| site_of(ip.parse().unwrap()).to_string();
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(site("::1"), "::1");
        assert_eq!(site("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
