//! The registry of clients: which ones are live, since when, and from which local address to ping them.
//!
//! It holds two [`DashMap`]s, one for IPv4 and one for IPv6 clients. The shards with the same number in both
//! maps belong to the same slot of the second, so a client's shard sets when in each second it is pinged. A
//! shard's lock is held only while its entries are copied out.
//!
//! The client tables dominate the memory use, so entries are small: 24 bytes for an IPv4 client and 36 for an
//! IPv6 client.

mod client;
mod key;
mod local;
mod removal;
mod seed;
mod shard;
mod stamp;
mod sweep;
mod view;

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use dashmap::{DashMap, SharedValue};

use self::client::Client;
use self::key::KeyV6;
use self::local::LocalId;
pub use self::local::LocalUse;
use self::local::Locals;
pub use self::removal::Removal;
pub use self::seed::Seed;
use self::sweep::SourceId;
pub(super) use self::sweep::{Sources, Sweep, Target};
pub use self::view::View;
use crate::clock::Time;

/// The number of shards in a daemon's registry, and the largest number of slots in a second. With many clients, a
/// slot every 4 ms spreads the pings evenly without waking a thread for only a few of them.
pub const SHARDS: usize = 256;

/// The result of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The heartbeat registered a new client.
    Registered {
        /// The client's shard.
        shard: usize,
        /// Whether the client is the only one of its address family in the shard, so its worker may be
        /// sleeping past the slot.
        is_first: bool,
    },
    /// The heartbeat renewed an existing client.
    Renewed,
    /// The source is not a client, and there is no room for it.
    NoRoom,
}

/// The parameters that the sweeps of both address families share.
struct Pass<'a, P> {
    now: Time,
    drained_until: Time,
    probation: Duration,
    is_pressed: P,
    removed: &'a mut Vec<(SocketAddr, Removal)>,
    sources: &'a mut Sources,
}

type Clients<K> = DashMap<K, Client, Seed>;

/// All live clients.
#[derive(Debug)]
pub struct Registry {
    v4: Clients<SocketAddrV4>,
    v6: Clients<KeyV6>,
    locals: Locals,
    expiration: Duration,
}

impl Registry {
    /// Creates an empty registry. Clients expire `expiration` after their last heartbeat, whose time is
    /// truncated to a millisecond. The `seed` assigns clients to shards.
    ///
    /// # Panics
    /// Unless `shards` is a power of two above 1.
    #[must_use]
    pub(super) fn new(shards: usize, expiration: Duration, seed: Seed) -> Self {
        Self {
            v4: DashMap::with_hasher_and_shard_amount(seed, shards),
            v6: DashMap::with_hasher_and_shard_amount(seed, shards),
            locals: Locals::default(),
            expiration,
        }
    }

    /// Records a heartbeat from the canonical address `client` to the address `local`, which is `None` if the
    /// kernel did not report it. If `client` is not registered, it becomes a client if `reserve` finds room
    /// for it.
    pub(super) fn refresh(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        now: Time,
        reserve: impl FnOnce() -> bool,
    ) -> Refreshed {
        let renew = |known: &mut Client| {
            if known.last_heartbeat(now) <= now {
                known.renew(self.moved(known.local(), local), now);
            }
        };
        self.enter(client, renew, reserve, || Client::new(self.locals.take(local), now))
    }

    /// Restores a client from another registry, if `reserve` finds room for it. Leaves an existing client
    /// unchanged.
    pub(super) fn restore(&self, client: &View, reserve: impl FnOnce() -> bool) -> Refreshed {
        let new = || Client::restored(client, self.locals.take(client.local));
        self.enter(client.address, |_| {}, reserve, new)
    }

    /// Returns the ID that replaces a client's `local` after a heartbeat to `address`. The client keeps
    /// `local` if the kernel did not report an address. The caller must hold the lock of the client's shard,
    /// so that `local` stays valid.
    fn moved(&self, local: LocalId, address: Option<IpAddr>) -> LocalId {
        if address.is_none() || self.locals.fits(local, address) {
            return local;
        }
        // Release first, so that the only client of an address can reuse its place in the table.
        self.locals.release(local);
        self.locals.take(address)
    }

