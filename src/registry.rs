//! The clients: who is live, since when, and where their pings leave from.
//!
//! Two [`DashMap`]s, one for IPv4 and one for IPv6 clients, whose shards of the same number are
//! together a slot of the second: a client's shard says when in each second it is pinged. A shard's
//! lock is held while its entries are copied out, never longer.
//!
//! Memory is mostly the clients' tables, so an entry is small: 12 bytes for an IPv4 client and 24 for
//! an IPv6 one.

mod client;
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

use self::client::Client;
use self::key::KeyV6;
pub use self::local::Local;
use self::local::Locals;
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
    /// Its source was no client and was not let in.
    Refused,
}

/// Why a client was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Its time was over.
    Expired,
    /// Others wanted its room before it had repeated its heartbeat.
    MadeWay,
    /// An operator denied its network.
    Denied,
    /// No ping may be sent to it.
    Prohibited,
}

impl Removal {
    /// Every reason, each at the index `removal as usize`.
    pub const ALL: [Self; 4] = [Self::Expired, Self::MadeWay, Self::Denied, Self::Prohibited];

    /// The reason as it stands in logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::MadeWay => "made_way",
            Self::Denied => "denied",
            Self::Prohibited => "prohibited",
        }
    }
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
    /// The IPv4 clients to ping.
    pub v4: Vec<Target<SocketAddrV4>>,
    /// The IPv6 clients to ping.
    pub v6: Vec<Target<SocketAddrV6>>,
    /// Those who were removed.
    pub removed: Vec<(SocketAddr, Removal)>,
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

    /// Records a heartbeat from `client`, a canonical address, that hit the address `local`. One that
    /// is no client yet becomes one if `admit` says so.
    pub fn refresh(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        now: Time,
        admit: impl FnOnce() -> bool,
    ) -> Refreshed {
        let local = self.locals.intern(local);
        match client {
            SocketAddr::V4(client) => record(&self.v4, client, local, now, admit),
            SocketAddr::V6(client) => record(&self.v6, client.into(), local, now, admit),
        }
    }

    /// When the last heartbeat of `client` came, if it is live and gets pings.
    #[must_use]
    pub fn last_heartbeat(&self, client: SocketAddr, now: Time) -> Option<Time> {
        let known = match client {
            SocketAddr::V4(client) => *self.v4.get(&client)?,
            SocketAddr::V6(client) => *self.v6.get(&client.into())?,
        };
        let last_heartbeat = known.last_heartbeat(now);
        let is_live = now.since(last_heartbeat) <= self.expiration;
        (is_live && !known.is_muted()).then_some(last_heartbeat)
    }

    /// Sends `client` no pings until its next heartbeat.
    pub fn mute(&self, client: SocketAddr) {
        match client {
            SocketAddr::V4(client) => self.v4.get_mut(&client).map(|mut client| client.mute()),
            SocketAddr::V6(client) => {
                self.v6.get_mut(&client.into()).map(|mut client| client.mute())
            }
        };
    }

    /// Removes `client`, and returns whether it was there.
    pub fn remove(&self, client: SocketAddr) -> bool {
        match client {
            SocketAddr::V4(client) => self.v4.remove(&client).is_some(),
            SocketAddr::V6(client) => self.v6.remove(&client.into()).is_some(),
        }
    }

    /// Removes those clients of `shard` whose addresses are `unwanted`, and appends them to `removed`.
    pub fn evict(
        &self,
        shard: usize,
        unwanted: impl Fn(IpAddr) -> bool,
        removed: &mut Vec<SocketAddr>,
    ) {
        let mut stays = |client: SocketAddr| {
            let stays = !unwanted(client.ip());
            if !stays {
                removed.push(client);
            }
            stays
        };
        shard::retain(&self.v4, shard, |client, _| stays((*client).into()));
        shard::retain(&self.v6, shard, |client, _| stays(SocketAddrV6::from(*client).into()));
    }

    /// Says that every heartbeat that arrived before `time` has been recorded.
    ///
    /// Nobody is removed for a silence that reaches beyond this: after a stop of the process, or
    /// while the listener is behind, a client's heartbeat may be waiting in the socket.
    pub fn heard_until(&self, time: Time) {
        self.heard_until.store(time.as_nanos(), Release);
    }

    /// Finds the clients of `shard` that are to be pinged at `now` and removes those whose time is
    /// over. That is sooner for one that has not repeated its heartbeat and whose address `is_pressed`:
    /// after [`Self::probation`].
    ///
    /// One whose time seems to be over, but whose heartbeat may still be waiting to be recorded, is
    /// neither: it stays and gets no ping.
    pub fn sweep(
        &self,
        shard: usize,
        now: Time,
        is_pressed: impl Fn(IpAddr) -> bool,
        sweep: &mut Sweep,
    ) {
        let Sweep { v4, v6, removed } = sweep;
        removed.clear();
        self.sweep_family(&self.v4, shard, now, &is_pressed, v4, removed);
        self.sweep_family(&self.v6, shard, now, &is_pressed, v6, removed);
    }

    fn sweep_family<K, A>(
        &self,
        clients: &Clients<K>,
        shard: usize,
        now: Time,
        is_pressed: &impl Fn(IpAddr) -> bool,
        live: &mut Vec<Target<A>>,
        removed: &mut Vec<(SocketAddr, Removal)>,
    ) where
        K: Copy + Eq + Hash,
        A: From<K> + Into<SocketAddr>,
    {
        live.clear();
        let heard_until = now.min(Time::from_nanos(self.heard_until.load(Acquire)));
        let probation = self.probation();
        shard::retain(clients, shard, |&key, client| {
            let last_heartbeat = client.last_heartbeat(now);
            // As far as has been heard, and at the most.
            let silence = heard_until.since(last_heartbeat);
            let longest_silence = now.since(last_heartbeat);
            let address = || -> SocketAddr { A::from(key).into() };
            if silence > self.expiration {
                removed.push((address(), Removal::Expired));
                return false;
            }
            if silence > probation && !client.has_repeated() && is_pressed(address().ip()) {
                removed.push((address(), Removal::MadeWay));
                return false;
            }
            if longest_silence <= self.expiration && !client.is_muted() {
                live.push(Target { client: key.into(), local: client.local() });
            }
            true
        });
    }

    /// How long a client lives that has not repeated its heartbeat and whose room others want: three
    /// eighths of the expiration. Who follows the protocol has repeated it after a third.
    #[must_use]
    pub fn probation(&self) -> Duration {
        self.expiration * 3 / 8
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
fn record<K: Eq + Hash>(
    clients: &Clients<K>,
    client: K,
    local: Local,
    now: Time,
    admit: impl FnOnce() -> bool,
) -> Refreshed {
    let hash = clients.hash_usize(&client);
    let shard = clients.determine_shard(hash);
    let mut table = clients.shards()[shard].write();
    if let Some((_, known)) = table.get_mut(hash as u64, |(key, _)| *key == client) {
        let known = known.get_mut();
        if known.last_heartbeat(now) <= now {
            known.renew(local, now);
        }
        return Refreshed::Renewed;
    }
    if !admit() {
        return Refreshed::Refused;
    }
    let entry = (client, SharedValue::new(Client::new(local, now)));
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

    type Live = Vec<(SocketAddr, Local)>;

    fn sweep_all(registry: &Registry, now: Time) -> (Live, Vec<SocketAddr>) {
        let (live, removed) = sweep_pressed(registry, now, false);
        assert!(removed.iter().all(|(_, removal)| *removal == Removal::Expired));
        (live, removed.into_iter().map(|(client, _)| client).collect())
    }

    fn sweep_pressed(
        registry: &Registry,
        now: Time,
        is_pressed: bool,
    ) -> (Live, Vec<(SocketAddr, Removal)>) {
        let (mut live, mut removed) = (Vec::new(), Vec::new());
        let mut sweep = Sweep::default();
        for shard in 0..SHARDS {
            registry.sweep(shard, now, |_| is_pressed, &mut sweep);
            live.extend(sweep.v4.iter().map(|target| (target.client.into(), target.local)));
            live.extend(sweep.v6.iter().map(|target| (target.client.into(), target.local)));
            removed.append(&mut sweep.removed);
        }
        (live, removed)
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
            assert!(is_registered(registry.refresh(client, None, START, || true)));
            // The fraction of a millisecond does not count.
            let heartbeat = START + Duration::from_nanos(999_999);
            assert_eq!(registry.refresh(client, None, heartbeat, || true), Refreshed::Renewed);
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
        registry.refresh(client(1), None, START, || true);
        registry.refresh(client(2), None, START, || true);
        registry.heard_until(START);
        let later = START + Duration::from_secs(3600);
        assert_eq!(sweep_all(&registry, later), (vec![], vec![]));
        assert_eq!(registry.len(), 2);

        registry.refresh(client(2), None, later, || true);
        registry.heard_until(later);
        let live = vec![(client(2), Local::NONE)];
        assert_eq!(sweep_all(&registry, later), (live, vec![client(1)]));
    }

    #[test]
    fn a_ping_leaves_from_where_the_last_heartbeat_hit() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        for local in [Some("192.0.2.10"), Some("192.0.2.11"), None, Some("192.0.2.10")] {
            let address = local.map(|ip| ip.parse().unwrap());
            registry.refresh(client(1), address, START, || true);
            let (live, _) = sweep_all(&registry, START);
            assert_eq!(live.len(), 1);
            assert_eq!(registry.address_of(live[0].1), address);
        }
    }

    #[test]
    fn a_heartbeat_recorded_late_takes_nothing_from_a_newer_one() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let newer = START + Duration::from_secs(60);
        registry.refresh(client(1), None, newer, || true);
        registry.refresh(client(1), Some("192.0.2.10".parse().unwrap()), START, || true);
        registry.heard_until(newer + EXPIRATION);
        let live = vec![(client(1), Local::NONE)];
        assert_eq!(sweep_all(&registry, newer + EXPIRATION), (live, vec![]));
    }

    #[test]
    fn a_heartbeat_newer_than_the_sweep_keeps_its_client() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let newer = START + Duration::from_secs(600);
        registry.refresh(client(1), None, newer, || true);
        registry.heard_until(newer);
        assert_eq!(sweep_all(&registry, START).0.len(), 1);
    }

    #[test]
    fn the_scope_is_part_of_who_a_client_is() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        let client = |scope| SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, scope).into();
        for scope in [2, 3, 2] {
            registry.refresh(client(scope), None, START, || true);
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
            let refreshed = registry.refresh(client(port), None, START, || true);
            let Refreshed::Registered { shard, is_first } = refreshed else { panic!("is new") };
            assert!(is_first || filled[shard]);
            assert!(!registry.is_shard_empty(shard));
            firsts[shard] += u32::from(is_first);
        }
        assert_eq!(firsts, [2, 2]);

        let over = START + EXPIRATION + Duration::from_millis(1);
        registry.heard_until(over);
        registry.sweep(0, over, |_| false, &mut Sweep::default());
        assert!(registry.is_shard_empty(0) && !registry.is_shard_empty(1));
    }

    #[test]
    fn nobody_registers_who_is_not_let_in_but_a_client_is_not_asked_again() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        assert_eq!(registry.refresh(client(1), None, START, || false), Refreshed::Refused);
        assert!(registry.is_empty());
        registry.refresh(client(1), None, START, || true);
        let refreshed = registry.refresh(client(1), None, START, || panic!("it is a client"));
        assert_eq!(refreshed, Refreshed::Renewed);
    }

    #[test]
    fn who_has_not_repeated_its_heartbeat_makes_way_after_three_eighths() {
        for (once, twice) in [(client(1), client(3)), (client(2), client(4))] {
            let registry = Registry::new(SHARDS, EXPIRATION);
            registry.refresh(once, None, START, || true);
            registry.refresh(twice, None, START, || true);
            registry.refresh(twice, None, START, || true);
            let probation = START + Duration::from_secs(45);
            let over = probation + Duration::from_nanos(1);
            registry.heard_until(probation);
            assert_eq!(sweep_pressed(&registry, over, true).0.len(), 2, "one may be waiting");
            registry.heard_until(over);
            assert_eq!(sweep_pressed(&registry, probation, true).0.len(), 2);
            assert_eq!(sweep_pressed(&registry, over, false).0.len(), 2);
            let expected = (vec![(twice, Local::NONE)], vec![(once, Removal::MadeWay)]);
            assert_eq!(sweep_pressed(&registry, over, true), expected);
        }
    }

    #[test]
    fn a_muted_client_is_pinged_again_after_its_next_heartbeat() {
        for client in [client(1), client(2)] {
            let registry = Registry::new(SHARDS, EXPIRATION);
            registry.mute(client);
            assert_eq!(registry.last_heartbeat(client, START), None);
            registry.refresh(client, None, START, || true);
            let last = START + EXPIRATION;
            assert_eq!(registry.last_heartbeat(client, last), Some(START));
            assert_eq!(registry.last_heartbeat(client, last + Duration::from_nanos(1)), None);
            registry.mute(client);
            assert_eq!(registry.last_heartbeat(client, START), None);
            assert_eq!(sweep_all(&registry, START), (vec![], vec![]));
            registry.refresh(client, None, START, || true);
            assert_eq!(sweep_all(&registry, START), (vec![(client, Local::NONE)], vec![]));
            registry.mute(client);
            let over = last + Duration::from_secs(1);
            registry.heard_until(over);
            assert_eq!(sweep_all(&registry, over), (vec![], vec![client]));
        }
    }

    #[test]
    fn the_unwanted_are_evicted_and_one_may_be_removed() {
        let registry = Registry::new(SHARDS, EXPIRATION);
        for port in 1..=100 {
            registry.refresh(client(port), None, START, || true);
        }
        assert!(registry.remove(client(1)) && registry.remove(client(2)));
        assert!(!registry.remove(client(1)) && !registry.remove(client(2)));
        let mut evicted = Vec::new();
        for shard in 0..SHARDS {
            registry.evict(shard, |ip| ip.is_ipv4(), &mut evicted);
        }
        assert!(evicted.len() == 49 && evicted.iter().all(SocketAddr::is_ipv4));
        assert_eq!(registry.len(), 49);
    }
}
