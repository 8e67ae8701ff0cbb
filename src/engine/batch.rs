//! The pings of a slot, grouped for batched system calls.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use wakeupd_protocol::PING;

use super::registry::{Removal, Sources, Sweep, Target};

/// A datagram for the caller to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// The wake-up ping.
    Ping,
}

impl Emission {
    /// The bytes on the wire.
    #[must_use]
    pub const fn payload(self) -> &'static [u8] {
        match self {
            Self::Ping => &PING,
        }
    }
}

/// One datagram to several clients, from the same source address.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The datagram to send.
    pub emission: Emission,
    /// The local address that the clients send to. `None` means that the kernel chooses the source address.
    pub source: Option<IpAddr>,
    /// The recipients.
    pub destinations: &'a [SocketAddr],
}

/// The pings to send in a slot, and the removed clients. A worker reuses one batch for all its slots, so the
/// allocations persist.
#[derive(Debug)]
pub struct Batch {
    pub(super) sweep: Sweep,
    /// Whether the removed clients have been subtracted from the guard's counts.
    pub(super) is_settled: bool,
    destinations: Vec<SocketAddr>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { sweep: Sweep::default(), is_settled: true, destinations: Vec::new() }
    }
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.sweep.clear();
    }

    /// The number of datagrams to send.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sweep.v4.len() + self.sweep.v6.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The clients that were removed in the slot.
    #[must_use]
    pub fn removed(&self) -> &[(SocketAddr, Removal)] {
        &self.sweep.removed
    }

    /// Calls `transmit` for each group of datagrams to send.
    pub fn for_each(&mut self, mut transmit: impl FnMut(Transmit<'_>)) {
        let transmit = |group: Transmit<'_>| {
            transmit(group);
            Ok(())
        };
        let Ok(()) = self.try_for_each::<Infallible>(transmit);
    }

    /// Calls `transmit` for each group of datagrams to send, until a call fails.
    ///
    /// # Errors
    /// The error of the failed call.
    pub fn try_for_each<E>(
        &mut self,
        mut transmit: impl FnMut(Transmit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { sweep: Sweep { v4, v6, sources, .. }, destinations, .. } = self;
        group(v4, sources, destinations, &mut transmit)?;
        group(v6, sources, destinations, &mut transmit)
    }
}

fn group<A: Copy + Into<SocketAddr>, E>(
    targets: &mut [Target<A>],
    sources: &Sources,
    destinations: &mut Vec<SocketAddr>,
    transmit: &mut impl FnMut(Transmit<'_>) -> Result<(), E>,
) -> Result<(), E> {
    targets.sort_unstable_by_key(|target| target.source);
    targets.chunk_by(|a, b| a.source == b.source).try_for_each(|group| {
        destinations.clear();
        destinations.extend(group.iter().map(|target| target.client.into()));
        transmit(Transmit {
            emission: Emission::Ping,
            source: sources.address(group[0].source),
            destinations,
        })
    })
}
