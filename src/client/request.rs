//! A minimal HTTP client.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::Token;

/// The time limit for a response, including the attempts to connect to all addresses.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest response body, in bytes.
const LONGEST: usize = 16 << 20;

/// The response of the endpoint.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: StatusCode,
    /// The whole body, up to 16 MiB.
    pub body: Bytes,
}

/// Sends a GET request for `path` to the endpoint at `address`, which can be a wildcard. If `token` is set,
/// the request presents it.
///
/// # Errors
/// If no valid response arrives within 5 seconds.
pub fn get(
    address: SocketAddr,
    path: &str,
    token: Option<&Token>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(TIMEOUT, ask(address, path, token)).await });
    // A lookup may still be waiting for a name server.
    runtime.shutdown_background();
    answer.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?
}

async fn ask(
    address: SocketAddr,
    path: &str,
    token: Option<&Token>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let stream = connect(address).await?;
    let address = stream.peer_addr()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, address.to_string());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST).collect().await?.to_bytes();
    Ok(Answer { status, body })
}

/// Connects to `address`. If it is a wildcard (`0.0.0.0` or `::`), tries the addresses from [`local`], then
/// those of `localhost`.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let failed = match TcpStream::connect(&*local(address)).await {
        Err(error) if address.ip().is_unspecified() => error,
        connected => return connected,
    };
    let Ok(named) = lookup_host(("localhost", address.port())).await else { return Err(failed) };
    let named: Vec<_> = named.filter(|it| address.is_ipv6() || it.is_ipv4()).collect();
    TcpStream::connect(&*named).await.map_err(|_| failed)
}

/// The addresses at which this machine can reach a socket bound to `address`, the likeliest first. For a
/// wildcard these are the loopback addresses: a socket bound to `::` serves both families or, with
/// `net.ipv6.bindv6only`, IPv6 only.
pub(super) fn local(address: SocketAddr) -> Vec<SocketAddr> {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![(Ipv4Addr::LOCALHOST, port).into()],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]
        }
        _ => vec![address],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_maps_to_loopback() {
        let local = |address: &str| local(address.parse().unwrap());
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        assert_eq!(local("0.0.0.0:80"), [at("127.0.0.1:80")]);
        assert_eq!(local("[::]:80"), [at("[::1]:80"), at("127.0.0.1:80")]);
        for address in ["127.0.0.2:80", "192.0.2.1:80", "[2001:db8::1]:80"] {
            assert_eq!(local(address), [at(address)]);
        }
    }
}
