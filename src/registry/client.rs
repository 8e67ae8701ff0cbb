//! What the registry knows of a client besides its address, in six bytes.

use super::local::Local;
use super::stamp::Stamp;
use crate::clock::Time;

const _: () = assert!(Local::MASK & (REPEATED | MUTED) == 0);

/// There has been more than one heartbeat.
const REPEATED: u16 = 1 << 14;
/// No pings are wanted until the next heartbeat.
const MUTED: u16 = 1 << 15;

/// Packed, because padding would make an IPv4 client's entry 16 bytes instead of 12.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
pub(super) struct Client {
    last_heartbeat: Stamp,
    /// A [`Local`] and the two flags.
    bits: u16,
}

impl Client {
    /// One whose first heartbeat came `now` and hit the address `local`.
    pub(super) const fn new(local: Local, now: Time) -> Self {
        Self { last_heartbeat: Stamp::of(now), bits: local.to_bits() }
    }

    /// Records another heartbeat.
    pub(super) const fn renew(&mut self, local: Local, now: Time) {
        *self = Self::new(local, now);
        self.bits |= REPEATED;
    }

    pub(super) const fn mute(&mut self) {
        self.bits |= MUTED;
    }

    /// When the last heartbeat came, if that was not weeks before `now`.
    pub(super) fn last_heartbeat(self, now: Time) -> Time {
        let stamp = self.last_heartbeat;
        stamp.near(now)
    }

    pub(super) const fn local(self) -> Local {
        Local::from_bits(self.bits)
    }

    pub(super) const fn has_repeated(self) -> bool {
        self.bits & REPEATED != 0
    }

    pub(super) const fn is_muted(self) -> bool {
        self.bits & MUTED != 0
    }
}
