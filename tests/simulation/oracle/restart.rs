//! Who must be a client again, and who must not, when there is a daemon again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use wakeupd::engine::registry::{Registry, View};

use super::{MILLI, Oracle};
use crate::client::{Client, Mix};
use crate::clocks::{Clocks, When};
use crate::troubles::PROMPT;

/// Why there is a daemon anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Terminated,
    Killed,
    Rebooted,
    /// It was killed before there was a snapshot.
    Forgotten,
}

/// What the new daemon can know.
#[derive(Clone, Copy, Debug)]
struct Memory {
    restart: Restart,
    now: When,
    /// When the snapshot was begun.
    saved: When,
    /// How much older everybody seems than he is, in nanoseconds: by so much the wall clock was set since,
    /// which alone goes on while the machine is started anew.
    ageing: i64,
    expiration: Duration,
}

impl Memory {
    /// When something seems to have been.
    fn seems(&self, when: When) -> When {
        When((when.0.cast_signed() - self.ageing).max(0).cast_unsigned())
    }

    /// Whether there is a snapshot, and its time is not yet to come.
    fn is_there(&self) -> bool {
        self.restart != Restart::Forgotten && self.seems(self.saved) <= self.now
    }

    fn keeps_phases(&self) -> bool {
        matches!(self.restart, Restart::Terminated | Restart::Killed)
    }

    /// What is wrong with a client that is one again, known by this.
    fn brought_back(
        &self,
        client: &Client,
        view: &View,
        heard: (When, Option<IpAddr>),
    ) -> Option<String> {
        let (believed, local) = heard;
        let known = client.known_at(self.saved);
        // Of two heartbeats in a millisecond it may be either.
        let mut heard = client.heard.iter().filter(|(heard, _)| Some(*heard) >= known);
        let is_true = heard.any(|(heard, address)| {
            believed.apart(self.seems(*heard)) <= 2 * MILLI && Some(*address) == local
        });
        // What happens in the very moment in which it is begun may be in the snapshot or not.
        let was_muted = client.muted.is_some_and(|muted| muted < self.saved);
        let is_exact = self.restart == Restart::Terminated;
        let counts = (view.heartbeats, view.pings) == (client.heartbeats, client.pings);
        if !self.is_there() || !is_true {
            let all = &client.heard;
            Some(format!("believed to be heard at {believed} at {local:?}, but was so at {all:?}"))
        } else if believed + self.expiration < self.now {
            Some("brought back, but its time is over".to_owned())
        } else if was_muted && !view.is_muted || is_exact && was_muted != view.is_muted {
            Some(format!("muted: {was_muted}, but now {}", view.is_muted))
        } else if is_exact && !counts {
            Some(format!("known by other counts: {view:?} for {client:?}"))
        } else {
            None
        }
    }

    /// When a client who must be one again was heard.
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
    /// There is a daemon again since now, with these clients. The last one ended at `since`.
    pub fn restarted(
        &mut self,
        restart: Restart,
        since: When,
        clocks: &Clocks,
        registry: &Registry,
    ) {
        let now = clocks.now;
        self.remark(now, || format!("{restart:?} at {since}, and now there is a daemon again"));
        self.tally.restarts += 1;
        match restart {
            Restart::Terminated => self.troubles.late(since, now),
            _ => self.troubles.lost(since, now),
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
                wrong.push((*address, "brought back beyond a cap".to_owned()));
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
                    // Where there is no room, who has not repeated its heartbeat in time makes way.
                    let is_first = client.heartbeats == 1 || client.registered == client.heard[0].0;
                    let is_over = now.since(heard) + MILLI > self.expiration * 3 / 8;
                    if !(is_first && is_over && self.rooms.is_full(address.ip())) {
                        wrong.push((*address, format!("forgotten, but it was heard at {heard}")));
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
        let strangers = views.into_keys().map(|address| (address, "never heard of".to_owned()));
        wrong.extend(strangers);
        if let Some((address, wrong)) = wrong.into_iter().next() {
            self.fail(Some(address), now, wrong);
        }
    }
}
