//! Simulates an operator during the measurement: scrapes the metrics and keeps the status page open.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wakeupd::client;

/// The time between two scrapes. A Prometheus server usually scrapes at most every ten seconds.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(100);

/// The time between two requests for the clients by prefix, as on the status page.
const PREFIXES_INTERVAL: Duration = Duration::from_secs(5);

/// The read timeout of the event stream. It bounds how long a thread takes to stop.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Queries the HTTP endpoint until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Operator {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<u64>>>,
}

impl Operator {
    /// Starts to query the endpoint at `http`, in the network namespace of the calling thread.
    pub(crate) fn look_at(http: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let start = |act: fn(SocketAddr, &AtomicBool) -> io::Result<u64>| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || act(http, &is_over))
        };
        let threads = vec![start(scrape), start(watch), start(look_at_prefixes)];
        Self { is_over, threads }
    }

    /// Stops the queries and returns the number of responses.
    pub(crate) fn stop(mut self) -> io::Result<u64> {
        self.is_over.store(true, Relaxed);
        let panicked = |_| io::Error::other("a thread that queries the daemon panicked");
        self.threads.drain(..).map(|thread| thread.join().map_err(panicked)?).sum()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

fn scrape(http: SocketAddr, is_over: &AtomicBool) -> io::Result<u64> {
    ask_every(SCRAPE_INTERVAL, http, "/metrics", is_over)
}

fn look_at_prefixes(http: SocketAddr, is_over: &AtomicBool) -> io::Result<u64> {
    ask_every(PREFIXES_INTERVAL, http, "/prefixes?limit=10", is_over)
}

fn ask_every(
    interval: Duration,
    http: SocketAddr,
    path: &str,
    is_over: &AtomicBool,
) -> io::Result<u64> {
    let mut answers = 0;
    let mut next = Instant::now();
    while !is_over.load(Relaxed) {
        if Instant::now() < next {
            thread::sleep(SCRAPE_INTERVAL.min(next - Instant::now()));
            continue;
        }
        next += interval;
        let answer = client::get(http, path, None).map_err(io::Error::other)?;
        if !answer.status.is_success() {
            return Err(io::Error::other(format!("{path} returned {}", answer.status)));
        }
        answers += 1;
    }
    Ok(answers)
}

/// Reads the event stream, from which the status page gets an update every second.
fn watch(http: SocketAddr, is_over: &AtomicBool) -> io::Result<u64> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /events HTTP/1.0\r\n\r\n")?;
    let mut events = 0;
    let mut buffer = [0; 16 << 10];
    while !is_over.load(Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the daemon closed the event stream")),
            Ok(length) => {
                let received = buffer[..length].windows(2);
                events += received.filter(|bytes| *bytes == b"\n\n").count() as u64;
            }
            Err(error)
                if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {
            }
            Err(error) => return Err(error),
        }
    }
    Ok(events)
}
