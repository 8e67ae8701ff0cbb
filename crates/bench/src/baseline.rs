//! The limits of the machine: the rate at which a bare `sendmmsg(2)` loop sends to the same clients, and the
//! lateness with which a thread that only sleeps wakes up.
//!
//! The loop uses the daemon's batch size and don't-fragment option, because they give the highest rate.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, sendmmsg};

use wakeupd::clock;
use wakeupd::net::{BATCH, linux};
use wakeupd_protocol::PING;

use crate::crowd::Crowd;
use crate::histogram::{histogram, nanos};

const SENDING: Duration = Duration::from_secs(3);
const SLEEPING: Duration = Duration::from_secs(10);

/// The number of slots into which the daemon divides a second.
const SLOTS: u32 = 256;

/// The limits of one thread.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// Processor time per datagram.
    pub(crate) cost: Duration,
    pub(crate) datagrams_per_second: f64,
    /// Wake-up lateness for each slot of the second, in nanoseconds.
    pub(crate) wakeup_lateness: Histogram<u64>,
}

/// Measures the limits with `socket`, which is bound to the daemon's IP address.
pub(crate) fn measure(crowd: &Crowd, socket: &UdpSocket) -> io::Result<Baseline> {
    linux::forbid_fragments(socket)?;
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for client in 0..crowd.size {
        match crowd.address(client)? {
            SocketAddr::V4(address) => v4.push(Some(SockaddrIn::from(address))),
            SocketAddr::V6(address) => v6.push(Some(SockaddrIn6::from(address))),
        }
    }
    let (datagrams_per_second, cost) =
        if v6.is_empty() { send(socket, &v4)? } else { send(socket, &v6)? };
    Ok(Baseline { cost, datagrams_per_second, wakeup_lateness: sleep() })
}

/// Sends for [`SENDING`]. Returns the datagrams per second and the processor time per datagram.
#[expect(clippy::cast_precision_loss, reason = "far fewer datagrams than 2^52")]
fn send<A: SockaddrLike + Copy>(
    socket: &UdpSocket,
    destinations: &[Option<A>],
) -> io::Result<(f64, Duration)> {
    let slice = [IoSlice::new(&PING)];
    let mut headers = MultiHeaders::<A>::preallocate(BATCH, None);
    let mut sent = 0;
    let (start, cpu) = (Instant::now(), clock::thread_cpu_time());
    for batch in destinations.chunks(BATCH).cycle() {
        let slices = std::iter::repeat_n(&slice, batch.len());
        let fd = socket.as_raw_fd();
        match sendmmsg(fd, &mut headers, slices, batch, [], MsgFlags::empty()) {
            Ok(results) => sent += results.count(),
            // A client's socket may be closed by now.
            Err(Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        if start.elapsed() >= SENDING {
            break;
        }
    }
    let cpu = clock::thread_cpu_time().saturating_sub(cpu);
    Ok((sent as f64 / start.elapsed().as_secs_f64(), cpu.div_f64(sent as f64)))
}

/// Sleeps until each slot for [`SLEEPING`]. One thread wakes up as often as all workers of the daemon
/// together.
fn sleep() -> Histogram<u64> {
    let mut lateness = histogram();
    let start = clock::now();
    let slot = Duration::from_secs(1) / SLOTS;
    let deadlines = (1..).map(|n| start + slot * n);
    for deadline in deadlines.take_while(|deadline| deadline.since(start) < SLEEPING) {
        thread::sleep(deadline.since(clock::now()));
        lateness.saturating_record(nanos(clock::now().since(deadline)));
    }
    lateness
}
