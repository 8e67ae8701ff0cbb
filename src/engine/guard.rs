//! Which sources may register, how many of them, and whom the network says it cannot reach.
//!
//! Any source address may be forged, so what matters is where pings may go: not to where they could do
//! harm ([`Guard::admit`]), and to no address or network more than so many at a time
//! ([`Guard::reserve`]). `docs/security.md` says against whom.

mod counts;
mod nat64;
mod networks;

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

/// The ports below are those of services (RFC 6335, section 6), many of which answer whatever comes.
/// NATs map clients to ports above.
const FIRST_USER_PORT: u16 = 1024;

/// Why a heartbeat was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its source port is 0, to which nothing can be sent.
    SourcePortZero,
    /// Its source port is below 1024: a service's, which might answer each ping.
    SystemPort,
    /// Its source port is 7561 or the daemon's own: a daemon's, which would take pings for heartbeats.
    DaemonPort,
    /// Its source is in 0.0.0.0/8 or is `::`, which nobody has.
    Unspecified,
    /// Its source is a multicast address, 224.0.0.0/4 or `ff00::/8`.
    Multicast,
    /// Its source is in 240.0.0.0/4, which nobody has, or 255.255.255.255.
    Reserved,
    /// Its source is in 169.254.0.0/16, where hosts without an address are, or a cloud's own services.
    LinkLocal,
    /// Its source is an IPv4-mapped address, which must not be on a wire.
    Ipv4Mapped,
    /// Its source is the broadcast address of a network that this machine is on (RFC 919).
    Broadcast,
    /// Its source embeds an address of 127.0.0.0/8, which never leaves its host.
    TranslatedLoopback,
    /// Its source is in one of `REFUSE_NETS`.
    RefuseNets,
    /// Its source is in one of the networks of `DENY_FILE`.
    DenyFile,
    /// There are `MAX_CLIENTS` clients.
    MaxClients,
    /// Its address has `MAX_CLIENTS_PER_ADDRESS` clients.
    MaxClientsPerAddress,
    /// Its prefix has `MAX_CLIENTS_PER_PREFIX` clients.
    MaxClientsPerPrefix,
    /// It waited in the socket for longer than `CLIENT_EXPIRATION_SECONDS`.
    Stale,
}

impl Refused {
    /// Every reason, each at the index `reason as usize`.
    pub const ALL: [Self; 16] = [
        Self::SourcePortZero,
        Self::SystemPort,
        Self::DaemonPort,
        Self::Unspecified,
        Self::Multicast,
        Self::Reserved,
        Self::LinkLocal,
        Self::Ipv4Mapped,
        Self::Broadcast,
        Self::TranslatedLoopback,
        Self::RefuseNets,
        Self::DenyFile,
        Self::MaxClients,
        Self::MaxClientsPerAddress,
        Self::MaxClientsPerPrefix,
        Self::Stale,
    ];

    /// Whether it holds in every mode: no ping can be sent to such a source, or its heartbeat is too old.
    const fn is_unconditional(self) -> bool {
        matches!(self, Self::SourcePortZero | Self::Broadcast | Self::Stale)
    }

