//! Which sources may register, how many of them, and whom the network says it cannot reach.
//!
//! Any source address may be forged, so what matters is where pings may go: not to where they could do
//! harm ([`Guard::admit`]), and to no address or network more than so many at a time
//! ([`Guard::reserve`]). `docs/security.md` says against whom.

mod counts;
mod nat64;
mod networks;
mod refused;

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use wakeupd_protocol::DEFAULT_PORT;

pub use self::counts::Count;
use self::counts::{Address, Counts};
pub use self::nat64::{Nat64Prefixes, NotPrefixes};
pub use self::networks::{Networks, NotANetwork, network};
pub use self::refused::Refused;

/// The ports below are those of services (RFC 6335, section 6), many of which answer whatever comes.
/// NATs map clients to ports above.
const FIRST_USER_PORT: u16 = 1024;

/// What the guard does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It refuses.
    Enforce,
    /// It reports what it would refuse, and refuses only sources that no ping can be sent to and heartbeats
    /// that are too old.
    Observe,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "enforce" => Ok(Self::Enforce),
            "observe" => Ok(Self::Observe),
            _ => Err(()),
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        })
    }
}

/// How many clients there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Altogether.
    pub clients: u32,
    /// At one IPv4 address or in one IPv6 /64, outside the local networks.
    pub per_address: u32,
    /// In one IPv4 /24 or IPv6 /56, outside the local networks.
    pub per_prefix: u32,
}

impl Caps {
    /// Whether an address and its prefix with so many clients may have one more.
    fn check(self, Count { of_address, of_prefix }: Count) -> Result<(), Refused> {
        if of_address >= self.per_address {
            Err(Refused::MaxClientsPerAddress)
        } else if of_prefix >= self.per_prefix {
            Err(Refused::MaxClientsPerPrefix)
        } else {
            Ok(())
        }
    }
}

/// The rules that stay as they are while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether to refuse or only to tell.
    pub mode: Mode,
    /// From where nobody may register.
    pub refuse_nets: Networks,
    /// Where an address may stand for a crowd, so that the caps of addresses and prefixes do not apply.
    pub local_nets: Networks,
    /// The translation prefixes. Addresses behind them obey the rules for their embedded IPv4 addresses too.
    pub nat64_prefixes: Nat64Prefixes,
    /// How many may register.
    pub caps: Caps,
}

/// Watches over who may register. Its counts are those of the registry's clients.
#[derive(Debug)]
pub struct Guard {
    rules: Rules,
    own_port: u16,
    denied: RwLock<Networks>,
    broadcasts: RwLock<Vec<Ipv4Addr>>,
    total: AtomicU32,
    counts: Counts,
}

impl Guard {
    /// A guard of a daemon at `own_port` that has no clients.
    #[must_use]
    pub(super) fn new(rules: Rules, own_port: u16, denied: Networks) -> Self {
        Self {
            rules,
            own_port,
            denied: RwLock::new(denied),
            broadcasts: RwLock::default(),
            total: AtomicU32::new(0),
            counts: Counts::default(),
        }
    }

