//! What must hold, told from the side of the clients and of those whose addresses are forged: by
//! docs/protocol.md and docs/security.md, not by the code.

mod restart;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wakeupd::engine::Engine;
use wakeupd::engine::registry::Removal;

pub use self::restart::Restart;
use crate::client::{Client, Mix, SECOND};
use crate::clocks::When;
use crate::crowd::Crowd;
use crate::network::{Datagram, Socket};
use crate::plan::Plan;
use crate::rooms::Rooms;
use crate::troubles::{PROMPT, Served, Troubles};

/// Times are told to the millisecond.
pub(super) const MILLI: Duration = Duration::from_millis(1);

/// What became of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Registered,
    Renewed,
    /// There was no room.
    Refused,
    /// Its source is none for a client.
    Barred,
    /// It waited for longer than a client lives.
    Stale,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    pub client: Option<SocketAddr>,
    pub when: When,
    pub what: String,
    /// The last that happened to the client that is watched.
    pub notes: Vec<String>,
}

/// What there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub clients: u64,
    pub heartbeats: u64,
    pub pings: u64,
    pub refused: u64,
    pub stale: u64,
    pub made_way: u64,
    pub muted: u64,
    pub faults: u64,
    pub restarts: u64,
    pub restored: u64,
    pub most_clients: usize,
    /// Of every ping.
    pub digest: u64,
}

#[derive(Debug)]
pub struct Oracle {
    pub(super) expiration: Duration,
    pub(super) clients: HashMap<SocketAddr, Client, Mix>,
    pub(super) rooms: Rooms,
    pub(super) troubles: Troubles,
    /// When the last whole snapshot was begun, and how the wall clock had been set then.
    pub(super) saved: (When, i64),
    /// Until when the daemon does not listen to what hosts say.
    ignores_until: When,
    /// The last time that the wall clock was set.
    wall_set: When,
    pub tally: Tally,
    pub failure: Option<Box<Failure>>,
    audits: usize,
    watched: Option<SocketAddr>,
    notes: Vec<String>,
}

impl Oracle {
    pub fn new(plan: &Plan, watched: Option<SocketAddr>) -> Self {
        Self {
            expiration: plan.expiration,
            clients: HashMap::default(),
            rooms: Rooms::new(plan.caps),
            troubles: Troubles::default(),
            saved: Default::default(),
            ignores_until: When::default(),
            wall_set: When::default(),
            tally: Tally::default(),
            failure: None,
            audits: 0,
            watched,
            notes: Vec::new(),
        }
    }

    pub fn end(self) -> Result<Tally, Box<Failure>> {
        match self.failure {
            Some(failure) => Err(Box::new(Failure { notes: self.notes, ..*failure })),
            None => Ok(self.tally),
        }
    }

    pub fn fail(&mut self, client: Option<SocketAddr>, when: When, what: String) {
        self.failure
            .get_or_insert_with(|| Box::new(Failure { client, when, what, notes: Vec::new() }));
    }

    /// Remembers what happens to the client that is watched.
    pub fn note(&mut self, client: SocketAddr, when: When, what: impl FnOnce() -> String) {
        if self.watched == Some(client) {
            self.notes.push(format!("{when} {}", what()));
        }
    }

    /// Pings one after the other make one note.
    fn note_ping(&mut self, due: When, now: When, is_sent: bool) {
        let sent = if is_sent { "pinged" } else { "not taken by the kernel" };
        let note = format!("{sent}, due {due}");
        let before = self.notes.len().checked_sub(2).map(|at| &self.notes[at..]);
        if before.is_some_and(|notes| notes.iter().all(|note| note.contains(sent))) {
            self.notes.pop();
            self.notes.push(format!("{now} … {note}"));
        } else {
            self.notes.push(format!("{now} {note}"));
        }
    }

    /// Remembers what happens to everybody.
    pub fn remark(&mut self, when: When, what: impl FnOnce() -> String) {
        if let Some(watched) = self.watched {
            self.note(watched, when, what);
        }
    }

    /// The daemon, or a part of it, serves no slots in this time, but those that it comes too late for.
    pub fn late(&mut self, from: When, until: When) {
        self.troubles.late(from, until);
    }

    /// The daemon ends.
    pub fn ends(&mut self, now: When) {
        self.troubles.end(now);
    }

    /// Nobody receives until then.
    pub fn deaf(&mut self, until: When) {
        self.troubles.deaf(until);
    }

    /// A snapshot has been written whole.
    pub fn saved(&mut self, begun: When, wall_set: i64) {
        self.saved = (begun, wall_set);
    }

