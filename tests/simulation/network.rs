//! The network between clients and daemon, and the daemon's socket.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

use crate::clocks::When;

/// A datagram as the kernel delivers it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    pub source: SocketAddr,
    /// Its destination address.
    pub local: IpAddr,
    pub arrived: When,
    /// The kernel's timestamp: the wall clock at its arrival, since 1970.
    pub stamp: Duration,
}

/// A network path that loses, delays, reorders and duplicates datagrams.
#[derive(Clone, Debug)]
pub struct Way {
    loss: f64,
    duplication: f64,
    delay: Duration,
    /// Most datagrams are lost until then.
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

    /// The delay of each copy of a datagram that is sent now: none, one or two copies arrive.
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
        // A few arrive so late that others overtake them.
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
    /// The clients with a pending ICMP port unreachable error.
    errors: VecDeque<SocketAddr>,
}

impl Socket {
    pub fn new(capacity: usize) -> Self {
        Self { is_open: true, capacity, waiting: VecDeque::new(), errors: VecDeque::new() }
    }

    /// Queues a datagram, if the socket is open and has room.
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

    /// Queues an ICMP port unreachable error for `client`.
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

    /// The arrival time of the oldest queued datagram from `source`.
    pub fn waits_since(&self, source: SocketAddr) -> Option<When> {
        let waiting = self.waiting.iter().find(|datagram| datagram.source == source);
        waiting.map(|datagram| datagram.arrived)
    }
}
