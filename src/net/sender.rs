//! Sends datagrams.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use super::{SendFailure, batch, bound};

/// A socket to send from. Each thread has its own, so threads do not contend in the kernel, and the kernel
/// does not wake the runtime whenever a datagram leaves.
#[derive(Debug)]
pub struct Sender {
    pub(super) socket: Arc<UdpSocket>,
    /// Shared by all workers, for use while the sender's own buffer is full.
    pub(super) spares: Arc<[Arc<UdpSocket>]>,
    pub(super) receiver: Arc<UdpSocket>,
    pub(super) address: SocketAddr,
}

impl Sender {
    /// Sends `payload` to each of `destinations` (at most [`BATCH`](super::BATCH)) in turn until one fails. The source
    /// address is `local`, or else the address that the daemon is bound to. Returns the number of datagrams
    /// that the kernel accepted, and the error of the next one.
    #[must_use]
    pub fn send(
        &self,
        payload: &[u8],
        local: Option<IpAddr>,
        destinations: &[SocketAddr],
    ) -> (usize, Option<io::Error>) {
        let local = local.or(self.bound());
        // Only the receiving socket lets the kernel choose the source address.
        let (mut socket, mut spares) = match local {
            Some(_) => (&self.socket, self.spares.iter()),
            None => (&self.receiver, [].iter()),
        };
        let (mut sent, mut tries) = (0, 0);
        while sent < destinations.len() {
            let rest = &destinations[sent..];
            match batch::send(socket, self.address.is_ipv6(), payload, local, rest) {
                Ok(n) => (sent, tries) = (sent + n, 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match spares.next() {
                    Some(spare) => socket = spare,
                    None => return (sent, Some(error)),
                },
                Err(error) if tries < SendFailure::from(&error).retries() => tries += 1,
                Err(error) => return (sent, Some(error)),
            }
        }
        (sent, None)
    }

    /// The address that the daemon is bound to, unless it is the wildcard address.
    #[must_use]
    pub fn bound(&self) -> Option<IpAddr> {
        bound(self.address)
    }

    /// Whether pings can still leave from `ip`, that is, whether this machine has the address.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        batch::is_local(&self.socket, ip)
    }
}