    /// Whether what is found to be refused must be refused.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.rules.mode == Mode::Enforce
    }

    /// How many clients there may be.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.rules.caps
    }

    /// Decides whether a heartbeat from `source` counts at all, whoever is live.
    ///
    /// # Errors
    /// With the reason if it does not.
    pub fn admit(&self, source: SocketAddr) -> Result<(), Refused> {
        let port = source.port();
        if port == 0 {
            return Err(Refused::SourcePortZero);
        }
        if port < FIRST_USER_PORT {
            return Err(Refused::SystemPort);
        }
        if port == DEFAULT_PORT || port == self.own_port {
            return Err(Refused::DaemonPort);
        }
        let ip = source.ip();
        let embedded = self.embedded(ip);
        if let Some(reason) = forbidden_source(ip).or_else(|| embedded.and_then(forbidden_embedded))
        {
            return Err(reason);
        }
        if is_any_in(&self.rules.refuse_nets, ip, embedded) {
            return Err(Refused::RefuseNets);
        }
        if is_any_in(&self.denied_networks(), ip, embedded) {
            return Err(Refused::DenyFile);
        }
        Ok(())
    }

    /// Takes other networks than before from the file of those to deny.
    pub(super) fn deny(&self, networks: Networks) {
        *self.denied.write().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Takes the broadcast addresses of the networks that this machine is on. No ping can be sent there.
    pub(super) fn set_broadcasts(&self, mut addresses: Vec<Ipv4Addr>) {
        addresses.sort_unstable();
        *self.broadcasts.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        self.broadcasts.read().unwrap_or_else(PoisonError::into_inner).binary_search(&ip).is_ok()
    }

    /// How many networks the file says to deny.
    #[must_use]
    pub fn denied(&self) -> usize {
        self.denied_networks().len()
    }

    fn denied_networks(&self) -> RwLockReadGuard<'_, Networks> {
        self.denied.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a datagram with such a fault is refused, and not only reported.
    #[must_use]
    pub fn refuses(&self, reason: Refused) -> bool {
        self.enforces() || reason.is_unconditional()
    }

    /// Whether the file denies `ip` or the IPv4 address embedded in it.
    #[must_use]
    pub fn denies(&self, ip: IpAddr) -> bool {
        is_any_in(&self.denied_networks(), ip, self.embedded(ip))
    }

    /// The IPv4 address that a translator has embedded in `ip`.
    #[must_use]
    pub fn embedded(&self, ip: IpAddr) -> Option<Ipv4Addr> {
        self.rules.nat64_prefixes.embedded(ip)
    }

    /// The address that the clients of `ip` count under. A host has one count, with or without a translator
    /// in between.
    fn count_key(&self, ip: IpAddr) -> Address {
        self.embedded(ip).map_or(ip, IpAddr::from).into()
    }

    /// Counts one client more at `ip`, which was admitted, if there is room for it or the guard only
    /// observes. One thread alone may do this.
    ///
    /// # Errors
    /// With the cap that is reached, mostly.
    pub(super) fn reserve(&self, ip: IpAddr) -> Result<(), Refused> {
        // It may have been denied since it was admitted.
        if self.enforces() && self.denies(ip) {
            return Err(Refused::DenyFile);
        }
        if self.is_broadcast(ip) {
            return Err(Refused::Broadcast);
        }
        let caps = self.rules.caps;
        let mut verdict = Ok(());
        if self.total() >= caps.clients {
            verdict = Err(Refused::MaxClients);
            if self.enforces() {
                return verdict;
            }
        }
        if !self.rules.local_nets.contains(ip) {
            let address = self.count_key(ip);
            let mut table = self.counts.table(address);
            verdict = verdict.and(caps.check(table.count(address)));
            if verdict.is_ok() || !self.enforces() {
                table.add(address);
            }
        }
        if verdict.is_ok() || !self.enforces() {
            self.total.fetch_add(1, Relaxed);
        }
        verdict
    }

    /// Decides whether a heartbeat from `source` would register it now, if it is not a client yet. Changes no
    /// count.
    ///
    /// # Errors
    /// The rule that the heartbeat would break.
    pub fn would_admit(&self, source: SocketAddr) -> Result<(), Refused> {
        self.admit(source)?;
        if self.is_broadcast(source.ip()) {
            return Err(Refused::Broadcast);
        }
        if self.total() >= self.rules.caps.clients {
            return Err(Refused::MaxClients);
        }
        self.rules.caps.check(self.count(source.ip()))
    }

    /// The number of clients that share the address and the prefix of `ip`. Local networks are not counted.
    #[must_use]
    pub fn count(&self, ip: IpAddr) -> Count {
        if self.rules.local_nets.contains(ip) {
            return Count::default();
        }
        let address = self.count_key(ip);
        self.counts.table(address).count(address)
    }

    /// Counts one client less at `ip`.
    pub(super) fn release(&self, ip: IpAddr) {
        if !self.rules.local_nets.contains(ip) {
            let address = self.count_key(ip);
            self.counts.table(address).remove(address);
        }
        self.total.fetch_sub(1, Relaxed);
    }

    /// The number of clients.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Whether the room for clients at `ip` is more than three quarters full, so that one that has not
    /// repeated its heartbeat should make way.
    #[must_use]
    pub fn is_pressed(&self, ip: IpAddr) -> bool {
        if !self.enforces() {
            return false;
        }
        let is_nearly_full = |count: u32, cap: u32| u64::from(count) * 4 > u64::from(cap) * 3;
        let Caps { clients, per_address, per_prefix } = self.rules.caps;
        if is_nearly_full(self.total(), clients) {
            return true;
        }
        let Count { of_address, of_prefix } = self.count(ip);
        is_nearly_full(of_address, per_address) || is_nearly_full(of_prefix, per_prefix)
    }
}

/// Whether `networks` contain a source's own address or the IPv4 address embedded in it.
fn is_any_in(networks: &Networks, ip: IpAddr, embedded: Option<Ipv4Addr>) -> bool {
    networks.contains(ip) || embedded.is_some_and(|embedded| networks.contains(embedded.into()))
}

/// Why an address with `ip` embedded may never register, if so. A translator must not forward such packets,
/// but a careless one does.
fn forbidden_embedded(ip: Ipv4Addr) -> Option<Refused> {
    if ip.is_loopback() { Some(Refused::TranslatedLoopback) } else { forbidden_source(ip.into()) }
}

/// Why nobody may ever register from `ip`, if so (RFC 6890).
fn forbidden_source(ip: IpAddr) -> Option<Refused> {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [0, ..] => Some(Refused::Unspecified),
            [224..=239, ..] => Some(Refused::Multicast),
            [240..=255, ..] => Some(Refused::Reserved),
            [169, 254, ..] => Some(Refused::LinkLocal),
            _ => None,
        },
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Refused::Unspecified),
        IpAddr::V6(ip) if ip.is_multicast() => Some(Refused::Multicast),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map(|_| Refused::Ipv4Mapped),
    }
}

#[cfg(test)]
mod tests;
