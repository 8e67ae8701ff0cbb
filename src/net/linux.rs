//! Linux socket options and control messages, for the daemon and for `wakeupd-bench`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use nix::libc::{self, in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessageOwned, getsockopt, setsockopt, sockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// Path MTU discovery, with a value such as `IP_PMTUDISC_DONT`.
    MtuDiscover,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);

sockopt_impl!(
    /// The usage of a socket's buffers, and its drop count.
    MemInfo,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; 9]
);

/// The index of the drop count in [`MemInfo`] (`SK_MEMINFO_DROPS` of `linux/sock_diag.h`).
const DROPS: usize = 8;

/// The number of datagrams that the kernel dropped because this socket's receive buffer was full.
pub(crate) fn receive_drops(socket: &impl AsFd) -> nix::Result<u64> {
    getsockopt(socket, MemInfo).map(|info| info[DROPS].into())
}

/// Forbids fragmentation, which saves the kernel from generating an identification for each datagram.
///
/// # Errors
/// If the kernel refuses the option.
pub fn forbid_fragments(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, MtuDiscover, &libc::IP_PMTUDISC_PROBE)
}

/// Requests a receive buffer of this size, above the system's limit if the process has `CAP_NET_ADMIN`.
///
/// # Errors
/// If the kernel refuses the option.
pub fn request_receive_buffer(socket: &impl AsFd, size: usize) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &size)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &size))
}

/// Makes the kernel report the local address of each datagram.
///
/// # Errors
/// If the kernel refuses the option.
pub fn report_local_addresses(socket: &impl AsFd, is_ipv6: bool) -> nix::Result<()> {
    if is_ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)
    }
}

/// The control message that makes a datagram leave from this local IPv4 address.
#[must_use]
pub fn from_v4(ip: Ipv4Addr) -> in_pktinfo {
    in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr { s_addr: ip.to_bits().to_be() },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

/// The control message that makes a datagram leave from this local IPv6 address.
#[must_use]
pub fn from_v6(ip: Ipv6Addr) -> in6_pktinfo {
    in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 }
}

/// The local address that a received datagram was sent to, if this message reports it. A datagram that
/// arrived before the option was set has none.
#[must_use]
pub fn local_address(message: &ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let ip = IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
            (!ip.is_unspecified()).then_some(ip)
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical())
        }
        _ => None,
    }
}

/// Whether this message reports a "port unreachable" from the peer's host.
#[must_use]
pub fn is_port_unreachable(message: &ControlMessageOwned) -> bool {
    // Types and codes of RFC 792 and RFC 4443, which libc does not define.
    const ICMP: (u8, u8) = (3, 3);
    const ICMPV6: (u8, u8) = (1, 4);
    match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            let kind = (error.ee_type, error.ee_code);
            match error.ee_origin {
                libc::SO_EE_ORIGIN_ICMP => kind == ICMP,
                libc::SO_EE_ORIGIN_ICMP6 => kind == ICMPV6,
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_destination_address_is_unknown() {
        let told = |ip| local_address(&ControlMessageOwned::Ipv4PacketInfo(from_v4(ip)));
        assert_eq!(told(Ipv4Addr::new(192, 0, 2, 1)), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        assert_eq!(told(Ipv4Addr::UNSPECIFIED), None);
    }
}
