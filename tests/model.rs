//! The core in virtual time: registry and schedule against a plain map and a loop over milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use wakeupd::clock::Time;
use wakeupd::engine::registry::{Refreshed, Registry, Seed, Sweep};
use wakeupd::engine::schedule::Schedule;

/// In milliseconds since the boot. The registry's stamps begin again at zero in the life of one that
/// starts shortly before a multiple of 2³² ms.
const STARTS: [u64; 5] = [0, 1 << 25, (1 << 32) - 12_000, (1 << 32) - 4_000, (7 << 32) - 1];

/// Milliseconds since the start.
type Millis = u32;
type Client = u16;

/// Everything that happens to a daemon in some seconds of its life.
#[derive(Clone, Debug)]
struct History {
    start: Time,
    seed: [u64; 2],
    shards: usize,
    workers: usize,
    expiration: Millis,
    /// When heartbeats arrive at the socket, and from whom.
    heartbeats: BTreeSet<(Millis, Client)>,
    /// While one of these lasts, nothing is read from the socket.
    deaf: Vec<Pause>,
    /// While one of these lasts, a worker does nothing.
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
    /// When it should have been sent.
    due: Time,
}

/// What the daemon did.
#[derive(Debug, Default)]
struct Deeds {
    pings: BTreeMap<Client, Vec<Ping>>,
    /// When heartbeats were read from the socket.
    read: BTreeMap<Client, Vec<Millis>>,
}

impl History {
    /// All that happens begins in this time.
    const LENGTH: Millis = 9_000;
    const LONGEST_PAUSE: Millis = 3_500;

    /// The end, when everybody's time is over and each shard has been swept since.
    fn end(&self) -> Millis {
        Self::LENGTH + Self::LONGEST_PAUSE + self.expiration + 1_100
    }

    /// Lives it, and checks all the while that the registry holds whom it must.
    fn live(&self) -> Deeds {
        let expiration = Duration::from_millis(self.expiration.into());
        let registry = Registry::new(self.shards, expiration, Seed(self.seed));
        let mut workers: Vec<_> = (0..self.workers)
            .map(|worker| Schedule::new(self.start, self.shards, worker, self.workers))
            .collect();
        let mut sweep = Sweep::default();
        let mut deeds = Deeds::default();
        let mut waiting = BTreeSet::new();
        let mut present: BTreeMap<Client, Millis> = BTreeMap::new();
        let mut homes: BTreeMap<Client, usize> = BTreeMap::new();

        for time in 0..self.end() {
            let now = self.start + Duration::from_millis(time.into());
            waiting.extend(self.heartbeats.range((time, 0)..(time + 1, 0)).copied());
            if !self.deaf.iter().any(|pause| pause.covers(time)) {
                for (_, client) in std::mem::take(&mut waiting) {
                    let is_known = present.insert(client, time).is_some();
                    match registry.refresh(address(client), None, now, || true) {
                        Refreshed::Refused => unreachable!("everybody is let in"),
                        Refreshed::Renewed => assert!(is_known),
                        Refreshed::Registered { shard, is_first } => {
                            assert!(!is_known);
                            let is_fellow = |other: &Client| {
                                *other != client
                                    && address(*other).is_ipv6() == address(client).is_ipv6()
                                    && homes[other] == shard
                            };
                            assert_eq!(is_first, !present.keys().any(is_fellow));
                            homes.insert(client, shard);
                        }
                    }
                    deeds.read.entry(client).or_default().push(time);
                }
                registry.heard_until(now);
            }
            for (index, schedule) in workers.iter_mut().enumerate() {
                let is_idle =
                    |(worker, pause): &(usize, Pause)| *worker == index && pause.covers(time);
                while schedule.deadline() <= now && !self.idle.iter().any(is_idle) {
                    let slot = schedule.take(now);
                    assert!(now.since(slot.due) < Duration::from_secs(1));
                    registry.sweep(slot.shard, now, |_| false, &mut sweep);
                    let v4 = sweep.v4.iter().map(|target| SocketAddr::from(target.client));
                    let v6 = sweep.v6.iter().map(|target| SocketAddr::from(target.client));
                    for client in v4.chain(v6) {
                        assert_eq!(homes[&client.port()], slot.shard);
                        let pings = deeds.pings.entry(client.port()).or_default();
                        pings.push(Ping { sent: time, due: slot.due });
                    }
                    for (removed, _) in &sweep.removed {
                        let client = removed.port();
                        let over = present.remove(&client).unwrap() + self.expiration;
                        assert!(over < time, "client {client} was dropped alive");
                        let saviour = waiting
                            .iter()
                            .find(|(arrival, waits)| *waits == client && *arrival <= over);
                        assert_eq!(saviour, None, "a heartbeat of client {client} was waiting");
                    }
                }
            }
            if time % 100 == 0 {
                assert_eq!(registry.len(), present.len());
            }
        }
        assert!(registry.is_empty(), "somebody outlived the expiration");
        deeds
    }

    /// In which milliseconds a client is live whose heartbeats were read at these times.
    fn life(&self, read: &[Millis]) -> Vec<bool> {
        let mut live_until = None;
        let mut read = read.iter().peekable();
        let is_live = |time| {
            while let Some(heartbeat) = read.next_if(|heartbeat| **heartbeat <= time) {
                live_until = Some(heartbeat + self.expiration);
            }
            live_until.is_some_and(|until| time <= until)
        };
        (0..self.end()).map(is_live).collect()
    }
}

fn address(client: Client) -> SocketAddr {
    let ip = if client.is_multiple_of(2) { "2001:db8::1" } else { "192.0.2.1" };
    SocketAddr::new(ip.parse().unwrap(), client)
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
        prop::collection::vec((0_usize..64, pause()), 0..=pauses),
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

    /// A daemon that always keeps up does to the millisecond what a plain loop would do.
    #[test]
    fn every_client_is_pinged_once_in_each_second_of_its_life(history in history(0)) {
        let deeds = history.live();
        for (client, read) in &deeds.read {
            let life = history.life(read);
            let live_at = |phase: Millis| (phase..history.end()).step_by(1_000).filter(|time| life[*time as usize]);
            let sent: Vec<_> = deeds.pings.get(client).into_iter().flatten().map(|ping| ping.sent).collect();
            match sent.first() {
                // Where its phase lies is the hash's secret, so it is learnt from the first ping.
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

    /// Whatever stalls: no ping to the dead, none twice, and nobody dropped who may be alive.
    #[test]
    fn a_daemon_that_stalls_makes_nothing_up_and_drops_nobody(history in history(3)) {
        let deeds = history.live();
        for (client, pings) in &deeds.pings {
            let life = history.life(&deeds.read[client]);
            for ping in pings {
                prop_assert!(life[ping.sent as usize], "a ping to the dead");
            }
            for pair in pings.windows(2) {
                let apart = pair[1].due.since(pair[0].due);
                prop_assert!(apart >= Duration::from_secs(1) && apart.subsec_nanos() == 0,
                    "client {} was due twice within {:?}", client, apart);
            }
        }
    }
}
