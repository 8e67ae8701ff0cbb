//! What happens to datagrams on their way, and the socket in which they wait.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

use crate::clocks::When;

/// A datagram as the kernel hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    pub source: SocketAddr,
    /// The address of the daemon's machine that it hit.
    pub local: IpAddr,
    pub arrived: When,
    /// The kernel's timestamp: the wall clock at that time, since 1970.
    pub stamp: Duration,
}

/// A way through the net that loses, delays, reorders and duplicates.
#[derive(Clone, Debug)]
pub struct Way {
    loss: f64,
    duplication: f64,
    delay: Duration,
    /// Until when hardly anything comes through.
    bad_until: When,
}

impl Way {
    pub fn new(loss: f64, rng: &mut Rng) -> Self {
        Self {
            loss: loss * rng.f64(),
            duplication: 0.03 * rng.f64(),
            delay: Duration::from_millis(rng.u64(1..150)),
            bad_until: When::default(),
        }
    }

    /// After which times what is sent now arrives: never, once or twice.
    pub fn delays(&mut self, now: When, rng: &mut Rng) -> Vec<Duration> {
        if rng.f64() < 0.002 {
            self.bad_until = now + Duration::from_secs(rng.u64(1..60));
        }
        let loss = if now < self.bad_until { 0.8 } else { self.loss };
        let copies = 1 + usize::from(rng.f64() < self.duplication);
        let delays = (0..copies).map(|_| self.delay(rng)).collect::<Vec<_>>();
        delays.into_iter().filter(|_| rng.f64() >= loss).collect()
    }

    fn delay(&self, rng: &mut Rng) -> Duration {
        // A few come so late that others overtake them.
        let most = if rng.u8(..) < 5 { 20_000 } else { 40 };
        self.delay + Duration::from_micros(rng.u64(0..most * 1_000))
    }
}

/// The socket's receive buffer.
#[derive(Debug)]
pub struct Socket {
    pub is_open: bool,
    capacity: usize,
    waiting: VecDeque<Datagram>,
    /// Whose port is said to be closed.
    errors: VecDeque<SocketAddr>,
}

impl Socket {
    pub fn new(capacity: usize) -> Self {
        Self { is_open: true, capacity, waiting: VecDeque::new(), errors: VecDeque::new() }
    }

    /// Puts a datagram into it, if there is a socket and room.
    pub fn put(&mut self, datagram: Datagram) -> bool {
        let is_taken = self.is_open && self.waiting.len() < self.capacity;
        if is_taken {
            self.waiting.push_back(datagram);
        }
        is_taken
    }

    pub fn take(&mut self) -> Option<Datagram> {
        self.waiting.pop_front()
    }

    /// Puts into it that the port of `client` is closed.
    pub fn put_error(&mut self, client: SocketAddr) {
        if self.is_open && self.errors.len() < self.capacity {
            self.errors.push_back(client);
        }
    }

    pub fn take_error(&mut self) -> Option<SocketAddr> {
        self.errors.pop_front()
    }

    pub fn close(&mut self) {
        self.is_open = false;
        self.waiting.clear();
        self.errors.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Since when a datagram of `source` has been waiting.
    pub fn waits_since(&self, source: SocketAddr) -> Option<When> {
        let waiting = self.waiting.iter().find(|datagram| datagram.source == source);
        waiting.map(|datagram| datagram.arrived)
    }
}
