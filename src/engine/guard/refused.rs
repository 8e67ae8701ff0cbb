//! The reasons to refuse a heartbeat.

/// Why a heartbeat was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The source port is 0, which no datagram can be sent to.
    SourcePortZero,
    /// The source port is below 1024: a system service might answer each ping.
    SystemPort,
    /// The source port is 7561 or the daemon's own: another daemon would take pings for heartbeats.
    DaemonPort,
    /// The source is in 0.0.0.0/8 or is `::`, which no host uses as its address.
    Unspecified,
    /// The source is a multicast address: in 224.0.0.0/4 or `ff00::/8`.
    Multicast,
    /// The source is in 240.0.0.0/4, which is unassigned, or is 255.255.255.255.
    Reserved,
    /// The source is in 169.254.0.0/16, used by hosts without an assigned address and by cloud metadata
    /// services.
    LinkLocal,
    /// The source is an IPv4-mapped address, which must not appear on the wire.
    Ipv4Mapped,
    /// The source is the broadcast address of one of this machine's networks (RFC 919).
    Broadcast,
    /// The source embeds an address of 127.0.0.0/8, which never leaves its host.
    TranslatedLoopback,
    /// The source is in a network of `REFUSE_NETS`.
    RefuseNets,
    /// The source is in a network of `DENY_FILE`.
    DenyFile,
    /// The daemon has `MAX_CLIENTS` clients.
    MaxClients,
    /// The source's address has `MAX_CLIENTS_PER_ADDRESS` clients.
    MaxClientsPerAddress,
    /// The source's prefix has `MAX_CLIENTS_PER_PREFIX` clients.
    MaxClientsPerPrefix,
    /// The heartbeat waited in the receive buffer for longer than `CLIENT_EXPIRATION_SECONDS`.
    Stale,
}

impl Refused {
    /// Every reason, at the index `reason as usize`.
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

    /// Whether the reason applies even in observe mode: the source cannot be pinged, or the heartbeat is too
    /// old.
    pub(super) const fn is_unconditional(self) -> bool {
        matches!(self, Self::SourcePortZero | Self::Broadcast | Self::Stale)
    }

    /// The name of the reason in logs and counters.
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
