//! The protocol as one state machine without I/O.
//!
//! [`Engine`] takes datagrams, ICMP errors and the time in, and gives outcomes, pings and deadlines out. It
//! opens no socket, reads no clock and writes no log, so the daemon, the simulation and the fuzz targets all
//! drive the same object. It is `Sync`: the listener and the workers share one engine.
//!
//! - The listener calls [`Engine::handle_datagram`] for each datagram, [`Engine::handle_received`] after each
//!   receive call, and [`Engine::handle_icmp_error`] for each ICMP error about a ping.
//! - Each worker calls [`Engine::poll_slot`] until it returns `None`, sends the pings in the [`Batch`], and
//!   sleeps until [`Engine::poll_timeout`].
//!
//! ```text
//! handle_datagram ─▶ guard: may the source register? ─▶ registry: insert or renew
//!                                                           │
//! poll_slot ─▶ schedule: which slot is due? ─▶ registry: sweep its shards ─▶ Batch
//! ```

mod backlog;
mod batch;
mod counters;
pub mod guard;
mod layout;
mod outcome;
pub mod registry;
mod schedule;
mod settings;
mod unreachable;
mod walk;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::Duration;

use wakeupd_protocol::Message;

use self::backlog::Backlog;
pub use self::batch::{Batch, Emission, Transmit};
pub use self::counters::Counters;
use self::guard::{Guard, Networks, Refused};
pub use self::layout::Load;
use self::layout::{Layouts, Limits};
pub use self::outcome::{Outcome, Registered};
use self::registry::{Refreshed, Registry, Removal, View};
use self::schedule::Schedule;
pub use self::schedule::Slot;
pub use self::settings::Settings;
pub use self::unreachable::PAUSE as ICMP_PAUSE;
use self::unreachable::Unreachable;
use self::walk::Walk;
use crate::clock::Time;

/// How long after the engine's end a worker can still serve slots that were due before the end.
const END_GRACE: Duration = Duration::from_millis(50);

/// A restarted daemon sends the pings that were due during a downtime of at most this long. After a longer
/// downtime it skips them: the next regular pings are soon due.
pub const MAX_CATCH_UP: Duration = Duration::from_millis(900);

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The sender's address, in canonical form.
    pub source: SocketAddr,
    /// The local address that the datagram was sent to, if the kernel reports it.
    pub local: Option<IpAddr>,
    /// The received bytes.
    pub payload: &'a [u8],
    /// How long the datagram waited in the receive buffer, by the wall clock. Zero if the kernel reports no
    /// arrival time.
    pub waited: Duration,
}

/// The protocol: the set of clients, and the time of each ping.
#[derive(Debug)]
pub struct Engine {
    guard: Guard,
    registry: Registry,
    backlog: Backlog,
    unreachable: Unreachable,
    layouts: Layouts,
    /// The walk of each worker, at the index of the worker's number.
    walks: Box<[Walk]>,
    /// The time at which the workers end, in nanoseconds.
    ends_at: AtomicU64,
    counters: Counters,
}

impl Engine {
    /// Creates an engine without clients. Its workers begin with the slots that are due from `now` on.
    ///
    /// # Panics
    /// Unless `settings.shards` is a power of two above 1 and there are 1 to `shards` workers.
    #[must_use]
    pub fn new(settings: Settings, now: Time) -> Self {
        let Settings { rules, denied, port, expiration, shards, seed, workers, load, .. } =
            settings;
        assert!((1..=shards).contains(&workers), "each worker owns at least one shard");
        let layouts = Layouts::new(Limits { slots: shards, workers, load }, now.second());
        let layout = layouts.of(now.second(), 0);
        let walk = |worker| Walk::new(Schedule::new(worker, shards, now, layout));
        Self {
            guard: Guard::new(rules, port, denied),
            registry: Registry::new(shards, expiration, seed),
            backlog: Backlog::new(expiration, settings.receive_capacity, settings.drained_until),
            unreachable: Unreachable::new(settings.max_icmp_errors),
            layouts,
            walks: (0..workers).map(walk).collect(),
            ends_at: u64::MAX.into(),
            counters: Counters::default(),
        }
    }

    /// The clients.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The rules, and the number of clients of each address and network.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The cap on ICMP errors per second, `MAX_ICMP_ERRORS_PER_SECOND`.
    #[must_use]
    pub fn max_icmp_errors(&self) -> u32 {
        self.unreachable.max_per_second()
    }

    /// The engine's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Handles a datagram received at `now`. Call this from one thread only, because the guard checks
    /// `MAX_CLIENTS` and counts the new client in two steps.
    pub fn handle_datagram(&self, now: Time, datagram: &Datagram<'_>) -> Outcome {
        let outcome = match Message::parse(datagram.payload) {
            Message::Heartbeat => self.handle_heartbeat(now, datagram),
        };
        if let Outcome::Accepted { registered, .. } = outcome {
            self.counters.heartbeats.add(1);
            self.counters.registrations.add(registered.is_some().into());
        }
        for reason in outcome.reasons() {
            self.counters.refused[reason as usize].add(1);
        }
        outcome
    }

