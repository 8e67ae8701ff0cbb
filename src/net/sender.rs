//! Sends datagrams.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use super::{SendFailure, batch, bound};

/// A socket to send from. Each thread has its own, so that none waits for another in the kernel,
/// which need not tell the runtime either whenever a datagram has left.
#[derive(Debug)]
pub struct Sender {
    pub(super) socket: Arc<UdpSocket>,
    /// All workers share these. They take over while the buffer of the own socket is full.
    pub(super) spares: Arc<[Arc<UdpSocket>]>,
    pub(super) receiver: Arc<UdpSocket>,
    pub(super) address: SocketAddr,
}

impl Sender {
    /// Sends `payload` to each of `destinations` (at most [`BATCH`]) in turn, from `local`, or else from the
    /// address that the daemon is bound to, until one fails. Returns how many the kernel took, and the error of
    /// the next one.
    #[must_use]
    pub fn send(
        &self,
        payload: &[u8],
        local: Option<IpAddr>,
        destinations: &[SocketAddr],
    ) -> (usize, Option<io::Error>) {
        let local = local.or(self.bound());
        // Only the receiving socket leaves the choice of a source address to the kernel.
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

    /// The address that the daemon is bound to, unless it serves every address.
    #[must_use]
    pub fn bound(&self) -> Option<IpAddr> {
        bound(self.address)
    }

    /// Whether pings can still leave from `ip`: whether it is an address of this machine.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        batch::is_local(&self.socket, ip)
    }
}
