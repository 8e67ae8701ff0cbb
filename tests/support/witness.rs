//! A client that checks that it is pinged every second.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wakeupd::clock;
use wakeupd::ping_stats::PingStats;

use super::daemon::{Daemon, wait_until};

/// The longest acceptable time from the end of a fault to the next ping. A second or two is typical.
const LONGEST_RETURN: Duration = Duration::from_secs(5);

/// A client that sends a heartbeat a second until it is dropped.
#[derive(Debug)]
pub struct Witness {
    address: SocketAddr,
    stats: Arc<Mutex<PingStats>>,
    is_over: Arc<AtomicBool>,
}

impl Witness {
    /// A witness on this machine.
    pub fn of(daemon: &Daemon) -> Self {
        Self::new(UdpSocket::bind((daemon.address.ip(), 0)).unwrap(), daemon.address)
    }

    /// Returns after the first ping.
    pub fn new(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let address = socket.local_addr().unwrap();
        let (stats, is_over) = <(Arc<Mutex<PingStats>>, Arc<AtomicBool>)>::default();
        let (shared, over) = (Arc::clone(&stats), Arc::clone(&is_over));
        thread::spawn(move || {
            while !over.load(Relaxed) {
                // The send fails if a local firewall has no room for it.
                let _ = socket.send_to(&[0, 0], server);
                let received = socket.recv_from(&mut [0; 64]);
                // Another daemon may still ping the previous owner of the port.
                if received.is_ok_and(|(_, source)| source == server) {
                    shared.lock().unwrap().ping(clock::now());
                }
            }
        });
        let witness = Self { address, stats, is_over };
        witness.sees(1);
        witness
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for this many more pings.
    pub fn sees(&self, pings: u64) {
        let received = || self.stats.lock().unwrap().received();
        let enough = received() + pings;
        wait_until("the witness is pinged", || received() >= enough);
    }

    /// Checks that it missed no ping since it began to count.
    pub fn missed_nothing(&self, daemon: &Daemon) {
        let mut stats = *self.stats.lock().unwrap();
        stats.end(clock::now());
        let told = (stats.received() > 0, stats.missed(), stats.duplicated());
        assert_eq!(told, (true, 0, 0), "{stats:?}; the daemon: {:#?}", daemon.lines());
    }

    /// Waits until pings resume. Checks that it missed no more pings than a stop of this length explains, and
    /// that the daemon did not send the missed pings later.
    pub fn missed_at_most(&self, stop: Duration, daemon: &Daemon) {
        self.sees(3);
        let mut stats = *self.stats.lock().unwrap();
        stats.end(clock::now());
        // The seconds in which the stop began and ended may count too.
        let is_fine = stats.missed() <= stop.as_secs() + 3 && stats.duplicated() == 0;
        assert!(is_fine, "{stats:?}; the daemon: {:#?}", daemon.lines());
    }

    /// Checks that pings resume after a fault, and restarts the count.
    pub fn comes_back(&self, daemon: &Daemon) {
        let over = Instant::now();
        self.forget();
        self.sees(1);
        let absence = over.elapsed();
        assert!(absence < LONGEST_RETURN, "{absence:?}; the daemon: {:#?}", daemon.lines());
        // Pings that waited for a neighbour's address may arrive in one burst.
        thread::sleep(Duration::from_millis(500));
        self.forget();
        self.sees(3);
    }

    fn forget(&self) {
        *self.stats.lock().unwrap() = PingStats::default();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}
