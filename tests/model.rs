//! Compares the engine in virtual time with a plain map and a loop over milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Rules};
use wakeupd::engine::registry::Seed;
use wakeupd::engine::{Batch, Datagram, Engine, Outcome, Settings};

/// In milliseconds since boot. The registry's stamps wrap to zero during a life that starts shortly before a
/// multiple of 2³² ms.
const STARTS: [u64; 5] = [0, 1 << 25, (1 << 32) - 12_000, (1 << 32) - 4_000, (7 << 32) - 1];

/// Milliseconds since the start.
type Millis = u32;
type Client = u16;

/// The events of a few seconds in the life of a daemon.
#[derive(Clone, Debug)]
struct History {
    start: Time,
    seed: [u64; 2],
    shards: usize,
    workers: usize,
    expiration: Millis,
    /// The arrival times of heartbeats at the socket, and their clients.
    heartbeats: BTreeSet<(Millis, Client)>,
    /// The listener's pauses, in which nothing is read from the socket.
    deaf: Vec<Pause>,
    /// The workers' pauses.
    idle: Vec<(usize, Pause)>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    from: Millis,
    length: Millis,
}

impl Pause {
    fn covers(self, time: Millis) -> bool {
        (self.from..self.from + self.length).contains(&time)
    }
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    sent: Millis,
    /// When the ping was due.
    due: Time,
}

/// The daemon's actions.
#[derive(Debug, Default)]
struct Deeds {
    pings: BTreeMap<Client, Vec<Ping>>,
    /// When each client's heartbeats were read from the socket.
    read: BTreeMap<Client, Vec<Millis>>,
}

impl History {
    /// All events begin within this time.
    const LENGTH: Millis = 9_000;
    const LONGEST_PAUSE: Millis = 3_500;

    /// The end, after all clients have expired and each shard has been swept since.
    fn end(&self) -> Millis {
        Self::LENGTH + Self::LONGEST_PAUSE + self.expiration + 1_100
    }

    /// Creates an engine that admits all clients.
    fn engine(&self) -> Engine {
        let caps = Caps { clients: 100, per_address: 100, per_prefix: 100 };
        let expiration = Duration::from_millis(self.expiration.into());
        let settings = Settings {
            shards: self.shards,
            seed: Seed(self.seed),
            workers: self.workers,
            ..Settings::new(Rules::new(caps), expiration, self.start)
        };
        Engine::new(settings, self.start)
    }

    /// Runs the engine through the history, and checks that the registry holds the right clients. Datagrams
    /// arrive at the start of a millisecond, and the workers poll at its end.
    fn live(&self) -> Deeds {
        let engine = self.engine();
        let mut batch = Batch::default();
        let mut asleep_until = vec![self.start; self.workers];
        let mut deeds = Deeds::default();
        let mut waiting = BTreeSet::new();
        let mut present: BTreeMap<Client, Millis> = BTreeMap::new();
        let mut homes: BTreeMap<Client, usize> = BTreeMap::new();

        for time in 0..self.end() {
            let now = self.start + Duration::from_millis(time.into());
            waiting.extend(self.heartbeats.range((time, 0)..(time + 1, 0)).copied());
            if !self.deaf.iter().any(|pause| pause.covers(time)) {
                let received = std::mem::take(&mut waiting);
                for (_, client) in &received {
                    let is_known = present.insert(*client, time).is_some();
                    let Outcome::Accepted { registered, tolerated: None } =
                        engine.handle_datagram(now, &heartbeat(*client))
                    else {
                        panic!("everybody is let in")
                    };
                    assert_eq!(registered.is_some(), !is_known);
                    if let Some(registered) = registered {
                        let is_fellow = |other: &Client| {
                            other != client
                                && address(*other).is_ipv6() == address(*client).is_ipv6()
                                && homes[other] == registered.shard
                        };
                        let is_first = !present.keys().any(is_fellow);
                        // One worker suffices for so few clients.
                        assert_eq!(registered.wakes, usize::from(is_first));
                        asleep_until[..registered.wakes].fill(now);
                        homes.insert(*client, registered.shard);
                    }
                    deeds.read.entry(*client).or_default().push(time);
                }
                engine.handle_received(now, received.len(), true);
            }
            let now = now + Duration::from_nanos(999_999);
            for (worker, asleep_until) in asleep_until.iter_mut().enumerate() {
                let is_idle =
                    |(idle, pause): &(usize, Pause)| *idle == worker && pause.covers(time);
                if now < *asleep_until || self.idle.iter().any(is_idle) {
                    continue;
                }
                while let Some(slot) = engine.poll_slot(now, worker, &mut batch) {
                    assert!(now.since(slot.due) < Duration::from_secs(1));
                    batch.for_each(|transmit| {
                        for client in transmit.destinations {
                            assert!(slot.shards.contains(&homes[&number(*client)]));
                            let pings = deeds.pings.entry(number(*client)).or_default();
                            pings.push(Ping { sent: time, due: slot.due });
                        }
                    });
                    for (removed, _) in batch.removed() {
                        let client = number(*removed);
                        let over = present.remove(&client).unwrap() + self.expiration;
                        assert!(over < time, "client {client} was dropped alive");
                        let saviour = waiting
                            .iter()
                            .find(|(arrival, waits)| *waits == client && *arrival <= over);
                        assert_eq!(saviour, None, "a heartbeat of client {client} was waiting");
                    }
                }
                *asleep_until = engine.poll_timeout(now, worker).expect("the worker does not end");
            }
            if time % 100 == 0 {
                assert_eq!(engine.registry().len(), present.len());
            }
        }
        assert!(engine.registry().is_empty(), "a client outlived the expiration");
        deeds
    }

