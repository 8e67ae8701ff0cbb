//! Access control: decides which sources may register, and caps the clients per address and network.
//!
//! Any source address can be forged, so the rules limit where pings go: never to destinations that pings
//! could harm ([`Guard::admit`]), and to a limited number of clients per address and network
//! (`Guard::reserve`). `docs/security.md` describes the threats.

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

/// The first port above the system ports (RFC 6335, section 6). Many services on system ports answer any
/// datagram, and NATs map clients to higher ports.
const FIRST_USER_PORT: u16 = 1024;

/// Whether the guard enforces its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refuse every heartbeat that violates a rule.
    Enforce,
    /// Report violations. Refuse only stale heartbeats and sources that no ping can reach.
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

/// The maximum numbers of concurrent clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// In total.
    pub clients: u32,
    /// Per IPv4 address or IPv6 /64, outside the local networks.
    pub per_address: u32,
    /// Per IPv4 /24 or IPv6 /56, outside the local networks.
    pub per_prefix: u32,
}

impl Caps {
    /// Checks that an address and a prefix with these counts have room for one more client.
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

/// The rules that are fixed while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether to enforce the rules or only report violations.
    pub mode: Mode,
    /// `REFUSE_NETS`: networks from which heartbeats are refused.
    pub refuse_nets: Networks,
    /// `LOCAL_NETS`: networks exempt from the caps per address and prefix, because many clients can share one
    /// address there.
    pub local_nets: Networks,
    /// The translation prefixes. The rules also apply to the IPv4 address that is embedded in an address with
    /// such a prefix.
    pub nat64_prefixes: Nat64Prefixes,
    /// The caps on the number of clients.
    pub caps: Caps,
}

impl Rules {
    /// Rules that enforce `caps`, with empty lists of networks.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self {
            mode: Mode::Enforce,
            refuse_nets: Networks::default(),
            local_nets: Networks::default(),
            nat64_prefixes: Nat64Prefixes::default(),
            caps,
        }
    }
}

/// Applies the rules, and counts the registry's clients per address and prefix.
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
    /// Creates a guard without clients for a daemon that listens on `own_port`.
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

    /// Whether the guard enforces its rules.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.rules.mode == Mode::Enforce
    }

    /// The caps on the number of clients.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.rules.caps
    }

    /// Decides whether a heartbeat from `source` is valid, regardless of the number of clients.
    ///
    /// # Errors
    /// If a rule refuses the source. The error is the reason.
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

    /// Replaces the networks of `DENY_FILE`.
    pub(super) fn deny(&self, networks: Networks) {
        *self.denied.write().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Replaces the broadcast addresses of this machine's networks. The kernel refuses pings to them.
    pub(super) fn set_broadcasts(&self, mut addresses: Vec<Ipv4Addr>) {
        addresses.sort_unstable();
        *self.broadcasts.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        self.broadcasts.read().unwrap_or_else(PoisonError::into_inner).binary_search(&ip).is_ok()
    }

    /// The number of networks in `DENY_FILE`.
    #[must_use]
    pub fn denied(&self) -> usize {
        self.denied_networks().len()
    }

    fn denied_networks(&self) -> RwLockReadGuard<'_, Networks> {
        self.denied.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the guard refuses a datagram for `reason`, rather than only reporting it.
    #[must_use]
    pub fn refuses(&self, reason: Refused) -> bool {
        self.enforces() || reason.is_unconditional()
    }

    /// Whether the guard lets a source with this verdict in. In observe mode, most violations are let in.
    pub(super) fn lets_in(&self, verdict: Result<(), Refused>) -> bool {
        verdict.err().is_none_or(|reason| !self.refuses(reason))
    }

    /// Whether `DENY_FILE` denies `ip` or its embedded IPv4 address.
    #[must_use]
    pub fn denies(&self, ip: IpAddr) -> bool {
        is_any_in(&self.denied_networks(), ip, self.embedded(ip))
    }

    /// The IPv4 address that a translator embedded in `ip`.
    #[must_use]
    pub fn embedded(&self, ip: IpAddr) -> Option<Ipv4Addr> {
        self.rules.nat64_prefixes.embedded(ip)
    }

    /// The address under which the clients of `ip` are counted. So a host has the same count whether or not
    /// its packets pass a translator.
    fn count_key(&self, ip: IpAddr) -> Address {
        self.embedded(ip).map_or(ip, IpAddr::from).into()
    }

    /// Reserves room for a new client at the admitted address `ip`: counts it, unless the table is full
    /// (`MAX_CLIENTS`) or its address or network has reached its cap. In observe mode a cap refuses no
    /// client. Call this from one thread only, because the check of `MAX_CLIENTS` and the count are two
    /// steps.
    ///
    /// `Engine::handle_heartbeat` hands this to `Registry::refresh`, which calls it only for a source that is not a
    /// client yet. So a full table never stops a live client from renewing.
    ///
    /// # Errors
    /// If a cap is reached, or `ip` is a broadcast address or has been denied since it was admitted.
    pub(super) fn reserve(&self, ip: IpAddr) -> Result<(), Refused> {
        // `DENY_FILE` may have changed since `ip` was admitted.
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

    /// Decides whether a heartbeat from `source` would register a new client now. Changes no counts.
    ///
    /// # Errors
    /// If a rule would refuse the heartbeat. The error is the reason.
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

    /// The number of clients at the address and in the prefix of `ip`. Zero in local networks, which are not
    /// counted.
    #[must_use]
    pub fn count(&self, ip: IpAddr) -> Count {
        if self.rules.local_nets.contains(ip) {
            return Count::default();
        }
        let address = self.count_key(ip);
        self.counts.table(address).count(address)
    }

    /// Subtracts a removed client at `ip` from the counts.
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

    /// Whether the caps that apply to `ip` are more than three quarters used, so unconfirmed clients should
    /// be evicted.
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

/// Whether `networks` contain a source address or its embedded IPv4 address.
fn is_any_in(networks: &Networks, ip: IpAddr, embedded: Option<Ipv4Addr>) -> bool {
    networks.contains(ip) || embedded.is_some_and(|embedded| networks.contains(embedded.into()))
}

/// The reason to refuse any address that embeds `ip`, if there is one. A translator must not forward such
/// packets, but some translators do.
fn forbidden_embedded(ip: Ipv4Addr) -> Option<Refused> {
    if ip.is_loopback() { Some(Refused::TranslatedLoopback) } else { forbidden_source(ip.into()) }
}

/// The reason to refuse any heartbeat from `ip`, if there is one (RFC 6890).
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