    fn enter(
        &self,
        client: SocketAddr,
        renew: impl FnOnce(&mut Client),
        reserve: impl FnOnce() -> bool,
        new: impl FnOnce() -> Client,
    ) -> Refreshed {
        match client {
            SocketAddr::V4(client) => enter(&self.v4, client, renew, reserve, new),
            SocketAddr::V6(client) => enter(&self.v6, client.into(), renew, reserve, new),
        }
    }

    /// The time of the last heartbeat of `client`, if it is live and not muted.
    #[must_use]
    pub fn last_heartbeat(&self, client: SocketAddr, now: Time) -> Option<Time> {
        let View { last_heartbeat, is_muted, .. } = self.view(client, now)?;
        let is_live = now.since(last_heartbeat) <= self.expiration;
        (is_live && !is_muted).then_some(last_heartbeat)
    }

    /// The state of `client`, if it is registered.
    #[must_use]
    pub fn view(&self, client: SocketAddr, now: Time) -> Option<View> {
        let view =
            |known: &Client| View::of(client, *known, now, self.locals.address_of(known.local()));
        match client {
            SocketAddr::V4(client) => self.v4.get(&client).map(|known| view(&known)),
            SocketAddr::V6(client) => self.v6.get(&client.into()).map(|known| view(&known)),
        }
    }

    /// Calls `look` for every client of `shard`. `look` must be quick, because it runs under a lock of the
    /// shard.
    pub fn look_at(&self, shard: usize, now: Time, mut look: impl FnMut(View)) {
        // Most clients send to the same local address, so the last lookup is cached.
        let mut last = (LocalId::NONE, None);
        let mut view = |client: SocketAddr, known: &Client| {
            if known.local() != last.0 {
                last = (known.local(), self.locals.address_of(known.local()));
            }
            look(View::of(client, *known, now, last.1));
        };
        shard::for_each(&self.v4, shard, |client, known| view((*client).into(), known));
        shard::for_each(&self.v6, shard, |client, known| {
            view(SocketAddrV6::from(*client).into(), known);
        });
    }

    /// Mutes `client` until its next heartbeat.
    pub(super) fn mute(&self, client: SocketAddr) {
        self.change(client, Client::mute);
    }

    /// Subtracts the last ping of `client` from its count, because the send failed.
    pub(super) fn take_ping_back(&self, client: SocketAddr) {
        self.change(client, Client::uncount_ping);
    }

    fn change(&self, client: SocketAddr, change: impl FnOnce(&mut Client)) {
        match client {
            SocketAddr::V4(client) => {
                self.v4.get_mut(&client).map(|mut client| change(&mut client))
            }
            SocketAddr::V6(client) => {
                self.v6.get_mut(&client.into()).map(|mut client| change(&mut client))
            }
        };
    }

    /// Removes the clients of `shard` with an `unwanted` address, and appends them to `removed`.
    pub(super) fn evict(
        &self,
        shard: usize,
        unwanted: impl Fn(IpAddr) -> bool,
        removed: &mut Vec<SocketAddr>,
    ) {
        let mut stays = |client: SocketAddr, known: &Client| {
            let stays = !unwanted(client.ip());
            if !stays {
                self.locals.release(known.local());
                removed.push(client);
            }
            stays
        };
        shard::retain(&self.v4, shard, |client, known| stays((*client).into(), known));
        shard::retain(&self.v6, shard, |client, known| {
            stays(SocketAddrV6::from(*client).into(), known)
        });
    }

    /// Adds the clients of `shard` to ping at `now` to `sweep`, and removes the expired ones. A client that has sent
    /// only one heartbeat is evicted after [`Self::probation`] if `is_pressed` returns true for its address.
    ///
    /// Every heartbeat that arrived before `drained_until` has been recorded. Only the silence up to that
    /// time makes a client expire, because a later heartbeat can still be in the receive buffer. A client
    /// that has expired by `now`, but not by `drained_until`, stays registered and gets no ping.
    pub(super) fn sweep(
        &self,
        shard: usize,
        now: Time,
        drained_until: Time,
        is_pressed: impl Fn(IpAddr) -> bool,
        sweep: &mut Sweep,
    ) {
        let Sweep { v4, v6, removed, sources } = sweep;
        let drained_until = now.min(drained_until);
        let probation = self.probation();
        let mut pass = Pass { now, drained_until, probation, is_pressed, removed, sources };
        self.sweep_family(&self.v4, shard, &mut pass, v4);
        self.sweep_family(&self.v6, shard, &mut pass, v6);
    }

