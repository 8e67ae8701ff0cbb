//! The clients: who is live, since when, and where their pings leave from.
//!
//! One [`DashMap`] whose shards are the slots of the second: a client's shard says when in each
//! second it is pinged. A shard's lock is held while its entries are copied out, never longer.

mod shard;

use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use dashmap::{DashMap, Entry};

use crate::clock::Time;

/// The number of shards of a daemon's registry, and so of slots in a second: about one each
/// millisecond.
pub const SHARDS: usize = 1024;

/// What a heartbeat did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It made its source a client.
    Registered,
    /// Its source was a client before.
    Renewed,
}

/// Where to send a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The client.
    pub client: SocketAddr,
    /// The local address its heartbeat hit, where that could be another one than the kernel's choice.
    pub local: Option<IpAddr>,
}

/// What a sweep of a shard found.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The live clients.
    pub live: Vec<Target>,
    /// Those removed because their time was over.
    pub expired: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Client {
    last_heartbeat: AtomicU64,
    local: Option<IpAddr>,
}

/// All clients. The hash is seeded at random, because strangers choose the keys.
#[derive(Debug)]
pub struct Registry {
    clients: DashMap<SocketAddr, Client, RandomState>,
    expiration: Duration,
    heard_until: AtomicU64,
}

impl Registry {
    /// An empty registry, whose clients live until `expiration` after their last heartbeat.
    ///
    /// # Panics
    /// Unless `shards` is a power of two above 1.
    #[must_use]
    pub fn new(shards: usize, expiration: Duration) -> Self {
        Self {
            clients: DashMap::with_hasher_and_shard_amount(RandomState::new(), shards),
            expiration,
            heard_until: AtomicU64::default(),
        }
    }

    /// Records a heartbeat from `client` that hit the address `local`.
    pub fn refresh(&self, client: SocketAddr, local: Option<IpAddr>, now: Time) -> Refreshed {
        if let Some(known) = self.clients.get(&client)
            && known.local == local
        {
            known.last_heartbeat.fetch_max(now.as_nanos(), Relaxed);
            return Refreshed::Renewed;
        }
        let heartbeat = Client { last_heartbeat: AtomicU64::new(now.as_nanos()), local };
        match self.clients.entry(client) {
            Entry::Occupied(mut known) => {
                known.insert(heartbeat);
                Refreshed::Renewed
            }
            Entry::Vacant(free) => {
                free.insert(heartbeat);
                Refreshed::Registered
            }
        }
    }

    /// Says that every heartbeat that arrived before `time` has been recorded.
    ///
    /// Nobody is removed for a silence that reaches beyond this: after a stop of the process, or
    /// while the listener is behind, a client's heartbeat may be waiting in the socket.
    pub fn heard_until(&self, time: Time) {
        self.heard_until.store(time.as_nanos(), Release);
    }

    /// Finds the clients of `shard` that are live at `now` and removes those whose time is over.
    ///
    /// One whose time seems to be over, but whose heartbeat may still be waiting to be recorded, is
    /// neither: it stays and gets no ping.
    pub fn sweep(&self, shard: usize, now: Time, sweep: &mut Sweep) {
        sweep.live.clear();
        sweep.expired.clear();
        let heard_until = now.min(Time::from_nanos(self.heard_until.load(Acquire)));
        shard::retain(&self.clients, shard, |&address, client| {
            let last_heartbeat = Time::from_nanos(client.last_heartbeat.load(Relaxed));
            if now.since(last_heartbeat) <= self.expiration {
                sweep.live.push(Target { client: address, local: client.local });
                return true;
            }
            let stays = heard_until.since(last_heartbeat) <= self.expiration;
            if !stays {
                sweep.expired.push(address);
            }
            stays
        });
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION: Duration = Duration::from_secs(120);
    const START: Time = Time::from_nanos(1 << 40);

    fn client(port: u16) -> SocketAddr {
        SocketAddr::new("192.0.2.1".parse().unwrap(), port)
    }

    fn sweep_all(registry: &Registry, now: Time) -> Sweep {
        let mut all = Sweep::default();
        let mut one = Sweep::default();
        for shard in 0..SHARDS {
            registry.sweep(shard, now, &mut one);
            all.live.append(&mut one.live);
            all.expired.append(&mut one.expired);
        }
        all
    }

    #[test]
    fn a_client_lives_until_its_expiration_and_not_a_nanosecond_longer() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        assert_eq!(registry.refresh(client(1), None, START), Refreshed::Registered);
        assert_eq!(registry.refresh(client(1), None, START), Refreshed::Renewed);
        let last = START + EXPIRATION;
        let over = last + Duration::from_nanos(1);
        registry.heard_until(over);
        assert_eq!(sweep_all(&registry, last).live, [Target { client: client(1), local: None }]);
        let sweep = sweep_all(&registry, over);
        assert_eq!((sweep.live, sweep.expired), (vec![], vec![client(1)]));
        assert!(registry.is_empty());
    }

    #[test]
    fn nobody_is_removed_while_heartbeats_may_be_waiting() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        registry.refresh(client(1), None, START);
        registry.refresh(client(2), None, START);
        registry.heard_until(START);
        let later = START + Duration::from_secs(3600);
        let sweep = sweep_all(&registry, later);
        assert_eq!((sweep.live.len(), sweep.expired.len(), registry.len()), (0, 0, 2));

        registry.refresh(client(2), None, later);
        registry.heard_until(later);
        let sweep = sweep_all(&registry, later);
        assert_eq!(sweep.live, [Target { client: client(2), local: None }]);
        assert_eq!(sweep.expired, [client(1)]);
    }

    #[test]
    fn a_ping_leaves_from_where_the_last_heartbeat_hit() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        for local in ["192.0.2.10", "192.0.2.11"] {
            let local = Some(local.parse().unwrap());
            registry.refresh(client(1), local, START);
            assert_eq!(sweep_all(&registry, START).live, [Target { client: client(1), local }]);
        }
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_heartbeat_recorded_late_takes_nothing_from_a_newer_one() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let newer = START + Duration::from_secs(60);
        registry.refresh(client(1), None, newer);
        registry.refresh(client(1), None, START);
        registry.heard_until(newer + EXPIRATION);
        assert_eq!(sweep_all(&registry, newer + EXPIRATION).live.len(), 1);
    }
}
