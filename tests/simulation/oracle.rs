//! Checks the promises of docs/protocol.md and docs/security.md from the outside, as clients and victims of
//! forged source addresses see them. The rules come from the documents, not from the code.

mod audit;
mod phases;
mod restart;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wakeupd::engine::registry::Removal;

pub use self::phases::Due;
use self::phases::{LATEST, LONGEST_MOVE, Phases};
pub use self::restart::Restart;
use crate::client::{Client, Mix, SECOND};
use crate::clocks::When;
use crate::crowd::Crowd;
use crate::network::{Datagram, Socket};
use crate::plan::Plan;
use crate::rooms::Rooms;
use crate::troubles::{PROMPT, Served, Troubles};

/// The registry's stamps have a resolution of a millisecond.
pub(super) const MILLI: Duration = Duration::from_millis(1);

/// The outcome of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Registered,
    Renewed,
    /// A cap is reached.
    Refused,
    /// Its source address or port may never register.
    Barred,
    /// It waited in the receive buffer for longer than the expiration.
    Stale,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Failure {
    pub client: Option<SocketAddr>,
    pub when: When,
    pub what: String,
    /// The history of the watched client.
    pub notes: Vec<String>,
}

/// The totals of a run.
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
    /// How often the number of slots changed.
    pub moves: u64,
    pub restored: u64,
    pub most_clients: usize,
    /// A hash of all pings, to compare two runs.
    pub digest: u64,
}

#[derive(Debug)]
pub struct Oracle {
    pub(super) expiration: Duration,
    pub(super) clients: HashMap<SocketAddr, Client, Mix>,
    pub(super) rooms: Rooms,
    pub(super) troubles: Troubles,
    /// The start of the last complete snapshot, and the wall clock's offset at that time.
    pub(super) saved: (When, i64),
    /// The daemon ignores ICMP errors until then.
    ignores_until: When,
    /// The time of the last wall clock change.
    wall_set: When,
    pub tally: Tally,
    pub failure: Option<Box<Failure>>,
    audits: usize,
    phases: Phases,
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
            phases: Phases::default(),
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

    /// Adds an event to the history if `client` is watched.
    pub fn note(&mut self, client: SocketAddr, when: When, what: impl FnOnce() -> String) {
        if self.watched == Some(client) {
            self.notes.push(format!("{when} {}", what()));
        }
    }

    /// Merges consecutive pings into one note.
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

    /// Adds an event that affects all clients to the history.
    pub fn remark(&mut self, when: When, what: impl FnOnce() -> String) {
        if let Some(watched) = self.watched {
            self.note(watched, when, what);
        }
    }

    /// The daemon or one of its workers stalls between `from` and `until`, and catches up afterwards.
    pub fn late(&mut self, from: When, until: When) {
        self.troubles.late(from, until);
    }

    /// The daemon shuts down or is killed.
    pub fn ends(&mut self, now: When) {
        self.troubles.end(now);
    }

    /// The listener stalls until then.
    pub fn deaf(&mut self, until: When) {
        self.troubles.deaf(until);
    }

    /// A snapshot is complete.
    pub fn saved(&mut self, begun: When, wall_set: i64) {
        self.saved = (begun, wall_set);
    }