    fn sweep_family<K, A>(
        &self,
        clients: &Clients<K>,
        shard: usize,
        pass: &mut Pass<impl Fn(IpAddr) -> bool>,
        live: &mut Vec<Target<A>>,
    ) where
        K: Copy + Eq + Hash,
        A: From<K> + Into<SocketAddr>,
    {
        // Most clients send to the same local address, so the last source is cached.
        let mut last = (LocalId::NONE, SourceId::default());
        shard::retain(clients, shard, |&key, client| {
            let address = || A::from(key).into();
            let last_heartbeat = client.last_heartbeat(pass.now);
            if let Some(removal) = self.removal(*client, last_heartbeat, address, pass) {
                self.locals.release(client.local());
                pass.removed.push((address(), removal));
                return false;
            }
            let longest_silence = pass.now.since(last_heartbeat);
            if longest_silence <= self.expiration && !client.is_muted() {
                client.count_ping();
                let local = client.local();
                if local != last.0 {
                    last = (local, pass.sources.id(self.locals.address_of(local)));
                }
                live.push(Target { client: key.into(), source: last.1 });
            }
            true
        });
    }

    /// The reason to remove a client, if there is one.
    fn removal(
        &self,
        client: Client,
        last_heartbeat: Time,
        address: impl Fn() -> SocketAddr,
        pass: &Pass<impl Fn(IpAddr) -> bool>,
    ) -> Option<Removal> {
        let silence = pass.drained_until.since(last_heartbeat);
        if silence > self.expiration {
            return Some(Removal::Expired);
        }
        let is_on_probation = silence > pass.probation && !client.has_repeated();
        (is_on_probation && (pass.is_pressed)(address().ip())).then_some(Removal::MadeWay)
    }

    /// How long a client with only one heartbeat lives while a cap is nearly reached: three eighths of the
    /// expiration. A client that follows the protocol repeats its heartbeat after a third of the expiration.
    #[must_use]
    pub fn probation(&self) -> Duration {
        self.expiration * 3 / 8
    }

    /// The usage of the table of local addresses.
    #[must_use]
    pub fn local_use(&self) -> LocalUse {
        self.locals.usage()
    }

    /// Whether `shard` has no clients.
    #[must_use]
    pub fn is_shard_empty(&self, shard: usize) -> bool {
        self.shard_len(shard) == 0
    }

    /// The number of clients in `shard`.
    #[must_use]
    pub fn shard_len(&self, shard: usize) -> usize {
        self.v4.shards()[shard].read().len() + self.v6.shards()[shard].read().len()
    }

    /// The numbers of IPv4 and IPv6 clients.
    #[must_use]
    pub fn families(&self) -> (usize, usize) {
        (self.v4.len(), self.v6.len())
    }

    /// The number of clients of both families.
    #[must_use]
    pub fn len(&self) -> usize {
        let (v4, v6) = self.families();
        v4 + v6
    }

    /// The seed that assigns clients to shards.
    #[must_use]
    pub fn seed(&self) -> Seed {
        *self.v4.hasher()
    }

    /// The number of shards per address family.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.v4.shards().len()
    }

    /// How long a client lives after its last heartbeat.
    #[must_use]
    pub fn expiration(&self) -> Duration {
        self.expiration
    }

    /// Whether there are no clients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Renews or inserts a client atomically, under the lock of its shard. The lock is exclusive even to renew,
/// because no other thread needs a shard more than once a second.
fn enter<K: Eq + Hash>(
    clients: &Clients<K>,
    client: K,
    renew: impl FnOnce(&mut Client),
    reserve: impl FnOnce() -> bool,
    new: impl FnOnce() -> Client,
) -> Refreshed {
    let hash = clients.hash_usize(&client);
    let shard = clients.determine_shard(hash);
    let mut table = clients.shards()[shard].write();
    if let Some((_, known)) = table.get_mut(hash as u64, |(key, _)| *key == client) {
        renew(known.get_mut());
        return Refreshed::Renewed;
    }
    if !reserve() {
        return Refreshed::NoRoom;
    }
    let entry = (client, SharedValue::new(new()));
    table.insert(hash as u64, entry, |(key, _)| clients.hash_usize(key) as u64);
    Refreshed::Registered { shard, is_first: table.len() == 1 }
}

#[cfg(test)]
mod tests;