    /// A heartbeat has been received.
    pub fn heard(&mut self, datagram: Datagram, now: When, heard: Heard) {
        let Datagram { source, local, .. } = datagram;
        self.note(source, now, || format!("heard: {heard:?}"));
        self.tally.heartbeats += 1;
        let waited = now.since(datagram.arrived);
        let is_stale = waited > self.expiration;
        // The kernel's timestamps are of the wall clock.
        if is_stale != (heard == Heard::Stale) && datagram.arrived > self.wall_set {
            return self.fail(Some(source), now, format!("{heard:?} after {waited:?}"));
        }
        if heard == Heard::Stale {
            self.tally.stale += 1;
            return;
        }
        let is_client = self.clients.get(&source).is_some_and(|client| client.is_registered);
        if Rooms::bars(source) != (heard == Heard::Barred) {
            return self.fail(Some(source), now, format!("{heard:?} is not for such a source"));
        }
        if is_client != (heard == Heard::Renewed) {
            let what = format!("{heard:?}, but it is a client: {is_client}");
            return self.fail(Some(source), now, what);
        }
        match heard {
            Heard::Barred | Heard::Stale => self.tally.refused += 1,
            Heard::Refused => {
                self.tally.refused += 1;
                if !self.rooms.is_full(source.ip()) {
                    self.fail(Some(source), now, "refused, but there is room".to_owned());
                }
            }
            Heard::Renewed => {
                self.settle(source, now);
                let expiration = self.expiration;
                let client = self.clients.get_mut(&source).expect("it is one");
                let was_live = now <= client.live_until(expiration) && client.muted.is_none();
                client.hear(local, now, self.saved.0);
                if !was_live {
                    client.settled = now + PROMPT;
                }
            }
            Heard::Registered => {
                self.rooms.enter(source.ip());
                if self.rooms.is_overfull(source.ip()) {
                    self.fail(Some(source), now, "registered beyond a cap".to_owned());
                }
                self.tally.most_clients = self.tally.most_clients.max(self.rooms.all());
                let client = self.clients.entry(source).or_insert_with(|| {
                    self.tally.clients += 1;
                    Client::default()
                });
                client.register(local, now, self.saved.0);
                client.settled = now + PROMPT;
            }
        }
    }

    /// A ping leaves, or the kernel does not take it.
    pub fn pinged(
        &mut self,
        address: SocketAddr,
        local: Option<IpAddr>,
        due: When,
        now: When,
        is_sent: bool,
    ) {
        if self.watched == Some(address) {
            self.note_ping(due, now, is_sent);
        }
        self.tally.pings += 1;
        let mixed = due.0 ^ u64::from(address.port()) << 40;
        self.tally.digest = self.tally.digest.rotate_left(5).wrapping_add(mixed);
        let expiration = self.expiration;
        let known = self.clients.get_mut(&address).filter(|client| client.is_registered);
        let Some(client) = known else {
            return self.fail(Some(address), now, "pinged, but it is no client".to_owned());
        };
        let last_due = client.last_due;
        let wrong = if now > client.last_heard() + expiration {
            Some("pinged after its time")
        } else if due > now || now.since(due) >= SECOND {
            Some("pinged in another second than its own")
        } else if last_due.is_some_and(|last| due < last + SECOND) {
            Some("pinged twice in a second")
        } else if last_due.is_some_and(|last| due.since(last).subsec_nanos() != 0) {
            Some("pinged at another phase of the second")
        } else if client.muted.is_some() {
            Some("pinged, but it is muted")
        } else if client.unanswered > 4
            && Crowd::is_closed(address)
            && now > self.ignores_until + Duration::from_secs(5)
            && self.troubles.is_calm(now)
        {
            Some("pinged, but its host has said often enough that the port is closed")
        } else if local != client.local() {
            Some("pinged from another address than it knows")
        } else {
            None
        };
        let missed =
            client.owed_before(due).find(|owed| self.troubles.look(*owed) != Served::Excused);
        client.last_due = Some(due);
        client.settled = client.settled.max(due + Duration::from_nanos(1));
        client.pings += u32::from(is_sent);
        client.unanswered += u32::from(is_sent);
        if let Some(wrong) = wrong {
            self.fail(Some(address), now, format!("{wrong}; due {due}, last {last_due:?}"));
        } else if let Some(missed) = missed {
            self.fail(Some(address), now, format!("not pinged at {missed}, but at {due}"));
        }
    }

