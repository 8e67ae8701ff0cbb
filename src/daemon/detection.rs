//! Duplicate address detection, which delays binding to a new IPv6 address (RFC 4862).

use std::io;
use std::mem;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use tracing::info;

use crate::clock;
use crate::machine::{Detection, Machine};

/// The timeout for duplicate address detection, which takes 1 to 2 s unless the link is configured for more
/// probes.
const DAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval between attempts to bind during duplicate address detection.
const DAD_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The state of duplicate address detection, if it prevents binding to `ip`.
pub(super) fn detection(ip: IpAddr) -> Option<Detection> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Machine::new("/").detection(ip),
    }
}

/// Binds to an address, after duplicate address detection if necessary.
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

/// The state of the address and the remedy, if duplicate address detection prevents binding.
pub(super) fn remedy(detection: Detection) -> &'static str {
    match detection {
        Detection::Running => {
            "Duplicate address detection takes longer than 10 s. Check the address in `ip -6 address`, or add the address with `nodad`"
        }
        Detection::Failed => {
            "Another machine on the link has this address (`dadfailed` in `ip -6 address`). Change the address of one of the two machines"
        }
    }
}
