//! The registry's record of a client, without its address, in 18 bytes.

use super::View;
use super::local::LocalId;
use super::stamp::Stamp;
use crate::clock::Time;

const _: () = assert!(LocalId::MASK & MUTED == 0);

/// Flag: the client gets no pings until its next heartbeat.
const MUTED: u16 = 1 << 15;

/// The record of a client. It is packed, because padding would grow an IPv4 client's entry from 24 to 28
/// bytes.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
pub(super) struct Client {
    /// The time of the first heartbeat in whole seconds, which do not wrap as a [`Stamp`] does.
    first_seen: u32,
    last_heartbeat: Stamp,
    heartbeats: u32,
    pings: u32,
    /// A [`LocalId`] and the [`MUTED`] flag.
    bits: u16,
}

impl Client {
    /// A new client, whose first heartbeat arrived `now` at the address `local`.
    pub(super) fn new(local: LocalId, now: Time) -> Self {
        Self {
            first_seen: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            last_heartbeat: Stamp::of(now),
            heartbeats: 1,
            pings: 0,
            bits: local.to_bits(),
        }
    }

    /// A client restored from another registry.
    pub(super) fn restored(known: &View, local: LocalId) -> Self {
        Self {
            first_seen: u32::try_from(known.first_seen.as_secs()).unwrap_or(u32::MAX),
            last_heartbeat: Stamp::of(known.last_heartbeat),
            heartbeats: known.heartbeats,
            pings: known.pings,
            bits: local.to_bits() | if known.is_muted { MUTED } else { 0 },
        }
    }

    /// Records another heartbeat.
    pub(super) const fn renew(&mut self, local: LocalId, now: Time) {
        self.last_heartbeat = Stamp::of(now);
        self.heartbeats = self.heartbeats.saturating_add(1);
        self.bits = local.to_bits();
    }

    pub(super) const fn mute(&mut self) {
        self.bits |= MUTED;
    }

    /// Counts a ping that is about to be sent.
    pub(super) const fn count_ping(&mut self) {
        self.pings = self.pings.saturating_add(1);
    }

    /// Uncounts a ping that could not be sent.
    pub(super) const fn uncount_ping(&mut self) {
        self.pings = self.pings.saturating_sub(1);
    }

    /// The time of the first heartbeat, truncated to a second.
    pub(super) const fn first_seen(self) -> Time {
        Time::from_secs(self.first_seen)
    }

    /// The time of the last heartbeat. The result is wrong if the heartbeat arrived more than 49 days before
    /// `now`, because a [`Stamp`] wraps.
    pub(super) fn last_heartbeat(self, now: Time) -> Time {
        let stamp = self.last_heartbeat;
        stamp.near(now)
    }

    pub(super) const fn heartbeats(self) -> u32 {
        self.heartbeats
    }

    pub(super) const fn pings(self) -> u32 {
        self.pings
    }

    pub(super) const fn local(self) -> LocalId {
        LocalId::from_bits(self.bits)
    }

    pub(super) const fn has_repeated(self) -> bool {
        self.heartbeats > 1
    }

    pub(super) const fn is_muted(self) -> bool {
        self.bits & MUTED != 0
    }
}
