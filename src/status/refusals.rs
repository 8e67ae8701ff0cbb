//! Describes each reason for which the guard refuses heartbeats, and its remedy.

use serde::Serialize;

use crate::engine::guard::Refused;

/// A reason for refusing heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The reason's name in logs and counters.
    pub reason: &'static str,
    /// The guard's observation.
    pub summary: &'static str,
    /// The remedy, if the heartbeat came from a real client.
    pub advice: &'static str,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (summary, advice) = match refused {
            Refused::SourcePortZero => (
                "The source port is 0, to which no ping can be sent.",
                "Fix the program that sends these heartbeats: a socket always has another port.",
            ),
            Refused::SystemPort => (
                "The source port is below 1024. Such a port belongs to a service, which may answer each ping.",
                "Let the client send from an ephemeral port, which an unbound socket gets by itself.",
            ),
            Refused::DaemonPort => (
                "The source port is 7561 or the daemon's own, so two daemons could ping each other forever.",
                "Let the client send from another port.",
            ),
            Refused::Unspecified => (
                "The source address is `::` or in 0.0.0.0/8, which no host has.",
                "None: the address is forged, because no client can have it.",
            ),
            Refused::Multicast => (
                "The source address is a multicast address, which no host sends from.",
                "None: the address is forged, because no client can have it.",
            ),
            Refused::Reserved => (
                "The source address is in 240.0.0.0/4, which no host has.",
                "None: the address is forged, because no client can have it.",
            ),
            Refused::LinkLocal => (
                "The source address is in 169.254.0.0/16, which belongs to hosts without a DHCP lease and to internal services of clouds.",
                "Find out why the client got no address from DHCP.",
            ),
            Refused::Ipv4Mapped => (
                "The source address is an IPv4-mapped IPv6 address, which must not appear on a network.",
                "Let the client send over IPv4, and look for it by its IPv4 address.",
            ),
            Refused::TranslatedLoopback => (
                "The source address is a loopback address behind a NAT64 prefix, which no host has.",
                "None: the address is forged, because no client can have it.",
            ),
            Refused::Broadcast => (
                "The source address is a broadcast address of a network of this machine.",
                "None: the address is forged, because no client can have it.",
            ),
            Refused::Stale => (
                "The heartbeat waited in the socket longer than CLIENT_EXPIRATION_SECONDS, because the daemon was paused or not running.",
                "None: a client that still runs sends another heartbeat.",
            ),
            Refused::RefuseNets => (
                "The source address is in a network of REFUSE_NETS.",
                "If its clients are yours, remove the network from REFUSE_NETS and restart the daemon.",
            ),
            Refused::DenyFile => (
                "The source address is in a network of DENY_FILE.",
                "If its clients are yours, remove the network from that file and run `systemctl reload wakeupd`.",
            ),
            Refused::MaxClients => (
                "The daemon has MAX_CLIENTS clients.",
                "If they are real, raise MAX_CLIENTS and restart the daemon. If they are forged, add their networks to DENY_FILE.",
            ),
            Refused::MaxClientsPerAddress => (
                "The source address, or its IPv6 /64, has MAX_CLIENTS_PER_ADDRESS clients.",
                "If many clients are behind one NAT, raise MAX_CLIENTS_PER_ADDRESS, or add a gateway of your own to LOCAL_NETS. Otherwise the address is probably forged, and the cap protects it.",
            ),
            Refused::MaxClientsPerPrefix => (
                "The network of the source address, an IPv4 /24 or IPv6 /56, has MAX_CLIENTS_PER_PREFIX clients.",
                "If many clients are behind one carrier, raise MAX_CLIENTS_PER_PREFIX, or add a network of your own to LOCAL_NETS. Otherwise its addresses are probably forged, and the cap protects them.",
            ),
        };
        Self { reason: refused.label(), summary, advice }
    }
}
