//! A received datagram.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The number of payload bytes that are kept. No datagram of the protocol is longer.
pub(super) const MAX_PAYLOAD: usize = 80;

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's address.
    pub source: SocketAddr,
    /// The local address that the datagram was sent to, if the kernel reports it.
    pub local: Option<IpAddr>,
    /// The length of the whole payload in bytes.
    pub length: usize,
    /// The kernel's receive timestamp: wall-clock time since 1970.
    pub arrived: Option<Duration>,
    payload: [u8; MAX_PAYLOAD],
}

impl Datagram {
    pub(super) fn new(
        source: SocketAddr,
        local: Option<IpAddr>,
        arrived: Option<Duration>,
        length: usize,
        content: &[u8],
    ) -> Self {
        let mut payload = [0; MAX_PAYLOAD];
        let kept = content.len().min(MAX_PAYLOAD);
        payload[..kept].copy_from_slice(&content[..kept]);
        Self { source, local, length, arrived, payload }
    }

    /// The payload, truncated to `MAX_PAYLOAD` bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload[..self.length.min(MAX_PAYLOAD)]
    }
}
