//! What the kernel's send path costs by itself: a bare `sendmmsg(2)` loop to the same clients.
//! The daemon's batches and its don't-fragment option are here too, because they are the fastest.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, sendmmsg};

use super::crowd::Crowd;
use crate::clock;
use crate::net::{BATCH, linux};
use crate::wire::PING;

const LENGTH: Duration = Duration::from_secs(3);

/// What one thread can send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    /// Processor time for a datagram.
    pub(super) cost: Duration,
    pub(super) datagrams_per_second: f64,
}

/// Measures it through `socket`, which stands where the daemon's did.
pub(super) fn measure(crowd: &Crowd, socket: &UdpSocket) -> io::Result<Baseline> {
    linux::forbid_fragments(socket)?;
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for client in 0..crowd.size {
        match crowd.address(client)? {
            SocketAddr::V4(address) => v4.push(Some(SockaddrIn::from(address))),
            SocketAddr::V6(address) => v6.push(Some(SockaddrIn6::from(address))),
        }
    }
    if v6.is_empty() { send(socket, &v4) } else { send(socket, &v6) }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer datagrams than 2^52")]
fn send<A: SockaddrLike + Copy>(
    socket: &UdpSocket,
    destinations: &[Option<A>],
) -> io::Result<Baseline> {
    let slice = [IoSlice::new(&PING)];
    let mut headers = MultiHeaders::<A>::preallocate(BATCH, None);
    let mut sent = 0;
    let (start, cpu) = (Instant::now(), clock::thread_cpu_time());
    for batch in destinations.chunks(BATCH).cycle() {
        let slices = std::iter::repeat_n(&slice, batch.len());
        let fd = socket.as_raw_fd();
        match sendmmsg(fd, &mut headers, slices, batch, [], MsgFlags::empty()) {
            Ok(results) => sent += results.count(),
            // A client's socket may be gone by now.
            Err(Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        if start.elapsed() >= LENGTH {
            break;
        }
    }
    let cpu = clock::thread_cpu_time().saturating_sub(cpu);
    Ok(Baseline {
        cost: cpu.div_f64(sent as f64),
        datagrams_per_second: sent as f64 / start.elapsed().as_secs_f64(),
    })
}
