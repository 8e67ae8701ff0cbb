//! The least of an HTTP client.

use std::collections::HashSet;
use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Token;

/// The time limit for an answer, over all addresses that are tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer, in bytes.
const LONGEST: usize = 16 << 20;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// How it went.
    pub status: StatusCode,
    /// What it says.
    pub body: Bytes,
}

/// Asks the endpoint at `address`, which may be a wildcard, for what is at `path`.
///
/// # Errors
/// If there is no answer in time, or none that is one.
pub fn get(
    address: SocketAddr,
    path: &str,
    token: Option<&Token>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, ask(&local(address), path, token)).await;
        answer.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
    })
}

/// Asks at the first of the addresses that takes the connection.
async fn ask(
    addresses: &[SocketAddr],
    path: &str,
    token: Option<&Token>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(addresses).await?;
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

/// Where this machine may reach what is bound to `address`, the likeliest first. Of a wildcard these are the
/// loopback addresses, and all that `localhost` stands for. A socket that is bound to `::` may serve both
/// families or, with `net.ipv6.bindv6only`, IPv6 alone.
pub(super) fn local(address: SocketAddr) -> Vec<SocketAddr> {
    if !address.ip().is_unspecified() {
        return vec![address];
    }
    let port = address.port();
    let mut all: Vec<SocketAddr> =
        vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()];
    all.extend(("localhost", port).to_socket_addrs().into_iter().flatten());
    all.retain(|local| address.is_ipv6() || local.is_ipv4());
    let mut seen = HashSet::new();
    all.retain(|local| seen.insert(*local));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_by_loopback() {
        let local = |address: &str| local(address.parse().unwrap());
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        assert_eq!(local("0.0.0.0:80")[0], at("127.0.0.1:80"));
        assert!(local("0.0.0.0:80").iter().all(SocketAddr::is_ipv4));
        assert_eq!(local("[::]:80")[..2], [at("[::1]:80"), at("127.0.0.1:80")]);
        for address in ["127.0.0.2:80", "192.0.2.1:80", "[2001:db8::1]:80"] {
            assert_eq!(local(address), [at(address)]);
        }
    }
}
