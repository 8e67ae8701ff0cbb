//! Checks the clients that a restarted daemon restores.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use wakeupd::engine::registry::{Registry, View};

use super::{MILLI, Oracle};
use crate::client::{Client, Mix};
use crate::clocks::{Clocks, When};
use crate::troubles::PROMPT;

/// How the previous daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Terminated,
    Killed,
    Rebooted,
    /// It left no snapshot.
    Forgotten,
}

/// The knowledge available to the new daemon.
#[derive(Clone, Copy, Debug)]
struct Memory {
    restart: Restart,
    now: When,
    /// The start of the snapshot.
    saved: When,
    /// How much older each heartbeat seems than it is, in nanoseconds. Only the wall clock bridges a reboot,
    /// so this is its change since the snapshot.
    ageing: i64,
    expiration: Duration,
}

impl Memory {
    /// The apparent time of an event at `when`.
    fn seems(&self, when: When) -> When {
        When((when.0.cast_signed() - self.ageing).max(0).cast_unsigned())
    }

    /// Whether there is a snapshot that does not date from the future.
    fn is_there(&self) -> bool {
        self.restart != Restart::Forgotten && self.seems(self.saved) <= self.now
    }

    fn keeps_phases(&self) -> bool {
        matches!(self.restart, Restart::Terminated | Restart::Killed)
    }

    /// Returns the error in a restored client, if any.
    fn brought_back(
        &self,
        client: &Client,
        view: &View,
        heard: (When, Option<IpAddr>),
    ) -> Option<String> {
        let (believed, local) = heard;
        let known = client.known_at(self.saved);
        // Two heartbeats within a millisecond are indistinguishable.
        let mut heard = client.heard.iter().filter(|(heard, _)| Some(*heard) >= known);
        let is_true = heard.any(|(heard, address)| {
            believed.apart(self.seems(*heard)) <= 2 * MILLI && Some(*address) == local
        });
        // A snapshot may or may not contain an event at the very time of its start.
        let was_muted = client.muted.is_some_and(|muted| muted < self.saved);
        let is_exact = self.restart == Restart::Terminated;
        let counts = (view.heartbeats, view.pings) == (client.heartbeats, client.pings);
        if !self.is_there() || !is_true {
            let all = &client.heard;
            Some(format!("restored as heard at {believed} by {local:?}, but was heard at {all:?}"))
        } else if believed + self.expiration < self.now {
            Some("restored although expired".to_owned())
        } else if was_muted && !view.is_muted || is_exact && was_muted != view.is_muted {
            Some(format!("muted before: {was_muted}, now: {}", view.is_muted))
        } else if is_exact && !counts {
            Some(format!("restored with wrong counts: {view:?} for {client:?}"))
        } else {
            None
        }
    }

    /// The last known heartbeat of `client`, if the daemon must restore it.
    fn owed(&self, client: &Client) -> Option<When> {
        let heard = client.known_at(self.saved).map(|heard| self.seems(heard))?;
        let live_until = heard + self.expiration;
        let is_owed = self.is_there()
            && client.is_registered
            && client.registered < self.saved
            && (heard..live_until.before(MILLI)).contains(&self.now);
        is_owed.then_some(heard)
    }
}

impl Oracle {
    /// Checks the clients of a restarted daemon. The previous one ended at `since`.
    pub fn restarted(
        &mut self,
        restart: Restart,
        since: When,
        clocks: &Clocks,
        registry: &Registry,
    ) {
        let now = clocks.now;
        self.remark(now, || format!("{restart:?} at {since}; the daemon runs again"));
        self.tally.restarts += 1;
        if restart == Restart::Terminated {
            self.troubles.late(since, now);
        } else {
            self.troubles.lost(since, now);
            self.phases.restart_after_crash(now);
        }
        let (saved, wall_set) = self.saved;
        let ageing = if restart == Restart::Rebooted { clocks.wall_set() - wall_set } else { 0 };
        let memory = Memory { restart, now, saved, ageing, expiration: self.expiration };

        let mut views = HashMap::<_, _, Mix>::default();
        for shard in 0..registry.shards() {
            registry.look_at(shard, clocks.boottime(now), |view| {
                views.insert(view.address, view);
            });
        }
        self.tally.restored += views.len() as u64;
        self.rooms.clear();
        for address in views.keys() {
            self.rooms.enter(address.ip());
        }
        let mut wrong = Vec::new();
        for (address, client) in &mut self.clients {
            if self.rooms.is_overfull(address.ip()) {
                wrong.push((*address, "restored beyond a cap".to_owned()));
            }
            let was_pinged = client.is_registered && client.muted.is_none();
            if let Some(view) = views.remove(address) {
                let believed = clocks.when(view.last_heartbeat);
                let found = memory.brought_back(client, &view, (believed, view.local));
                wrong.extend(found.map(|wrong| (*address, wrong)));
                client.heard.clear();
                client.heard.extend(view.local.map(|local| (believed, local)));
                (client.heartbeats, client.pings) = (view.heartbeats, view.pings);
                client.unanswered = 0;
                client.muted = view.is_muted.then_some(since);
                client.is_registered = true;
            } else {
                if let Some(heard) = memory.owed(client) {
                    // At a cap, a client that has not repeated its heartbeat in time is evicted.
                    let is_first = client.heartbeats == 1 || client.registered == client.heard[0].0;
                    let is_over = now.since(heard) + MILLI > self.expiration * 3 / 8;
                    if !(is_first && is_over && self.rooms.is_full(address.ip())) {
                        wrong.push((*address, format!("forgotten despite a heartbeat at {heard}")));
                    }
                }
                client.is_registered = false;
            }
            if !memory.keeps_phases() {
                client.last_due = None;
            }
            if !memory.keeps_phases() || !was_pinged {
                client.settled = now + PROMPT;
            }
        }
        let strangers =
            views.into_keys().map(|address| (address, "restored, but never registered".to_owned()));
        wrong.extend(strangers);
        if let Some((address, wrong)) = wrong.into_iter().next() {
            self.fail(Some(address), now, wrong);
        }
    }
}
