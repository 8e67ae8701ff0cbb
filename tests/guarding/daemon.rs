//! Drives an engine and its model with the same events, and compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Refused, Rules};
use wakeupd::engine::registry::{LocalUse, Seed};
use wakeupd::engine::{Batch, Datagram, Engine, MAX_CATCH_UP, Outcome, Registered, Settings};

use crate::model::{Client, Model};
use crate::{
    Event, LOCAL_NETS, Life, OWN_PORT, REFUSE_NETS, Source, addresses, is_denied, networks,
};

/// An engine, and the model that it must match.
#[derive(Debug)]
pub struct Daemon {
    engine: Engine,
    batch: Batch,
    clock: Time,
    model: Model,
}

impl Daemon {
    pub fn new(life: Life) -> Self {
        let Life { start, seed, shards, mode, caps, .. } = life;
        let rules = Rules {
            mode,
            refuse_nets: REFUSE_NETS.parse().unwrap(),
            local_nets: LOCAL_NETS.iter().copied().collect(),
            ..Rules::new(caps)
        };
        let model = Model {
            life,
            denied: Vec::new(),
            heard_until: start,
            clients: BTreeMap::new(),
            reports: BTreeMap::new(),
        };
        let settings = Settings {
            port: OWN_PORT,
            shards,
            seed: Seed(seed),
            max_icmp_errors: 500,
            ..Settings::new(rules, model.expiration(), start)
        };
        let engine = Engine::new(settings, start);
        Self { engine, batch: Batch::default(), clock: start, model }
    }

    pub fn live(&mut self, event: Event) {
        match event {
            Event::Pass { eighths, millis, is_heard } => self.pass(eighths, millis, is_heard),
            Event::Heartbeat { source, local, after } => {
                self.hear(source, local, self.clock + after);
            }
            Event::Serve { slots, after } => self.serve(slots, self.clock + after),
            Event::ServeAll => self.serve_all(),
            Event::PortClosed(client) => self.take_report(client),
            Event::Deny(texts) => self.deny(networks(&texts)),
            Event::Count(source) => self.count(source),
        }
        let count = self.model.clients.len();
        let engine = &self.engine;
        assert_eq!((engine.registry().len(), engine.guard().total() as usize), (count, count));
        let locals = self.model.clients.values().filter_map(|client| client.local);
        let locals =
            LocalUse { addresses: locals.collect::<BTreeSet<_>>().len(), clients_without: 0 };
        assert_eq!(engine.registry().local_use(), locals, "exactly the addresses that clients use");
    }

    fn pass(&mut self, eighths: u32, millis: u64, is_heard: bool) {
        self.clock = self.clock + self.model.life.eighth * eighths + Duration::from_millis(millis);
        if is_heard {
            self.engine.handle_received(self.clock, 0, true);
            self.model.heard_until = self.clock;
        }
    }

    fn hear(&mut self, source: Source, local: Option<IpAddr>, now: Time) {
        let Self { engine, model, clock, .. } = self;
        let Source { address, .. } = source;
        let known = model.clients.get(&address).copied();
        let admitted = model.admit(source);
        let exceeded = if known.is_some() { Ok(()) } else { model.verdict(address.ip()) };
        let datagram = Datagram { source: address, local, payload: &[], waited: Duration::ZERO };
        let outcome = engine.handle_datagram(now, &datagram);
        let registered = match (outcome, admitted.and(exceeded)) {
            (Outcome::Refused { reason, tolerated: None }, Err(expected)) if reason == expected => {
                return assert!(
                    known.is_none() && (model.enforces() || reason == Refused::SourcePortZero)
                );
            }
            (Outcome::Accepted { registered, tolerated }, verdict) => {
                assert!(verdict.is_ok() || !model.enforces());
                assert_eq!(tolerated, admitted.err());
                let exceeding = registered.and_then(|registered| registered.tolerated);
                assert_eq!(exceeding, exceeded.err());
                registered
            }
            lie => panic!("{lie:?}"),
        };
        let shard = match (registered, known) {
            (None, Some(client)) => client.shard,
            (Some(Registered { shard, .. }), None) => shard,
            lie => panic!("{lie:?}"),
        };
        let has_repeated = known.is_some();
        let local = local.or(known.and_then(|client| client.local));
        let client = Client { shard, heartbeat: *clock, has_repeated, is_muted: false, local };
        model.clients.insert(address, client);
        let rooms = model.rooms(address.ip());
        assert!(!model.enforces() || rooms.iter().all(|(count, cap, _)| count <= cap), "{rooms:?}");
    }

