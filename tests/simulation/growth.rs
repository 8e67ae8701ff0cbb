//! Runs an engine while its number of clients grows and shrinks. No call is late, and no datagram is lost.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Rules};
use wakeupd::engine::registry::Seed;
use wakeupd::engine::{Batch, Datagram, Engine, Load, Outcome, Settings, Slot};
use wakeupd_protocol::DEFAULT_PORT;

use crate::client::SECOND;

/// Heartbeats arrive at multiples of this.
const TICK: Duration = Duration::from_millis(10);

const MOST_CLIENTS: f64 = 100_000.0;

/// The longest time between two pings, by docs/protocol.md.
const LONGEST_GAP: Duration = Duration::from_millis(1_070);

/// The clients of one engine. In each of the life's stages, their number moves to a new target.
pub struct Life {
    rng: Rng,
    engine: Engine,
    expiration: Duration,
    now: Time,
    /// The time of each worker's next poll.
    polls: Vec<Time>,
    clients: Vec<Client>,
    /// The clients below this index send heartbeats.
    senders: usize,
    most_clients: usize,
    pub tally: Tally,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub pings: u64,
    /// The pings that moved the phase of their client.
    pub moves: u64,
    pub most_slots: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    registered: Option<Moment>,
    heard: Time,
    pinged: Option<Moment>,
}

/// A time, and the number of slots in its second.
#[derive(Clone, Copy, Debug)]
struct Moment {
    time: Time,
    slots: u16,
}

fn address(client: usize) -> SocketAddr {
    let number = u32::try_from(client).unwrap();
    SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 | number).into(), DEFAULT_PORT + 1)
}

fn number(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is no client") };
    (ip.to_bits() & 0x00ff_ffff) as usize
}