    fn handle_heartbeat(&self, now: Time, datagram: &Datagram<'_>) -> Outcome {
        let Datagram { source, local, waited, .. } = *datagram;
        let is_stale = self.backlog.is_stale(now, waited);
        let age = if is_stale { Err(Refused::Stale) } else { Ok(()) };
        let tolerated = age.and_then(|()| self.guard.admit(source)).err();
        if let Some(reason) = tolerated.filter(|reason| self.guard.refuses(*reason)) {
            return Outcome::Refused { reason, tolerated: None };
        }
        let mut exceeded = None;
        let reserve = || {
            let verdict = self.guard.reserve(source.ip());
            exceeded = verdict.err();
            self.guard.lets_in(verdict)
        };
        let refreshed = self.registry.refresh(source, local, now, reserve);
        let registered = match (refreshed, exceeded) {
            (Refreshed::NoRoom, Some(reason)) => return Outcome::Refused { reason, tolerated },
            (Refreshed::Registered { shard, is_first }, exceeded) => {
                let wakes = self.wake(is_first, now);
                Some(Registered { shard, wakes, tolerated: exceeded })
            }
            (Refreshed::Renewed | Refreshed::NoRoom, _) => None,
        };
        Outcome::Accepted { registered, tolerated }
    }

    /// After a registration, makes the workers that it concerns serve the slots from `now` on, even if they planned to
    /// sleep past them: all that have work, if the new client is the first of its shard, and one more, if the clients
    /// are one too many for the others. Returns the number of workers to wake, of which worker 0 is the first.
    fn wake(&self, is_first: bool, now: Time) -> usize {
        let clients = self.clients();
        let wanted = self.layouts.workers_for(clients);
        let is_wanted = wanted > self.layouts.workers_for(clients.saturating_sub(1));
        let with_work = if is_first { self.layouts.of(now.second(), clients).workers } else { 0 };
        let woken = if is_wanted { with_work.max(wanted) } else { with_work };
        self.walks[..woken].iter().for_each(|walk| walk.wake(now));
        woken
    }

    fn clients(&self) -> usize {
        self.guard.total() as usize
    }

    /// Records that a receive call at `now` returned `count` datagrams, and whether it left the receive
    /// buffer empty.
    ///
    /// A client's silence counts only up to the time at which the buffer was last known to be empty, because
    /// a later heartbeat of the client can still be in the buffer.
    pub fn handle_received(&self, now: Time, count: usize, is_empty: bool) {
        self.backlog.received(now, count, is_empty);
    }

    /// Whether the engine accepts ICMP errors at `now`. If more than `max_icmp_errors` arrive in a second,
    /// the engine ignores ICMP errors for [`ICMP_PAUSE`].
    #[must_use]
    pub fn wants_icmp_errors(&self, now: Time) -> bool {
        self.unreachable.is_listening(now)
    }

    /// Handles an ICMP error about a ping. `unreachable` is the client's address if the error is "port
    /// unreachable", and `None` for any other error. Three such errors over at least 2 s, without a heartbeat in
    /// between, mute the client until its next heartbeat. Returns whether this one did.
    pub fn handle_icmp_error(&self, now: Time, unreachable: Option<SocketAddr>) -> bool {
        if !self.unreachable.spend(now) {
            return false;
        }
        let Some(client) = unreachable else { return false };
        let Some(last_heartbeat) = self.registry.last_heartbeat(client, now) else { return false };
        if !self.unreachable.report(client, last_heartbeat, now) {
            return false;
        }
        self.counters.mutes.add(1);
        let is_muted = self.guard.enforces();
        if is_muted {
            self.registry.mute(client);
        }
        is_muted
    }

    /// Serves the next slot of `worker` if it is due at `now`: fills `batch` with the pings to send, and
    /// removes expired clients. Returns `None` if no slot is due or the worker has ended.
    pub fn poll_slot(&self, now: Time, worker: usize, batch: &mut Batch) -> Option<Slot> {
        self.handle_sent(batch);
        batch.clear();
        let end = self.ends_at();
        if now > end + END_GRACE {
            return None;
        }
        let walk = &self.walks[worker];
        let before_end = end.before(Duration::from_nanos(1));
        let slot =
            walk.poll(now.min(before_end), |second| self.layouts.of(second, self.clients()))?;
        if slot.skipped_seconds > 0 {
            self.count_skipped(slot.skipped_seconds, walk.shards());
        }
        let is_pressed = |ip| self.guard.is_pressed(ip);
        let drained_until = self.backlog.drained_until();
        for shard in slot.shards.clone().filter(|shard| !self.registry.is_shard_empty(*shard)) {
            self.counters.served_slots.add(1);
            self.registry.sweep(shard, now, drained_until, is_pressed, &mut batch.sweep);
        }
        batch.is_settled = batch.removed().is_empty();
        Some(slot)
    }

