//! A client that sees whether it is pinged each second.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wakeupd::clock;
use wakeupd::tally::Tally;

use crate::daemon::{Daemon, wait_until};

/// How long after a fault pings may stay away. A second or two is what it takes.
const LONGEST_RETURN: Duration = Duration::from_secs(5);

/// A client with a heartbeat a second, until it is dropped.
#[derive(Debug)]
pub struct Witness {
    address: SocketAddr,
    tally: Arc<Mutex<Tally>>,
    is_over: Arc<AtomicBool>,
}

impl Witness {
    /// One on this machine.
    pub fn of(daemon: &Daemon) -> Self {
        Self::new(UdpSocket::bind((daemon.address.ip(), 0)).unwrap(), daemon.address)
    }

    /// Goes on as soon as it has got its first ping.
    pub fn new(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let address = socket.local_addr().unwrap();
        let (tally, is_over) = <(Arc<Mutex<Tally>>, Arc<AtomicBool>)>::default();
        let (shared, over) = (Arc::clone(&tally), Arc::clone(&is_over));
        thread::spawn(move || {
            while !over.load(Relaxed) {
                // A local firewall may have no room for it.
                let _ = socket.send_to(&[0, 0], server);
                let received = socket.recv_from(&mut [0; 64]);
                // Whoever had the port before may still be pinged by another daemon.
                if received.is_ok_and(|(_, source)| source == server) {
                    shared.lock().unwrap().ping(clock::now());
                }
            }
        });
        let witness = Self { address, tally, is_over };
        witness.sees(1);
        witness
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for so many pings.
    pub fn sees(&self, pings: u64) {
        let received = || self.tally.lock().unwrap().received();
        let enough = received() + pings;
        wait_until("it is pinged", || received() >= enough);
    }

    /// Checks that it missed nothing since it began to count.
    pub fn missed_nothing(&self, daemon: &Daemon) {
        let mut tally = *self.tally.lock().unwrap();
        tally.end(clock::now());
        let told = (tally.received() > 0, tally.missed(), tally.duplicated());
        assert_eq!(told, (true, 0, 0), "{tally:?}; the daemon: {:#?}", daemon.lines());
    }

    /// Waits until it is pinged again, and checks that it missed no more since it began to count than a
    /// stop of that time explains, and that nothing was made up for.
    pub fn missed_at_most(&self, stop: Duration, daemon: &Daemon) {
        self.sees(3);
        let mut tally = *self.tally.lock().unwrap();
        tally.end(clock::now());
        // The seconds in which it began and ended may count too.
        let is_fine = tally.missed() <= stop.as_secs() + 3 && tally.duplicated() == 0;
        assert!(is_fine, "{tally:?}; the daemon: {:#?}", daemon.lines());
    }

    /// Checks that pings come again now that a fault is over, and goes on to count with what comes next.
    pub fn comes_back(&self, daemon: &Daemon) {
        let over = Instant::now();
        self.forget();
        self.sees(1);
        let absence = over.elapsed();
        assert!(absence < LONGEST_RETURN, "{absence:?}; the daemon: {:#?}", daemon.lines());
        // What waited for a neighbour's address may come in one burst.
        thread::sleep(Duration::from_millis(500));
        self.forget();
        self.sees(3);
    }

    fn forget(&self) {
        *self.tally.lock().unwrap() = Tally::default();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}