    /// The milliseconds in which a client is live, given the times when its heartbeats were read.
    fn life(&self, read: &[Millis]) -> Vec<bool> {
        let mut live_until = None;
        let mut read = read.iter().peekable();
        let is_live = |time| {
            while let Some(heartbeat) = read.next_if(|heartbeat| **heartbeat <= time) {
                live_until = Some(heartbeat + self.expiration);
            }
            live_until.is_some_and(|until| time < until)
        };
        (0..self.end()).map(is_live).collect()
    }
}

fn address(client: Client) -> SocketAddr {
    let ip = if client.is_multiple_of(2) { "2001:db8::1" } else { "192.0.2.1" };
    SocketAddr::new(ip.parse().unwrap(), 10_000 + client)
}

fn number(address: SocketAddr) -> Client {
    address.port() - 10_000
}

fn heartbeat(client: Client) -> Datagram<'static> {
    let source = address(client);
    Datagram { source, local: None, payload: b"any", waited: Duration::ZERO }
}

fn pause() -> impl Strategy<Value = Pause> {
    (0..History::LENGTH, 1..History::LONGEST_PAUSE)
        .prop_map(|(from, length)| Pause { from, length })
}

fn history(pauses: usize) -> impl Strategy<Value = History> {
    (
        (
            prop::sample::select(&STARTS),
            any::<[u64; 2]>(),
            1_u32..=6,
            1_usize..=64,
            500_u32..=4_000,
        ),
        prop::collection::btree_set((0..History::LENGTH, 0..6_u16), 0..24),
        prop::collection::vec(pause(), 0..=pauses),
        prop::collection::vec((0_usize..2, pause()), 0..=pauses),
    )
        .prop_map(|((start, seed, shards, workers, expiration), heartbeats, deaf, idle)| {
            let start = Time::from_nanos(start * 1_000_000);
            let shards = 1 << shards;
            let workers = 1 + (workers - 1) % shards;
            let idle = idle.into_iter().map(|(worker, pause)| (worker % workers, pause)).collect();
            History { start, seed, shards, workers, expiration, heartbeats, deaf, idle }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A daemon that always keeps up matches a plain loop to the millisecond.
    #[test]
    fn every_client_is_pinged_once_a_second_until_it_expires(history in history(0)) {
        let deeds = history.live();
        for (client, read) in &deeds.read {
            let life = history.life(read);
            let live_at = |phase: Millis| (phase..history.end()).step_by(1_000).filter(|time| life[*time as usize]);
            let sent: Vec<_> = deeds.pings.get(client).into_iter().flatten().map(|ping| ping.sent).collect();
            match sent.first() {
                // The phase depends on the secret hash, so it is taken from the first ping.
                Some(first) => {
                    let expected: Vec<_> = live_at(first % 1_000).collect();
                    prop_assert_eq!(&sent, &expected, "client {}", client);
                }
                None => prop_assert!(
                    (0..1_000).any(|phase| live_at(phase).next().is_none()),
                    "client {} lived through all phases of a second without a ping", client
                ),
            }
            let whole_seconds = life.iter().filter(|live| **live).count() / 1_000;
            let lives = 1 + read.windows(2).filter(|pair| pair[1] - pair[0] > history.expiration).count();
            prop_assert!(
                sent.len().abs_diff(whole_seconds) <= lives,
                "client {}: {} pings in {} s", client, sent.len(), whole_seconds
            );
        }
    }

    /// No stall causes a ping to an expired client, a duplicate ping, or the loss of a client that may be
    /// live.
    #[test]
    fn a_stall_causes_no_extra_ping_and_loses_no_client(history in history(3)) {
        let deeds = history.live();
        for (client, pings) in &deeds.pings {
            let life = history.life(&deeds.read[client]);
            for ping in pings {
                prop_assert!(life[ping.sent as usize], "a ping to an expired client");
            }
            for pair in pings.windows(2) {
                let apart = pair[1].due.since(pair[0].due);
                prop_assert!(apart >= Duration::from_secs(1) && apart.subsec_nanos() == 0,
                    "client {} was due twice within {:?}", client, apart);
            }
        }
    }
}