    /// Checks that a client has got every ping that it was to get until now.
    fn settle(&mut self, address: SocketAddr, now: When) {
        let Some(client) = self.clients.get_mut(&address) else { return };
        if client.muted.is_some() {
            return;
        }
        let until = now.min(client.live_until(self.expiration));
        let mut missed = None;
        if client.last_due.is_some() {
            while let Some(due) = client.next_owed().filter(|due| *due + PROMPT <= until) {
                match self.troubles.look(due) {
                    Served::Excused => client.settled = due + Duration::from_nanos(1),
                    Served::By(time) if time > until => break,
                    Served::By(_) => {
                        missed = Some(due);
                        break;
                    }
                }
            }
        } else {
            let from = client.settled.max(self.troubles.last() + PROMPT);
            if from + SECOND + PROMPT <= until {
                missed = Some(from);
            }
        }
        if let Some(missed) = missed {
            self.fail(Some(address), now, format!("not pinged at {missed} nor after"));
        }
    }

    /// The host of a client says that its port is closed.
    pub fn closed(&mut self, address: SocketAddr, now: When) {
        self.note(address, now, || "its host says that the port is closed".to_owned());
        if let Some(client) = self.clients.get_mut(&address) {
            client.refusals += 1;
        }
    }

    /// Until then the daemon does not listen to what hosts say.
    pub fn ignoring(&mut self, until: When) {
        self.ignores_until = until;
    }

    /// The wall clock is set.
    pub fn wall_set(&mut self, now: When) {
        self.wall_set = now;
    }

    /// A client gets no more pings until its next heartbeat.
    pub fn muted(&mut self, address: SocketAddr, now: When) {
        self.note(address, now, || "muted".to_owned());
        self.settle(address, now);
        let Some(client) = self.clients.get_mut(&address) else { return };
        let is_silent = now.since(client.last_heard()) >= 2 * SECOND;
        let is_sure = Crowd::is_closed(address) && client.refusals >= 3 && is_silent;
        client.muted = Some(now);
        self.tally.muted += 1;
        if !is_sure {
            self.fail(Some(address), now, "muted without a good reason".to_owned());
        }
    }

    /// These clients have been removed, all at once.
    pub fn removed(&mut self, removed: &[(SocketAddr, Removal)], now: When, socket: &Socket) {
        let is_pressed = |(address, _): &(SocketAddr, _)| self.rooms.is_pressed(address.ip());
        let pressed: Vec<_> = removed.iter().map(is_pressed).collect();
        for ((address, why), is_pressed) in removed.iter().zip(pressed) {
            self.note(*address, now, || format!("removed: {why:?}"));
            self.settle(*address, now);
            self.remove(*address, *why, is_pressed, now, socket);
        }
    }

    fn remove(
        &mut self,
        address: SocketAddr,
        why: Removal,
        is_pressed: bool,
        now: When,
        socket: &Socket,
    ) {
        let known = self.clients.get_mut(&address).filter(|client| client.is_registered);
        let Some(client) = known else {
            return self.fail(Some(address), now, "removed, but it is no client".to_owned());
        };
        client.is_registered = false;
        self.rooms.leave(address.ip());
        // Who repeats its heartbeat after a third of the expiration does not make way.
        let may_be_silent = match why {
            Removal::MadeWay if is_pressed && client.heartbeats == 1 => self.expiration * 3 / 8,
            Removal::Expired => self.expiration,
            _ => Duration::MAX,
        };
        self.tally.made_way += u64::from(why == Removal::MadeWay);
        let silence = now.since(client.last_heard());
        let limit = (client.last_heard() + may_be_silent).before(MILLI);
        let waits = socket.waits_since(address).filter(|since| *since <= limit);
        if now <= limit || waits.is_some() {
            let what = format!("removed too early: {why:?} after {silence:?}, waiting {waits:?}");
            self.fail(Some(address), now, what);
        }
    }

    /// Looks at everybody.
    pub fn audit(&mut self, now: When, engine: &Engine) {
        let counts = [engine.registry().len(), engine.guard().total() as usize, self.rooms.all()];
        if counts != [self.rooms.all(); 3] {
            self.fail(None, now, format!("clients, by registry, guard and truth: {counts:?}"));
        }
        let mut addresses: Vec<_> = self.clients.keys().copied().collect();
        addresses.sort_unstable();
        self.audits += 1;
        if let Some(address) = addresses.get(self.audits % addresses.len().max(1)) {
            let (true_count, count) =
                (self.rooms.count(address.ip()), engine.guard().count(address.ip()));
            if count != true_count {
                self.fail(Some(*address), now, format!("{true_count:?} clients, not {count:?}"));
            }
        }
        let is_calm = self.troubles.is_calm(now);
        for address in addresses {
            let client = &self.clients[&address];
            let silence = now.since(client.last_heard());
            if client.is_registered {
                self.settle(address, now);
                if is_calm && silence > self.expiration + 2 * SECOND {
                    self.fail(Some(address), now, format!("still there after {silence:?}"));
                }
            } else if silence > self.expiration + Duration::from_secs(900) {
                self.clients.remove(&address);
            }
        }
    }
}