    /// Serves up to `slots` slots of the last second.
    fn serve(&mut self, slots: usize, now: Time) {
        self.engine.resume(now, now.before(MAX_CATCH_UP), None);
        for _ in 0..slots {
            let Some(slot) = self.engine.poll_slot(now, 0, &mut self.batch) else { return };
            self.check_slot(&slot.shards, now);
            self.engine.handle_sent(&mut self.batch);
        }
    }

    /// Serves every slot. Within half a second, a slot may be too long ago for the engine to catch up.
    fn serve_all(&mut self) {
        self.serve(usize::MAX, self.clock);
        self.pass(0, 500, true);
        self.serve(usize::MAX, self.clock);
    }

    fn check_slot(&mut self, shards: &Range<usize>, now: Time) {
        let Self { model, batch, .. } = self;
        let mut pinged: Vec<(SocketAddr, _)> = Vec::new();
        batch.for_each(|transmit| {
            pinged.extend(transmit.destinations.iter().map(|client| (*client, transmit.source)));
        });
        let mut removed = batch.removed().to_vec();

        let (mut live, mut gone) = (Vec::new(), Vec::new());
        let in_slot = |client: &Client| shards.contains(&client.shard);
        for (address, client) in model.clients.iter().filter(|(_, client)| in_slot(client)) {
            if let Some(removal) = model.removal(*address, *client, now) {
                gone.push((*address, removal));
            } else if model.is_pinged(*client, now) {
                live.push((*address, client.local));
            }
        }
        pinged.sort_unstable();
        removed.sort_unstable_by_key(|(client, _)| *client);
        assert_eq!((pinged, &removed), (live, &gone));
        for (client, _) in &gone {
            model.clients.remove(client);
        }
    }

    fn take_report(&mut self, address: SocketAddr) {
        let Self { engine, model, clock, .. } = self;
        let before = engine.counters().mutes.get();
        let is_muted = engine.handle_icmp_error(*clock, Some(address));
        let is_believed = engine.counters().mutes.get() > before;
        let client = model.clients.get(&address).copied();
        let pinged = client.filter(|client| model.is_pinged(*client, *clock));
        let expected =
            pinged.is_some_and(|client| model.is_believed(address, client.heartbeat, *clock));
        assert_eq!((is_believed, is_muted), (expected, expected && model.enforces()));
        if is_muted {
            model.clients.get_mut(&address).unwrap().is_muted = true;
        }
    }

    fn deny(&mut self, networks: Vec<IpNet>) {
        let Self { engine, model, .. } = self;
        let mut removed = engine.deny(networks.iter().copied().collect());
        model.denied = networks;
        if !model.enforces() {
            return assert!(removed.is_empty());
        }
        removed.sort_unstable();
        let denied = model.clients.keys().filter(|client| is_denied(&model.denied, client.ip()));
        assert_eq!(removed, denied.copied().collect::<Vec<_>>());
        model.clients.retain(|client, _| !is_denied(&model.denied, client.ip()));
    }

    fn count(&self, address: SocketAddr) {
        let guard = self.engine.guard();
        assert_eq!(guard.count(address.ip()), self.model.count(address.ip()), "at {address}");
        let source = Source { address, barred: None };
        assert_eq!(guard.would_admit(address), self.model.expect(source));
    }

    /// Lets all clients expire.
    pub fn end(mut self) {
        self.pass(8, 1, true);
        self.serve_all();
        assert!(self.engine.registry().is_empty() && self.engine.guard().total() == 0);
        self.deny(Vec::new());
        for address in addresses() {
            self.count(address);
        }
    }
}