    /// The reason as it stands in logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SourcePortZero => "source_port_zero",
            Self::SystemPort => "system_port",
            Self::DaemonPort => "daemon_port",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::LinkLocal => "link_local",
            Self::Ipv4Mapped => "ipv4_mapped",
            Self::Broadcast => "broadcast",
            Self::TranslatedLoopback => "translated_loopback",
            Self::RefuseNets => "refuse_nets",
            Self::DenyFile => "deny_file",
            Self::MaxClients => "max_clients",
            Self::MaxClientsPerAddress => "max_clients_per_address",
            Self::MaxClientsPerPrefix => "max_clients_per_prefix",
            Self::Stale => "stale",
        }
    }
}

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
        if let Some(reason) = never(ip).or_else(|| embedded.and_then(never_translated)) {
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
    fn counted(&self, ip: IpAddr) -> Address {
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
            let address = self.counted(ip);
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
        let address = self.counted(ip);
        self.counts.table(address).count(address)
    }

    /// Counts one client less at `ip`.
    pub(super) fn release(&self, ip: IpAddr) {
        if !self.rules.local_nets.contains(ip) {
            let address = self.counted(ip);
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
fn never_translated(ip: Ipv4Addr) -> Option<Refused> {
    if ip.is_loopback() { Some(Refused::TranslatedLoopback) } else { never(ip.into()) }
}

/// Why nobody may ever register from `ip`, if so (RFC 6890).
fn never(ip: IpAddr) -> Option<Refused> {
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
mod tests {
    use super::*;

    const CAPS: Caps = Caps { clients: 100, per_address: 4, per_prefix: 8 };

    fn guard(mode: Mode, caps: Caps) -> Guard {
        let rules = Rules {
            mode,
            refuse_nets: "198.51.100.0/24".parse().unwrap(),
            local_nets: "10.0.0.0/8,fd00::/8".parse().unwrap(),
            nat64_prefixes: "2001:db8:64::/48".parse().unwrap(),
            caps,
        };
        Guard::new(rules, 9000, "203.0.113.0/24".parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn some_sources_may_never_register() {
        let guard = guard(Mode::Enforce, CAPS);
        for (source, expected) in [
            ("192.0.2.1:0", Err(Refused::SourcePortZero)),
            ("192.0.2.1:1", Err(Refused::SystemPort)),
            ("192.0.2.1:1023", Err(Refused::SystemPort)),
            ("192.0.2.1:1024", Ok(())),
            ("192.0.2.1:7560", Ok(())),
            ("192.0.2.1:7561", Err(Refused::DaemonPort)),
            ("192.0.2.1:7562", Ok(())),
            ("192.0.2.1:9000", Err(Refused::DaemonPort)),
            ("192.0.2.1:65535", Ok(())),
            ("0.0.0.0:5000", Err(Refused::Unspecified)),
            ("0.255.255.255:5000", Err(Refused::Unspecified)),
            ("1.0.0.0:5000", Ok(())),
            ("223.255.255.255:5000", Ok(())),
            ("224.0.0.0:5000", Err(Refused::Multicast)),
            ("239.255.255.255:5000", Err(Refused::Multicast)),
            ("240.0.0.0:5000", Err(Refused::Reserved)),
            ("255.255.255.255:5000", Err(Refused::Reserved)),
            ("169.253.255.255:5000", Ok(())),
            ("169.254.0.0:5000", Err(Refused::LinkLocal)),
            ("169.254.169.254:5000", Err(Refused::LinkLocal)),
            ("169.255.0.0:5000", Ok(())),
            ("127.0.0.1:5000", Ok(())),
            ("198.51.100.9:5000", Err(Refused::RefuseNets)),
            ("203.0.113.9:5000", Err(Refused::DenyFile)),
            ("[2001:db8::1]:0", Err(Refused::SourcePortZero)),
            ("[2001:db8::1]:53", Err(Refused::SystemPort)),
            ("[2001:db8::1]:7561", Err(Refused::DaemonPort)),
            ("[2001:db8::1]:9000", Err(Refused::DaemonPort)),
            ("[2001:db8::1]:5000", Ok(())),
            ("[::]:5000", Err(Refused::Unspecified)),
            ("[::1]:5000", Ok(())),
            ("[ff00::]:5000", Err(Refused::Multicast)),
            ("[ff02::1]:5000", Err(Refused::Multicast)),
            ("[fe80::1]:5000", Ok(())),
            ("[::ffff:192.0.2.1]:5000", Err(Refused::Ipv4Mapped)),
            ("[64:ff9b::192.0.2.1]:5000", Ok(())),
            ("[64:ff9b::192.0.2.1]:53", Err(Refused::SystemPort)),
            ("[64:ff9b::10.0.0.1]:5000", Ok(())),
            ("[64:ff9b::0.1.2.3]:5000", Err(Refused::Unspecified)),
            ("[64:ff9b:1::127.0.0.1]:5000", Err(Refused::TranslatedLoopback)),
            ("[64:ff9b::169.254.169.254]:5000", Err(Refused::LinkLocal)),
            ("[64:ff9b::224.0.0.1]:5000", Err(Refused::Multicast)),
            ("[64:ff9b::255.255.255.255]:5000", Err(Refused::Reserved)),
            ("[64:ff9b:1:7::198.51.100.9]:5000", Err(Refused::RefuseNets)),
            ("[64:ff9b::203.0.113.9]:5000", Err(Refused::DenyFile)),
            // 203.0.113.9, 127.0.0.1 and 192.0.2.1 behind the operator's own prefix.
            ("[2001:db8:64:cb00:71:900::]:5000", Err(Refused::DenyFile)),
            ("[2001:db8:64:7f00:0:100::]:5000", Err(Refused::TranslatedLoopback)),
            ("[2001:db8:64:c000:2:100::]:5000", Ok(())),
        ] {
            assert_eq!(guard.admit(source.parse().unwrap()), expected, "{source}");
        }
    }

    #[test]
    fn what_is_denied_may_change() {
        let guard = guard(Mode::Enforce, CAPS);
        let source = |text: &str| text.parse().unwrap();
        guard.deny("192.0.2.0/24".parse().unwrap());
        assert_eq!(guard.admit(source("192.0.2.9:5000")), Err(Refused::DenyFile));
        assert_eq!(guard.admit(source("203.0.113.9:5000")), Ok(()));
    }

    #[test]
    fn a_broadcast_address_never_registers() {
        let address = ip("192.0.2.255");
        for mode in [Mode::Enforce, Mode::Observe] {
            let guard = guard(mode, CAPS);
            assert_eq!(guard.reserve(address), Ok(()), "the machine is not on that network yet");
            guard.set_broadcasts(vec!["192.0.2.255".parse().unwrap()]);
            assert_eq!(guard.reserve(address), Err(Refused::Broadcast));
            assert!(guard.refuses(Refused::Broadcast));
            assert_eq!(guard.reserve(ip("192.0.2.254")), Ok(()));
        }
    }

    #[test]
    fn each_cap_is_told_by_its_name_and_what_goes_makes_room() {
        let guard = guard(Mode::Enforce, CAPS);
        for [address, neighbour, other, next] in [
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1"],
            ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"],
        ]
        .map(|ips| ips.map(ip))
        {
            for _ in 0..4 {
                assert_eq!(guard.reserve(address), Ok(()));
                assert_eq!(guard.reserve(neighbour), Ok(()));
            }
            let would_admit = |ip| guard.would_admit(SocketAddr::new(ip, 5000));
            assert_eq!(would_admit(address), Err(Refused::MaxClientsPerAddress));
            assert_eq!(guard.reserve(address), Err(Refused::MaxClientsPerAddress));
            assert_eq!(would_admit(other), Err(Refused::MaxClientsPerPrefix));
            assert_eq!(guard.reserve(other), Err(Refused::MaxClientsPerPrefix));
            assert_eq!(would_admit(next), Ok(()));
            assert_eq!(guard.reserve(next), Ok(()));
            guard.release(address);
            assert_eq!(guard.reserve(other), Ok(()));
            assert_eq!(guard.reserve(address), Err(Refused::MaxClientsPerPrefix));
        }
        assert_eq!(guard.total(), 18);
        while guard.total() < CAPS.clients {
            assert_eq!(guard.reserve(ip("10.0.0.1")), Ok(()), "a local address is a crowd's");
        }
        assert_eq!(guard.would_admit("10.0.0.1:5000".parse().unwrap()), Err(Refused::MaxClients));
        assert_eq!(guard.would_admit("10.0.0.1:53".parse().unwrap()), Err(Refused::SystemPort));
        assert_eq!(guard.reserve(ip("10.0.0.1")), Err(Refused::MaxClients));
        assert_eq!(guard.reserve(ip("192.0.9.1")), Err(Refused::MaxClients));
        guard.release(ip("10.0.0.1"));
        assert_eq!(guard.reserve(ip("192.0.9.1")), Ok(()));
    }

    #[test]
    fn behind_a_translator_ipv4_hosts_are_counted_as_such() {
        let guard = guard(Mode::Enforce, CAPS);
        let ways = [
            "192.0.2.1",
            "64:ff9b::c000:201",
            "64:ff9b:1:7::192.0.2.1",
            "2001:db8:64:c000:2:100::",
        ]
        .map(ip);
        for way in ways {
            assert_eq!(guard.reserve(way), Ok(()));
        }
        for way in ways {
            assert_eq!(guard.reserve(way), Err(Refused::MaxClientsPerAddress));
            assert!(guard.is_pressed(way));
        }
        let neighbour = ip("64:ff9b::192.0.2.2");
        for _ in 0..4 {
            assert_eq!(guard.reserve(neighbour), Ok(()));
        }
        assert_eq!(guard.reserve(ip("64:ff9b::192.0.2.3")), Err(Refused::MaxClientsPerPrefix));
        // Other networks have room, and a private address there is not a local one.
        for _ in 0..4 {
            assert_eq!(guard.reserve(ip("64:ff9b::198.18.0.1")), Ok(()));
            assert_eq!(guard.reserve(ip("64:ff9b::10.0.0.1")), Ok(()));
        }
        assert_eq!(guard.reserve(ip("64:ff9b::10.0.0.1")), Err(Refused::MaxClientsPerAddress));
        assert_eq!(guard.reserve(ip("10.0.0.1")), Ok(()));
        guard.release(ways[3]);
        assert_eq!(guard.reserve(ways[0]), Ok(()));
        assert_eq!(guard.reserve(ways[0]), Err(Refused::MaxClientsPerAddress));
    }

    #[test]
    fn an_observer_counts_those_whom_it_would_refuse() {
        let guard = guard(Mode::Observe, Caps { clients: 3, ..CAPS });
        for _ in 0..3 {
            assert_eq!(guard.reserve(ip("192.0.2.1")), Ok(()));
        }
        assert_eq!(guard.reserve(ip("192.0.2.1")), Err(Refused::MaxClients));
        assert_eq!(guard.total(), 4);
        assert!(!guard.is_pressed(ip("192.0.2.1")));
        for _ in 0..4 {
            guard.release(ip("192.0.2.1"));
        }
        assert_eq!(guard.total(), 0);
        assert_eq!(guard.reserve(ip("192.0.2.1")), Ok(()));
    }

    #[test]
    fn beyond_three_quarters_it_is_pressed() {
        for (text, caps) in [
            ("192.0.2.1", Caps { clients: 8, per_address: 100, per_prefix: 100 }),
            ("192.0.2.1", Caps { clients: 100, per_address: 8, per_prefix: 100 }),
            ("192.0.2.1", Caps { clients: 100, per_address: 100, per_prefix: 8 }),
            ("10.0.0.1", Caps { clients: 8, per_address: 1, per_prefix: 1 }),
        ] {
            let guard = guard(Mode::Enforce, caps);
            let pressed: Vec<_> = (0..8)
                .map(|_| {
                    guard.reserve(ip(text)).unwrap();
                    guard.is_pressed(ip(text))
                })
                .collect();
            assert_eq!(pressed, [false, false, false, false, false, false, true, true], "{caps:?}");
            let stranger = ip("192.0.9.1");
            assert_eq!(guard.is_pressed(stranger), caps.clients == 8);
        }
    }

    #[test]
    fn each_reason_stands_at_its_index() {
        for (index, reason) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
