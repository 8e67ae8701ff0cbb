//! The least of an HTTP client.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Token;

/// How long an answer may take altogether.
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
        let answer = tokio::time::timeout(PATIENCE, ask(reachable(address), path, token)).await;
        answer.map_err(|_| format!("nothing within {} s", PATIENCE.as_secs()))?
    })
}

async fn ask(
    address: SocketAddr,
    path: &str,
    token: Option<&Token>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
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

/// Where to reach what is bound to `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        }
    }
    address
}
