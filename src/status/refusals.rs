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
    /// What to do if the refused client is real and not forged, or why there is nothing to do.
    pub advice: &'static str,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (summary, advice) = match refused {
            Refused::SourcePortZero => (
                "The source port is 0, to which no ping can be sent.",
                "Fix the program that sends these heartbeats: a UDP socket never has port 0 as its source port.",
            ),
            Refused::SystemPort => (
                "The source port is below 1024. Such a port belongs to a system service, which could answer each ping.",
                "Let the client send from an ephemeral port, which the kernel assigns to a socket that is not bound to a port.",
            ),
            Refused::DaemonPort => (
                "The source port is 7561 or the daemon's own port. If another wakeupd uses this port, the two daemons could ping each other forever.",
                "Let the client send from another source port.",
            ),
            Refused::Unspecified => (
                "The source address is `::` or in 0.0.0.0/8, which no host has.",
                "Do nothing: the address is forged, because no client can have this address.",
            ),
            Refused::Multicast => (
                "The source address is a multicast address, which no host sends from.",
                "Do nothing: the address is forged, because no client can have this address.",
            ),
            Refused::Reserved => (
                "The source address is in 240.0.0.0/4, which no host has.",
                "Do nothing: the address is forged, because no client can have this address.",
            ),
            Refused::LinkLocal => (
                "The source address is in 169.254.0.0/16, which belongs to hosts without a DHCP lease and to internal services of clouds.",
                "If the client is real, find out why it got no address from DHCP.",
            ),
            Refused::Ipv4Mapped => (
                "The source address is an IPv4-mapped IPv6 address, which must not appear on a network.",
                "Let the client send over IPv4. To find the client, search for its IPv4 address.",
            ),
            Refused::TranslatedLoopback => (
                "The source address is a loopback address in a NAT64 prefix, which no host has.",
                "Do nothing: the address is forged, because no client can have this address.",
            ),
            Refused::Broadcast => (
                "The source address is a broadcast address of a network of this machine.",
                "Do nothing: the address is forged, because no client can have this address.",
            ),
            Refused::Stale => (
                "The heartbeat waited in the socket longer than CLIENT_EXPIRATION_SECONDS, because the daemon was paused or not running.",
                "Do nothing: a client that still runs registers with its next heartbeat.",
            ),
            Refused::RefuseNets => (
                "The source address is in a network of REFUSE_NETS.",
                "If the clients in this network are real, remove the network from REFUSE_NETS and restart the daemon.",
            ),
            Refused::DenyFile => (
                "The source address is in a network of DENY_FILE.",
                "If the clients in this network are real, remove the network from DENY_FILE and run `systemctl reload wakeupd`.",
            ),
            Refused::MaxClients => (
                "The daemon already has MAX_CLIENTS clients, so it refuses new clients.",
                "If the daemon's clients are real, raise MAX_CLIENTS and restart the daemon. If many clients are forged, add their networks to DENY_FILE.",
            ),
            Refused::MaxClientsPerAddress => (
                "The source address, or its IPv6 /64, already has MAX_CLIENTS_PER_ADDRESS clients.",
                "If many clients are behind one NAT, raise MAX_CLIENTS_PER_ADDRESS. If the NAT is a gateway of your own, add its address to LOCAL_NETS instead, because the cap does not apply there. Otherwise the address is probably forged, and the cap limits the pings that a forger can direct at this address.",
            ),
            Refused::MaxClientsPerPrefix => (
                "The network of the source address, an IPv4 /24 or IPv6 /56, already has MAX_CLIENTS_PER_PREFIX clients.",
                "If many clients share a carrier's network, raise MAX_CLIENTS_PER_PREFIX. If the network is your own, add it to LOCAL_NETS instead, because the cap does not apply there. Otherwise the addresses are probably forged, and the cap limits the pings that a forger can direct at this network.",
            ),
        };
        Self { reason: refused.label(), summary, advice }
    }
}