    /// Counts the clients that were removed in the slot of `batch`, and subtracts them from the guard's
    /// counts. Call this after sending the pings, because many removed clients would delay them.
    /// [`Self::poll_slot`] starts with this call, in case the caller omitted it.
    pub fn handle_sent(&self, batch: &mut Batch) {
        if std::mem::replace(&mut batch.is_settled, true) {
            return;
        }
        for (client, removal) in batch.removed() {
            self.account_for(*client, *removal);
        }
    }

    /// The deadline of the next [`Self::poll_slot`] call for `worker`: the time of its next slot with
    /// clients, or an earlier time. A worker without anything to do gets a deadline in the far future, because a
    /// registration wakes it. Returns `None` if the worker has ended.
    pub fn poll_timeout(&self, now: Time, worker: usize) -> Option<Time> {
        let (walk, end) = (&self.walks[worker], self.ends_at());
        if walk.next_due() >= end || now > end + END_GRACE {
            return None;
        }
        let rests = |has_work| {
            let clients = self.clients();
            if has_work { clients == 0 } else { worker >= self.layouts.workers_for(clients) }
        };
        let is_empty = |shards: Range<usize>| {
            shards.into_iter().all(|shard| self.registry.is_shard_empty(shard))
        };
        Some(walk.fall_asleep(end, rests, is_empty))
    }

    fn count_skipped(&self, seconds: u64, shards: impl Iterator<Item = usize>) {
        for clients in shards.map(|shard| self.registry.shard_len(shard) as u64) {
            self.counters.skipped_slots.add(seconds * u64::from(clients > 0));
            self.counters.skipped_pings.add(seconds * clients);
        }
    }

    /// Records that the last ping to `client` was not sent.
    pub fn handle_failed_send(&self, client: SocketAddr) {
        self.registry.take_ping_back(client);
    }

    /// Makes each worker continue with its first slot that is due at `from` or later. `from` is the time when the
    /// previous daemon ended, or when this daemon started. If `from` is more than [`MAX_CATCH_UP`] ago, `now`
    /// takes its place. `slots` is the number of slots in a second of the previous daemon, so that no client's phase
    /// moves; without it, the number suits the clients.
    pub fn resume(&self, now: Time, from: Time, slots: Option<u16>) {
        let from = if now.since(from) <= MAX_CATCH_UP { from } else { now };
        let layout = self.layouts.restart(from.second(), self.clients(), slots);
        for walk in &self.walks {
            walk.restart(from, layout);
        }
    }

    /// The number of slots in the second of `time`, of this second or the one before.
    #[must_use]
    pub fn slots(&self, time: Time) -> u16 {
        u16::try_from(self.layouts.of(time.second(), self.clients()).slots).unwrap_or(u16::MAX)
    }

    /// Ends the workers: they serve the slots due before `time` and none after it.
    pub fn end(&self, time: Time) {
        self.ends_at.store(time.as_nanos(), Release);
    }

    fn ends_at(&self) -> Time {
        Time::from_nanos(self.ends_at.load(Acquire))
    }

    /// Restores a client from a snapshot, if the guard admits it. Leaves a client that is already registered
    /// unchanged.
    pub fn restore(&self, client: &View) -> Refreshed {
        let Self { guard, .. } = self;
        let refreshed = self.registry.restore(client, || {
            guard.lets_in(guard.admit(client.address))
                && guard.lets_in(guard.reserve(client.address.ip()))
        });
        self.counters.restored.add(matches!(refreshed, Refreshed::Registered { .. }).into());
        refreshed
    }

    /// Replaces the networks of `DENY_FILE`. Returns the clients that were removed because a network denies
    /// them.
    pub fn deny(&self, networks: Networks) -> Vec<SocketAddr> {
        self.guard.deny(networks);
        let mut removed = Vec::new();
        if self.guard.enforces() {
            for shard in 0..self.registry.shards() {
                self.registry.evict(shard, |ip| self.guard.denies(ip), &mut removed);
            }
        }
        for client in &removed {
            self.account_for(*client, Removal::Denied);
        }
        removed
    }

    /// Replaces the broadcast addresses of this machine's networks. The kernel refuses pings to them, so the
    /// guard refuses heartbeats from them.
    pub fn set_broadcasts(&self, addresses: Vec<Ipv4Addr>) {
        self.guard.set_broadcasts(addresses);
    }

    fn account_for(&self, client: SocketAddr, removal: Removal) {
        self.guard.release(client.ip());
        self.counters.removals[removal as usize].add(1);
    }
}

#[cfg(test)]
mod tests;
