//! The clients: who is live, since when, and where their pings leave from.
//!
//! Two [`DashMap`]s, one for IPv4 and one for IPv6 clients, whose shards of the same number are
//! together a slot of the second: a client's shard says when in each second it is pinged. A shard's
//! lock is held while its entries are copied out, never longer.
//!
//! Memory is mostly the clients' tables, so an entry is small: 12 bytes for an IPv4 client and 24 for
//! an IPv6 one.

mod key;
mod local;
mod shard;
mod stamp;

use std::hash::{Hash, RandomState};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::Duration;

use dashmap::{DashMap, SharedValue};

use self::key::KeyV6;
pub use self::local::Local;
use self::local::Locals;
use self::stamp::Stamp;
use crate::clock::Time;

/// The number of shards of a daemon's registry, and so of slots in a second: one each 4 ms, so that
/// pings leave in an even stream, and a thread is not woken for a handful of them.
pub const SHARDS: usize = 256;

/// What a heartbeat did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It made its source a client.
    Registered {
        /// The shard that the client belongs to.
        shard: usize,
        /// Whether no other client of the same address family is in that shard, so that its worker
        /// may not have known of anything to do in it.
        is_first: bool,
    },
    /// Its source was a client before.
    Renewed,
}

/// Where to send a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<A> {
    /// The client.
    pub client: A,
    /// The local address its heartbeat hit, where that could be another one than the kernel's choice.
    pub local: Local,
}

/// What a sweep of a shard found.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The live IPv4 clients.
    pub v4: Vec<Target<SocketAddrV4>>,
    /// The live IPv6 clients.
    pub v6: Vec<Target<SocketAddrV6>>,
    /// Those removed because their time was over.
    pub expired: Vec<SocketAddr>,
}

/// Packed, because padding would make an IPv4 client's entry 16 bytes instead of 12.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
struct Client {
    last_heartbeat: Stamp,
    local: Local,
}

type Clients<K> = DashMap<K, Client, RandomState>;

/// All clients. The hashes are seeded at random, because strangers choose the keys.
#[derive(Debug)]
pub struct Registry {
    v4: Clients<SocketAddrV4>,
    v6: Clients<KeyV6>,
    locals: Locals,
    expiration: Duration,
    heard_until: AtomicU64,
}

impl Registry {
    /// An empty registry, whose clients live until `expiration` after their last heartbeat, the time
    /// of which is cut off to a millisecond.
    ///
    /// # Panics
    /// Unless `shards` is a power of two above 1.
    #[must_use]
    pub fn new(shards: usize, expiration: Duration) -> Self {
        Self {
            v4: DashMap::with_hasher_and_shard_amount(RandomState::new(), shards),
            v6: DashMap::with_hasher_and_shard_amount(RandomState::new(), shards),
            locals: Locals::default(),
            expiration,
            heard_until: AtomicU64::default(),
        }
    }