impl Life {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Time::from_nanos(rng.u64(1 << 50..1 << 60));
        let all = u32::MAX;
        let caps = Caps { clients: all, per_address: all, per_prefix: all };
        let expiration = Duration::from_secs(rng.u64(2..4));
        let workers = 10;
        let seed = Seed([rng.u64(..), rng.u64(..)]);
        let settings =
            Settings { workers, seed, ..Settings::new(Rules::new(caps), expiration, now) };
        Self {
            rng,
            engine: Engine::new(settings, now),
            expiration,
            now,
            polls: vec![now; workers],
            clients: Vec::new(),
            senders: 0,
            most_clients: 0,
            tally: Tally::default(),
        }
    }

    /// Lives through some stages.
    pub fn live(&mut self) {
        for _ in 0..3 {
            let exponent = self.rng.f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let target = MOST_CLIENTS.powf(exponent) as usize - 1;
            let pace = Duration::from_millis(self.rng.u64(10..3_000));
            let rest = self.expiration + Duration::from_millis(self.rng.u64(0..1_500));
            self.pass(target, pace, rest);
        }
        self.pass(0, TICK, self.expiration + 3 * SECOND);
        assert!(self.engine.registry().is_empty());
        for poll in &self.polls {
            assert!(*poll > self.now + 3600 * SECOND, "a worker wakes up without clients");
        }
    }

    /// Moves the number of senders to `target` within `pace`, and then keeps it for `rest`.
    fn pass(&mut self, target: usize, pace: Duration, rest: Duration) {
        let (from, begun) = (self.senders, self.now);
        let end = begun + pace + rest;
        while self.now < end {
            let share = self.now.since(begun).div_duration_f64(pace).min(1.0);
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
            let moved = ((target as f64 - from as f64) * share) as isize;
            self.beat(from.saturating_add_signed(moved));
            let next = self.now + TICK;
            self.work(next);
            self.now = next;
        }
        self.beat(target);
    }

    /// Sets the number of senders. The new ones send a heartbeat, and so do the others in turn.
    fn beat(&mut self, senders: usize) {
        let before = mem::replace(&mut self.senders, senders);
        self.clients.resize(self.clients.len().max(senders), Client::default());
        let ticks = |time: Duration| usize::try_from(time.as_nanos() / TICK.as_nanos()).unwrap();
        let turns = ticks(self.expiration) * 2 / 5;
        let turn = ticks(self.now.since(Time::default())) % turns;
        for client in (turn..senders.min(before)).step_by(turns).chain(before..senders) {
            self.hear(client);
        }
        self.engine.handle_received(self.now, senders, true);
        self.most_clients = self.most_clients.max(self.engine.registry().len());
    }

    fn hear(&mut self, client: usize) {
        let (source, now) = (address(client), self.now);
        let registered = Some(Moment { time: now, slots: self.engine.slots(now) });
        let fresh = Client { registered, heard: now, pinged: None };
        let client = &mut self.clients[client];
        let heartbeat = Datagram { source, local: None, payload: &[], waited: Duration::ZERO };
        match self.engine.handle_datagram(now, &heartbeat) {
            Outcome::Accepted { registered: Some(registered), .. } => {
                *client = fresh;
                let woken = self.polls[..registered.wakes].iter_mut();
                woken.for_each(|poll| *poll = now.min(*poll));
            }
            // It had expired, but was not yet removed.
            Outcome::Accepted { .. } if now > client.heard + self.expiration => *client = fresh,
            Outcome::Accepted { .. } => client.heard = now,
            Outcome::Refused { .. } => panic!("{source} was refused"),
        }
    }

    /// Lets the workers serve the slots that are due before `until`.
    fn work(&mut self, until: Time) {
        let mut batch = Batch::default();
        while let Some((worker, now)) = self.next_poll().filter(|(_, now)| *now < until) {
            if let Some(slot) = self.engine.poll_slot(now, worker, &mut batch) {
                let is_alone = self.most_clients <= Load::default().clients_per_worker;
                assert!(worker == 0 || !is_alone, "worker {worker} has work");
                self.check(&slot, now, &mut batch);
            } else {
                let next = self.engine.poll_timeout(now, worker).expect("the engine runs");
                assert!(next > now);
                self.polls[worker] = next;
            }
        }
    }

    fn next_poll(&self) -> Option<(usize, Time)> {
        self.polls.iter().copied().enumerate().min_by_key(|(_, time)| *time)
    }

    fn check(&mut self, slot: &Slot, now: Time, batch: &mut Batch) {
        let Self { clients, engine, expiration, tally, .. } = self;
        assert_eq!(slot.skipped_seconds, 0);
        let due = Moment { time: slot.due, slots: engine.slots(slot.due) };
        tally.most_slots = tally.most_slots.max(due.slots);
        batch.for_each(|transmit| {
            for address in transmit.destinations {
                tally.pings += 1;
                let client = &mut clients[number(*address)];
                let has_moved =
                    client.ping(due).unwrap_or_else(|wrong| panic!("{wrong}: {client:?}, {due:?}"));
                tally.moves += u64::from(has_moved);
                client.pinged = Some(due);
            }
        });
        for (address, removal) in batch.removed() {
            let client = &mut clients[number(*address)];
            let expires = client.heard + *expiration;
            let silence = expires.since(client.pinged.expect("it was pinged").time);
            assert!(now > expires && silence <= LONGEST_GAP, "{removal:?}, {client:?}");
            *client = Client::default();
        }
        engine.handle_sent(batch);
    }
}

impl Client {
    /// Checks a ping. Returns whether it moved the phase.
    fn ping(&self, due: Moment) -> Result<bool, &'static str> {
        let registered = self.registered.ok_or("pinged, but not registered")?;
        let Some(last) = self.pinged else {
            let is_late = due.time > registered.time + SECOND;
            // With fewer slots than before, a phase moves forward.
            let may_be_late = due.slots < registered.slots;
            return if is_late && !may_be_late { Err("first pinged too late") } else { Ok(false) };
        };
        let gap = due.time.since(last.time);
        if due.slots == last.slots {
            return if gap == SECOND { Ok(false) } else { Err("not pinged after a second") };
        }
        let width = SECOND / u32::from(due.slots.min(last.slots));
        let is_near = gap + width > SECOND && gap < SECOND + width && gap <= LONGEST_GAP;
        if is_near { Ok(gap != SECOND) } else { Err("pinged at a wrong time after a change") }
    }
}
