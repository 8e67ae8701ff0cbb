//! The clients: who is live, since when, and where their pings leave from.
//!
//! Two [`DashMap`]s, one for IPv4 and one for IPv6 clients, whose shards of the same number are
//! together a slot of the second: a client's shard says when in each second it is pinged. A shard's
//! lock is held while its entries are copied out, never longer.
//!
//! Memory is mostly the clients' tables, so an entry is small: 24 bytes for an IPv4 client and 36 for
//! an IPv6 one.

mod client;
mod key;
mod local;
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
pub(super) use self::local::LocalAddresses;
use self::local::LocalId;
pub use self::local::LocalUse;
use self::local::Locals;
pub use self::seed::Seed;
pub(super) use self::sweep::{Sweep, Target};
pub use self::view::View;
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
}

impl Removal {
    /// Every reason, each at the index `removal as usize`.
    pub const ALL: [Self; 3] = [Self::Expired, Self::MadeWay, Self::Denied];

    /// The reason as it stands in logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::MadeWay => "made_way",
            Self::Denied => "denied",
        }
    }
}

/// What both families have in common in a sweep.
struct Pass<'a, P> {
    now: Time,
    drained_until: Time,
    probation: Duration,
    is_pressed: P,
    removed: &'a mut Vec<(SocketAddr, Removal)>,
    locals: &'a mut LocalAddresses,
}

type Clients<K> = DashMap<K, Client, Seed>;

/// All clients.
#[derive(Debug)]
pub struct Registry {
    v4: Clients<SocketAddrV4>,
    v6: Clients<KeyV6>,
    locals: Locals,
    expiration: Duration,
}

impl Registry {
    /// An empty registry, whose clients live until `expiration` after their last heartbeat, the time
    /// of which is cut off to a millisecond. The `seed` decides into which shard a client goes.
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

    /// Records a heartbeat from `client`, a canonical address, that hit the address `local`. One that
    /// is no client yet becomes one if `admit` says so.
    pub(super) fn refresh(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        now: Time,
        admit: impl FnOnce() -> bool,
    ) -> Refreshed {
        let renew = |known: &mut Client| {
            if known.last_heartbeat(now) <= now {
                known.renew(self.moved(known.local(), local), now);
            }
        };
        self.enter(client, renew, admit, || Client::new(self.locals.take(local), now))
    }

    /// Takes a client over that another registry knew, if `admit` says so. One that is here already stays
    /// as it is.
    pub(super) fn restore(&self, client: &View, admit: impl FnOnce() -> bool) -> Refreshed {
        let new = || Client::restored(client, self.locals.take(client.local));
        self.enter(client.address, |_| {}, admit, new)
    }

    /// What a client that holds `local` holds after a heartbeat that hit `address`. It keeps what it holds if
    /// the kernel did not say what was hit.
    fn moved(&self, local: LocalId, address: Option<IpAddr>) -> LocalId {
        if address.is_none() || self.locals.fits(local, address) {
            return local;
        }
        // In this order, so that a client that is alone with its address leaves its place to itself.
        self.locals.release(local);
        self.locals.take(address)
    }

    fn enter(
        &self,
        client: SocketAddr,
        renew: impl FnOnce(&mut Client),
        admit: impl FnOnce() -> bool,
        new: impl FnOnce() -> Client,
    ) -> Refreshed {
        match client {
            SocketAddr::V4(client) => enter(&self.v4, client, renew, admit, new),
            SocketAddr::V6(client) => enter(&self.v6, client.into(), renew, admit, new),
        }
    }

    /// When the last heartbeat of `client` came, if it is live and gets pings.
    #[must_use]
    pub fn last_heartbeat(&self, client: SocketAddr, now: Time) -> Option<Time> {
        let View { last_heartbeat, is_muted, .. } = self.view(client, now)?;
        let is_live = now.since(last_heartbeat) <= self.expiration;
        (is_live && !is_muted).then_some(last_heartbeat)
    }

    /// What is known of `client`, if it is one.
    #[must_use]
    pub fn view(&self, client: SocketAddr, now: Time) -> Option<View> {
        let view =
            |known: &Client| View::of(client, *known, now, self.locals.address_of(known.local()));
        match client {
            SocketAddr::V4(client) => self.v4.get(&client).map(|known| view(&known)),
            SocketAddr::V6(client) => self.v6.get(&client.into()).map(|known| view(&known)),
        }
    }