    /// Records a heartbeat from `client`, a canonical address, that hit the address `local`.
    pub fn refresh(&self, client: SocketAddr, local: Option<IpAddr>, now: Time) -> Refreshed {
        let local = self.locals.intern(local);
        match client {
            SocketAddr::V4(client) => record(&self.v4, client, local, now),
            SocketAddr::V6(client) => record(&self.v6, client.into(), local, now),
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
        let Sweep { v4, v6, expired } = sweep;
        expired.clear();
        self.sweep_family(&self.v4, shard, now, v4, expired);
        self.sweep_family(&self.v6, shard, now, v6, expired);
    }

    fn sweep_family<K, A>(
        &self,
        clients: &Clients<K>,
        shard: usize,
        now: Time,
        live: &mut Vec<Target<A>>,
        expired: &mut Vec<SocketAddr>,
    ) where
        K: Copy + Eq + Hash,
        A: From<K> + Into<SocketAddr>,
    {
        live.clear();
        let heard_until = now.min(Time::from_nanos(self.heard_until.load(Acquire)));
        shard::retain(clients, shard, |&key, &Client { last_heartbeat, local }| {
            let last_heartbeat = last_heartbeat.near(now);
            if now.since(last_heartbeat) <= self.expiration {
                live.push(Target { client: key.into(), local });
                return true;
            }
            let stays = heard_until.since(last_heartbeat) <= self.expiration;
            if !stays {
                expired.push(A::from(key).into());
            }
            stays
        });
    }

    /// The address behind the `local` of one of this registry's targets; `None` is the kernel's
    /// choice.
    #[must_use]
    pub fn address_of(&self, local: Local) -> Option<IpAddr> {
        self.locals.address_of(local)
    }

    /// Whether there is no client in `shard`.
    #[must_use]
    pub fn is_shard_empty(&self, shard: usize) -> bool {
        self.v4.shards()[shard].read().is_empty() && self.v6.shards()[shard].read().is_empty()
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Records a heartbeat in one go under the lock of the client's shard. It is exclusive also for a
/// client that is known, because nobody else needs a shard more than once a second.
fn record<K: Eq + Hash>(clients: &Clients<K>, client: K, local: Local, now: Time) -> Refreshed {
    let hash = clients.hash_usize(&client);
    let shard = clients.determine_shard(hash);
    let mut table = clients.shards()[shard].write();
    let heartbeat = Client { last_heartbeat: Stamp::of(now), local };
    if let Some((_, known)) = table.get_mut(hash as u64, |(key, _)| *key == client) {
        let known = known.get_mut();
        let last_heartbeat = known.last_heartbeat;
        if last_heartbeat.near(now) <= now {
            *known = heartbeat;
        }
        return Refreshed::Renewed;
    }
    let entry = (client, SharedValue::new(heartbeat));
    table.insert(hash as u64, entry, |(key, _)| clients.hash_usize(key) as u64);
    Refreshed::Registered { shard, is_first: table.len() == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION: Duration = Duration::from_secs(120);
    /// A minute before the stamps begin again at zero.
    const START: Time = Time::from_nanos(((1 << 32) - 60_000) * 1_000_000);

    fn client(port: u16) -> SocketAddr {
        let ip = if port.is_multiple_of(2) { "2001:db8::1" } else { "192.0.2.1" };
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    fn sweep_all(registry: &Registry, now: Time) -> (Vec<(SocketAddr, Local)>, Vec<SocketAddr>) {
        let (mut live, mut expired) = (Vec::new(), Vec::new());
        let mut sweep = Sweep::default();
        for shard in 0..SHARDS {
            registry.sweep(shard, now, &mut sweep);
            live.extend(sweep.v4.iter().map(|target| (target.client.into(), target.local)));
            live.extend(sweep.v6.iter().map(|target| (target.client.into(), target.local)));
            expired.append(&mut sweep.expired);
        }
        (live, expired)
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<(SocketAddrV4, SharedValue<Client>)>(), 12);
        assert_eq!(size_of::<(KeyV6, SharedValue<Client>)>(), 24);
    }

    #[test]
    fn a_client_lives_until_its_expiration_and_not_a_nanosecond_longer() {
        for client in [client(1), client(2)] {
            let registry = Registry::new(SHARDS, EXPIRATION);
            let is_registered = |refreshed| matches!(refreshed, Refreshed::Registered { .. });
            assert!(is_registered(registry.refresh(client, None, START)));
            // The fraction of a millisecond does not count.
            let heartbeat = START + Duration::from_nanos(999_999);
            assert_eq!(registry.refresh(client, None, heartbeat), Refreshed::Renewed);
            let last = START + EXPIRATION;
            let over = last + Duration::from_nanos(1);
            registry.heard_until(over);
            assert_eq!(sweep_all(&registry, last), (vec![(client, Local::NONE)], vec![]));
            assert_eq!(sweep_all(&registry, over), (vec![], vec![client]));
            assert!(registry.is_empty());
        }
    }

    #[test]
    fn nobody_is_removed_while_heartbeats_may_be_waiting() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        registry.refresh(client(1), None, START);
        registry.refresh(client(2), None, START);
        registry.heard_until(START);
        let later = START + Duration::from_secs(3600);
        assert_eq!(sweep_all(&registry, later), (vec![], vec![]));
        assert_eq!(registry.len(), 2);

        registry.refresh(client(2), None, later);
        registry.heard_until(later);
        let live = vec![(client(2), Local::NONE)];
        assert_eq!(sweep_all(&registry, later), (live, vec![client(1)]));
    }

    #[test]
    fn a_ping_leaves_from_where_the_last_heartbeat_hit() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        for local in [Some("192.0.2.10"), Some("192.0.2.11"), None, Some("192.0.2.10")] {
            let address = local.map(|ip| ip.parse().unwrap());
            registry.refresh(client(1), address, START);
            let (live, _) = sweep_all(&registry, START);
            assert_eq!(live.len(), 1);
            assert_eq!(registry.address_of(live[0].1), address);
        }
    }

    #[test]
    fn a_heartbeat_recorded_late_takes_nothing_from_a_newer_one() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let newer = START + Duration::from_secs(60);
        registry.refresh(client(1), None, newer);
        registry.refresh(client(1), Some("192.0.2.10".parse().unwrap()), START);
        registry.heard_until(newer + EXPIRATION);
        let live = vec![(client(1), Local::NONE)];
        assert_eq!(sweep_all(&registry, newer + EXPIRATION), (live, vec![]));
    }

    #[test]
    fn a_heartbeat_newer_than_the_sweep_keeps_its_client() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let newer = START + Duration::from_secs(600);
        registry.refresh(client(1), None, newer);
        registry.heard_until(newer);
        assert_eq!(sweep_all(&registry, START).0.len(), 1);
    }

    #[test]
    fn the_scope_is_part_of_who_a_client_is() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let client = |scope| SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, scope).into();
        for scope in [2, 3, 2] {
            registry.refresh(client(scope), None, START);
        }
        let (mut live, _) = sweep_all(&registry, START);
        live.sort_unstable();
        assert_eq!(live, [(client(2), Local::NONE), (client(3), Local::NONE)]);
    }

    #[test]
    fn the_first_client_of_a_shard_is_told_of_for_each_family() {
        let registry = Registry::new(2, EXPIRATION);
        let mut firsts = [0, 0];
        for port in 1..=100 {
            let filled = [0, 1].map(|shard| !registry.is_shard_empty(shard));
            let refreshed = registry.refresh(client(port), None, START);
            let Refreshed::Registered { shard, is_first } = refreshed else { panic!("is new") };
            assert!(is_first || filled[shard]);
            assert!(!registry.is_shard_empty(shard));
            firsts[shard] += u32::from(is_first);
        }
        assert_eq!(firsts, [2, 2]);

        let over = START + EXPIRATION + Duration::from_millis(1);
        registry.heard_until(over);
        registry.sweep(0, over, &mut Sweep::default());
        assert!(registry.is_shard_empty(0) && !registry.is_shard_empty(1));
    }
}
