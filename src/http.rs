//! The operator's HTTP endpoint: metrics, health, clients, and the status page.
//!
//! It has its own thread and runtime, and only reads the data of the other threads, so it cannot delay them.
//! Limits apply to the number of connections, the size of a request, and the time for requests and responses.

mod access;
mod clients;
mod connections;
mod events;
mod exposition;
mod openapi;
mod page;
mod prefixes;
mod response;
mod router;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tracing::{info, warn};

use self::access::Access;
pub use self::connections::MOST_CONNECTIONS;
use self::connections::{Connection, Connections};
use self::router::Endpoint;
use crate::catalogue::log::SOCKET_OPTION_REFUSED;
use crate::clock;
use crate::config::Config;
use crate::net;
use crate::sampler::Board;
use crate::shared::Shared;
use crate::threads;
use crate::throttle::Throttle;

/// The timeout for a request to arrive, and for an idle connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout for a client that accepts no part of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of a request head, in bytes.
const LARGEST_HEAD: usize = 16 << 10;

/// The maximum number of header fields in a request.
const MOST_FIELDS: usize = 64;

/// The pause after a failed accept, for example because too many files are open.
const BACKOFF: Duration = Duration::from_millis(100);

/// A bound endpoint.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    access: Access,
}

impl Server {
    /// Binds the endpoint to `address`.
    ///
    /// # Errors
    /// If the address cannot be bound, or the socket cannot be set up.
    pub fn bind(address: SocketAddr, config: &Config) -> io::Result<Self> {
        let (listener, refused) = net::listen_tcp(address)?;
        if let Some(error) = refused {
            let option = "SO_REUSEADDR";
            let cost = "after a restart, the HTTP port can be unavailable for a minute";
            let problem = SOCKET_OPTION_REFUSED.with(&[("option", &option), ("cost", &cost)]);
            warn!(option, %error, "{problem}");
        }
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let access = Access::new(address, config.http_hosts.clone(), config.admin_token.clone());
        Ok(Self { listener, address, access })
    }

    /// Serves in a thread of its own until the process ends.
    ///
    /// # Errors
    /// If the runtime or the thread cannot be created.
    pub fn start(self, shared: Arc<Shared>, board: Arc<Board>) -> io::Result<()> {
        let Self { listener, address, access } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let endpoint =
            Arc::new(Endpoint { access, shared, board, wrong_tokens: Throttle::default() });
        let serve = move || runtime.block_on(accept(&listener, &endpoint));
        threads::start("http", serve)?;
        info!(%address, "listening for HTTP");
        Ok(())
    }
}

async fn accept(listener: &TcpListener, endpoint: &Arc<Endpoint>) {
    let connections = Connections::default();
    let (failures, closings) = (Throttle::default(), Throttle::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(suppressed) = failures.pass(clock::now()) {
                    warn!(%error, suppressed, "cannot accept an HTTP connection");
                }
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        };
        let now = clock::now();
        let (connection, closed) = connections.admit(peer, now);
        if let Some(closed) = closed
            && let Some(suppressed) = closings.pass(now)
        {
            warn!(%peer, %closed, suppressed, "too many HTTP connections: closed a connection of the address with the most connections, to accept a new connection");
        }
        tokio::spawn(serve(stream, connection, Arc::clone(endpoint)));
        // Let the new connection read its request before the next one may evict it.
        tokio::task::yield_now().await;
    }
}

async fn serve(stream: TcpStream, connection: Connection, endpoint: Arc<Endpoint>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = Arc::new(connection);
    let server = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let (endpoint, answering) = (Arc::clone(&endpoint), server.answer());
        async move {
            let response = router::respond(&request, &endpoint, &answering).await;
            Ok::<_, Infallible>(response.map(|body| answering.with(body)))
        }
    });
    let exchange = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_header_size(LARGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    // An error concerns only this client, so it is ignored.
    tokio::select! {
        _ = exchange => {}
        () = connection.closed() => {}
    }
}
