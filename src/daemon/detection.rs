//! Duplicate address detection, which keeps a new IPv6 address from being bound for a while (RFC 4862).

use std::io;
use std::mem;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use tracing::info;

use crate::clock;
use crate::machine::{Detection, Machine};

/// How long to wait for duplicate address detection, which takes 1 to 2 s unless a link is configured to probe
/// more often.
const DAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to bind while the kernel probes for duplicates.
const DAD_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The state of duplicate address detection, if it keeps an address from being bound.
pub(super) fn detection(ip: IpAddr) -> Option<Detection> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Machine::new("/").detection(ip),
    }
}

/// Binds to an address, and waits for its duplicate address detection.
pub(super) fn after_detection<T>(ip: IpAddr, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = clock::now() + DAD_TIMEOUT;
    let mut is_told = false;
    loop {
        let bound = bind();
        let is_in_the_way = matches!(&bound, Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable && clock::now() < deadline
                && detection(ip) == Some(Detection::Running));
        if !is_in_the_way {
            return bound;
        }
        if !mem::replace(&mut is_told, true) {
            info!(%ip, "waiting for duplicate address detection, up to {DAD_TIMEOUT:?}");
        }
        thread::sleep(DAD_POLL_INTERVAL);
    }
}

/// What to do if the detection keeps an address from being bound.
pub(super) fn remedy(detection: Detection) -> &'static str {
    match detection {
        Detection::Running => {
            "duplicate address detection takes longer than 10 s, so see the address in `ip -6 address`, or add it with `nodad`"
        }
        Detection::Failed => {
            "another machine on the link has this address (`dadfailed` in `ip -6 address`), so change one of the two"
        }
    }
}