    /// Looks at every client of `shard`. Its locks are held meanwhile, so `look` must be quick.
    pub fn look_at(&self, shard: usize, now: Time, mut look: impl FnMut(View)) {
        // Most clients send to the same address.
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

    /// Sends `client` no pings until its next heartbeat.
    pub(super) fn mute(&self, client: SocketAddr) {
        self.change(client, Client::mute);
    }

    /// Says that the last ping of `client` could not be sent.
    pub(super) fn take_ping_back(&self, client: SocketAddr) {
        self.change(client, Client::unping);
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

    /// Removes those clients of `shard` whose addresses are `unwanted`, and appends them to `removed`.
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

    /// Finds the clients of `shard` to ping at `now`, and removes the expired ones. If the address of a client
    /// `is_pressed`, the client is removed after [`Self::probation`] already, unless it has repeated its heartbeat.
    ///
    /// Every heartbeat that arrived before `drained_until` has been recorded. A client that is silent beyond
    /// that time stays, because its heartbeat may be waiting in the receive buffer, but gets no ping once it
    /// seems to have expired.
    pub(super) fn sweep(
        &self,
        shard: usize,
        now: Time,
        drained_until: Time,
        is_pressed: impl Fn(IpAddr) -> bool,
        sweep: &mut Sweep,
    ) {
        sweep.clear();
        let Sweep { v4, v6, removed, locals } = sweep;
        let drained_until = now.min(drained_until);
        let probation = self.probation();
        let mut pass = Pass { now, drained_until, probation, is_pressed, removed, locals };
        self.sweep_family(&self.v4, shard, &mut pass, v4);
        self.sweep_family(&self.v6, shard, &mut pass, v6);
        locals.sort();
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
                client.ping();
                let local = client.local();
                if live.last().is_none_or(|before| before.local != local) {
                    pass.locals.add(local, self.locals.address_of(local));
                }
                live.push(Target { client: key.into(), local });
            }
            true
        });
    }

    /// Why a client is to be removed, if so.
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

    /// How long a client lives that has not repeated its heartbeat and whose room others want: three
    /// eighths of the expiration. Who follows the protocol has repeated it after a third.
    #[must_use]
    pub fn probation(&self) -> Duration {
        self.expiration * 3 / 8
    }

    /// How full the table of local addresses is.
    #[must_use]
    pub fn local_use(&self) -> LocalUse {
        self.locals.usage()
    }

    /// Whether there is no client in `shard`.
    #[must_use]
    pub fn is_shard_empty(&self, shard: usize) -> bool {
        self.shard_len(shard) == 0
    }

    /// How many clients there are in `shard`.
    #[must_use]
    pub fn shard_len(&self, shard: usize) -> usize {
        self.v4.shards()[shard].read().len() + self.v6.shards()[shard].read().len()
    }

    /// The number of IPv4 and of IPv6 clients.
    #[must_use]
    pub fn families(&self) -> (usize, usize) {
        (self.v4.len(), self.v6.len())
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        let (v4, v6) = self.families();
        v4 + v6
    }

    /// What decides into which shard a client goes.
    #[must_use]
    pub fn seed(&self) -> Seed {
        *self.v4.hasher()
    }

    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.v4.shards().len()
    }

    /// How long a client lives after its last heartbeat.
    #[must_use]
    pub fn expiration(&self) -> Duration {
        self.expiration
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Renews a client or makes it one in one go under the lock of its shard. It is exclusive also for a
/// client that is known, because nobody else needs a shard more than once a second.
fn enter<K: Eq + Hash>(
    clients: &Clients<K>,
    client: K,
    renew: impl FnOnce(&mut Client),
    admit: impl FnOnce() -> bool,
    new: impl FnOnce() -> Client,
) -> Refreshed {
    let hash = clients.hash_usize(&client);
    let shard = clients.determine_shard(hash);
    let mut table = clients.shards()[shard].write();
    if let Some((_, known)) = table.get_mut(hash as u64, |(key, _)| *key == client) {
        renew(known.get_mut());
        return Refreshed::Renewed;
    }
    if !admit() {
        return Refreshed::Refused;
    }
    let entry = (client, SharedValue::new(new()));
    table.insert(hash as u64, entry, |(key, _)| clients.hash_usize(key) as u64);
    Refreshed::Registered { shard, is_first: table.len() == 1 }
}

#[cfg(test)]
mod tests;