    /// Checks the outcome of a heartbeat.
    pub fn heard(&mut self, datagram: Datagram, now: When, heard: Heard) {
        let Datagram { source, local, .. } = datagram;
        self.note(source, now, || format!("heard: {heard:?}"));
        self.tally.heartbeats += 1;
        let waited = now.since(datagram.arrived);
        let is_stale = waited > self.expiration;
        // The kernel's timestamps follow the wall clock, so a clock change distorts the wait.
        if is_stale != (heard == Heard::Stale) && datagram.arrived > self.wall_set {
            return self.fail(Some(source), now, format!("{heard:?} after {waited:?}"));
        }
        if heard == Heard::Stale {
            self.tally.stale += 1;
            return;
        }
        let is_client = self.clients.get(&source).is_some_and(|client| client.is_registered);
        if Rooms::bars(source) != (heard == Heard::Barred) {
            return self.fail(Some(source), now, format!("{heard:?} is wrong for this source"));
        }
        if is_client != (heard == Heard::Renewed) {
            let what = format!("{heard:?}, but registered before: {is_client}");
            return self.fail(Some(source), now, what);
        }
        match heard {
            Heard::Barred | Heard::Stale => self.tally.refused += 1,
            Heard::Refused => {
                self.tally.refused += 1;
                if !self.rooms.is_full(source.ip()) {
                    self.fail(Some(source), now, "refused below every cap".to_owned());
                }
            }
            Heard::Renewed => {
                self.settle(source, now);
                let expiration = self.expiration;
                let client = self.clients.get_mut(&source).expect("it is registered");
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

    /// Checks a ping, whether or not the kernel accepted it.
    pub fn pinged(
        &mut self,
        address: SocketAddr,
        local: Option<IpAddr>,
        due: Due,
        now: When,
        is_sent: bool,
    ) {
        self.follow(due);
        let due = due.at;
        if self.watched == Some(address) {
            self.note_ping(due, now, is_sent);
        }
        self.tally.pings += 1;
        let mixed = due.0 ^ u64::from(address.port()) << 40;
        self.tally.digest = self.tally.digest.rotate_left(5).wrapping_add(mixed);
        let expiration = self.expiration;
        let known = self.clients.get_mut(&address).filter(|client| client.is_registered);
        let Some(client) = known else {
            return self.fail(Some(address), now, "pinged, but not registered".to_owned());
        };
        let last_due = client.last_due;
        let is_calm = self.troubles.is_calm(now);
        let phase = last_due.and_then(|last| self.phases.check(last, due, is_calm));
        let wrong = if now > client.last_heard() + expiration {
            Some("pinged after its expiration")
        } else if due > now || now.since(due) >= SECOND {
            Some("pinged early, or at least a second late")
        } else if phase.is_some() {
            phase
        } else if client.muted.is_some() {
            Some("pinged although muted")
        } else if client.unanswered > 4
            && Crowd::is_closed(address)
            && now > self.ignores_until + Duration::from_secs(5)
            && is_calm
        {
            Some("pinged despite repeated ICMP port unreachable")
        } else if local != client.local() {
            Some("pinged from the wrong local address")
        } else {
            None
        };
        let since = client.settled.before(SECOND);
        let (delay, shift) = (self.phases.delay(since), self.phases.shift(since));
        let missed = client
            .owed_before(due, delay)
            .find(|owed| self.troubles.look(*owed, shift) != Served::Excused);
        client.last_due = Some(due);
        client.settled = client.settled.max(due + Duration::from_nanos(1));
        client.pings += u32::from(is_sent);
        client.unanswered += u32::from(is_sent);
        if let Some(wrong) = wrong {
            self.fail(Some(address), now, format!("{wrong}; due {due}, last {last_due:?}"));
        } else if let Some(missed) = missed {
            self.fail(
                Some(address),
                now,
                format!("missed the ping due at {missed}; the next was due at {due}"),
            );
        }
    }

    /// Records the number of slots in a second.
    pub fn follow(&mut self, due: Due) {
        self.tally.moves += u64::from(self.phases.follow(due));
    }

    /// Checks that a client has received every ping due so far.
    fn settle(&mut self, address: SocketAddr, now: When) {
        let Some(client) = self.clients.get_mut(&address) else { return };
        if client.muted.is_some() {
            return;
        }
        let until = now.min(client.live_until(self.expiration));
        let mut missed = None;
        if client.last_due.is_some_and(|last| last >= client.registered) {
            while let Some(due) = client.next_owed().filter(|due| *due + LATEST <= until) {
                match self.troubles.look(due, LONGEST_MOVE) {
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
            if from + SECOND + LATEST <= until {
                missed = Some(from);
            }
        }
        if let Some(missed) = missed {
            self.fail(
                Some(address),
                now,
                format!("missed the ping due at {missed}, and no ping followed"),
            );
        }
    }

    /// The host of a client returns ICMP port unreachable.
    pub fn closed(&mut self, address: SocketAddr, now: When) {
        self.note(address, now, || "its host returns ICMP port unreachable".to_owned());
        if let Some(client) = self.clients.get_mut(&address) {
            client.refusals += 1;
        }
    }

    /// The daemon ignores ICMP errors until then.
    pub fn ignoring(&mut self, until: When) {
        self.ignores_until = until;
    }

    /// The wall clock changes.
    pub fn wall_set(&mut self, now: When) {
        self.wall_set = now;
    }

    /// Checks that the daemon had reason to mute a client until its next heartbeat.
    pub fn muted(&mut self, address: SocketAddr, now: When) {
        self.note(address, now, || "muted".to_owned());
        self.settle(address, now);
        let Some(client) = self.clients.get_mut(&address) else { return };
        let is_silent = now.since(client.last_heard()) >= 2 * SECOND;
        let is_sure = Crowd::is_closed(address) && client.refusals >= 3 && is_silent;
        client.muted = Some(now);
        self.tally.muted += 1;
        if !is_sure {
            self.fail(Some(address), now, "muted without sufficient evidence".to_owned());
        }
    }

    /// Checks the clients that the daemon removed in one batch.
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
            return self.fail(Some(address), now, "removed, but not registered".to_owned());
        };
        client.is_registered = false;
        self.rooms.leave(address.ip());
        // A client that repeats its heartbeat after a third of the expiration is not evicted.
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
}
