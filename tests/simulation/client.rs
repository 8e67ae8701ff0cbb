//! The oracle's record of a client.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use crate::clocks::When;

pub const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Client {
    pub is_registered: bool,
    pub registered: When,
    /// The time and the destination address of its heartbeats, starting with the last one before the last
    /// snapshot.
    pub heard: VecDeque<(When, IpAddr)>,
    pub heartbeats: u32,
    pub pings: u32,
    /// The pings since its last heartbeat or the last restart.
    pub unanswered: u32,
    /// The ICMP port unreachable errors since its last heartbeat.
    pub refusals: u32,
    /// The time at which the daemon muted it, if it is muted.
    pub muted: Option<When>,
    /// The due time of its last ping since the machine booted.
    pub last_due: Option<When>,
    /// The pings due before this time have been checked.
    pub settled: When,
}

impl Client {
    pub fn register(&mut self, local: IpAddr, now: When, saved: When) {
        self.is_registered = true;
        self.registered = now;
        (self.heartbeats, self.pings) = (0, 0);
        self.hear(local, now, saved);
    }

    pub fn hear(&mut self, local: IpAddr, now: When, saved: When) {
        self.heartbeats += 1;
        (self.unanswered, self.refusals) = (0, 0);
        self.muted = None;
        self.heard.push_back((now, local));
        while self.heard.get(1).is_some_and(|(next, _)| *next < saved) {
            self.heard.pop_front();
        }
    }

    pub fn last_heard(&self) -> When {
        self.heard.back().map(|(when, _)| *when).unwrap_or_default()
    }

    /// The destination address of its last heartbeat.
    pub fn local(&self) -> Option<IpAddr> {
        self.heard.back().map(|(_, local)| *local)
    }

    /// The last heartbeat that a snapshot started at `saved` must contain.
    pub fn known_at(&self, saved: When) -> Option<When> {
        self.heard.iter().map(|(when, _)| *when).take_while(|when| *when < saved).last()
    }

    pub fn live_until(&self, expiration: Duration) -> When {
        (self.last_heard() + expiration).before(Duration::from_millis(1))
    }

    /// The due time of the first unchecked ping, if the client's phase is known.
    pub fn next_owed(&self) -> Option<When> {
        let last = self.last_due?;
        let seconds = self.settled.since(last).as_nanos().div_ceil(SECOND.as_nanos());
        Some(last + SECOND * u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The unchecked due times before `due`, at the same phase. The phase may have moved by `delay` since.
    pub fn owed_before(&self, due: When, delay: Duration) -> impl Iterator<Item = When> + use<> {
        let seconds = due.since(self.settled).as_secs();
        let settled = self.settled + delay;
        (1..=seconds)
            .map(move |seconds| due.before(Duration::from_secs(seconds)))
            .filter(move |owed| *owed >= settled)
    }
}

/// A fast, deterministic hash.
#[derive(Debug, Default)]
pub struct Mixer(u64);

pub type Mix = BuildHasherDefault<Mixer>;

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
