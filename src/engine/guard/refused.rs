//! Why a heartbeat is refused.

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
    pub(super) const fn is_unconditional(self) -> bool {
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
