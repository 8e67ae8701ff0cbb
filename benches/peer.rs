//! The baseline for comparisons: the obvious implementation, on tokio and `DashMap`.
//!
//! It speaks the same protocol, and its only metric is the number of its clients: `cargo build --release
//! --example peer`, then `wakeupd-bench --program target/release/examples/peer`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use wakeupd_protocol::{PERIOD, PING};

/// The last heartbeat of each client of a worker.
type Clients = Arc<DashMap<SocketAddr, Instant>>;

/// Reads an environment variable with the same name as the daemon's.
fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    end_with_the_bench();
    let host = std::env::var("HOST").unwrap_or_else(|_| "0.0.0.0".to_owned());
    let port = u16::try_from(variable("PORT", 7561)).map_err(io::Error::other)?;
    let socket = Arc::new(UdpSocket::bind((host.as_str(), port)).await?);
    let expiration = Duration::from_secs(variable("CLIENT_EXPIRATION_SECONDS", 120));
    let workers = usize::try_from(variable("WORKER_POOL_SIZE", 10)).unwrap_or(1).max(1);
    let shares: Vec<Clients> = (0..workers).map(|_| Clients::default()).collect();
    for clients in &shares {
        tokio::spawn(ping(Arc::clone(&socket), Arc::clone(clients), expiration));
    }
    tokio::spawn(listen(Arc::clone(&socket), shares.clone()));
    let address = socket.local_addr()?;
    log(&json!({ "level": "INFO", "message": "listening", "address": address }));
    signal(SignalKind::terminate())?.recv().await;
    let clients: usize = shares.iter().map(|clients| clients.len()).sum();
    log(&json!({ "level": "INFO", "message": "summary", "clients": clients }));
    Ok(())
}

async fn listen(socket: Arc<UdpSocket>, shares: Vec<Clients>) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            shares[share(client, shares.len())].insert(client, Instant::now());
        }
    }
}

/// Pings a worker's clients every second, and removes expired ones.
async fn ping(socket: Arc<UdpSocket>, clients: Clients, expiration: Duration) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let (mut live, mut expired) = (Vec::new(), Vec::new());
        // Do not hold a map guard across an await.
        for entry in clients.iter() {
            let is_live = entry.value().elapsed() <= expiration;
            if is_live { &mut live } else { &mut expired }.push(*entry.key());
        }
        for client in live {
            let _ = socket.send_to(&PING, client).await;
        }
        for client in expired {
            clients.remove_if(&client, |_, last_heartbeat| last_heartbeat.elapsed() > expiration);
        }
    }
}

/// The worker that serves a client.
fn share(client: SocketAddr, workers: usize) -> usize {
    let low = match client.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    (usize::from(low) + usize::from(client.port())) % workers
}

fn log(line: &serde_json::Value) {
    eprintln!("{line}");
}

/// Ends this process with the bench, which passes its process ID in `--ends-with`.
fn end_with_the_bench() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--ends-with").skip(1);
    #[cfg(target_os = "linux")]
    if let Some(parent) = arguments.next().and_then(|pid| pid.parse().ok()) {
        wakeupd::signals::end_with(parent);
    }
    #[cfg(not(target_os = "linux"))]
    drop(arguments.next());
}
