//! IPv6 clients in 18 bytes. A `SocketAddrV4` for IPv4 clients is already small.

use std::net::SocketAddrV6;

/// An IPv6 client: its address, its port and, if link-local, its scope.
///
/// Octets 4 to 8 of a link-local address are zero (RFC 4291, section 2.5.6), so they store the scope. Such a
/// key begins with `ff`, the multicast prefix, which no source address has. If those octets are not zero, the
/// scope is lost, and the client's pings fail rather than reach another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyV6 {
    octets: [u8; 16],
    port: u16,
}

impl From<SocketAddrV6> for KeyV6 {
    fn from(address: SocketAddrV6) -> Self {
        let mut octets = address.ip().octets();
        let is_link_local = address.ip().is_unicast_link_local();
        if address.scope_id() != 0 && is_link_local && octets[4..8] == [0; 4] {
            octets[0] = 0xff;
            octets[4..8].copy_from_slice(&address.scope_id().to_be_bytes());
        }
        Self { octets, port: address.port() }
    }
}

impl From<KeyV6> for SocketAddrV6 {
    fn from(KeyV6 { mut octets, port }: KeyV6) -> Self {
        let mut scope = [0; 4];
        if octets[0] == 0xff {
            octets[0] = 0xfe;
            scope.swap_with_slice(&mut octets[4..8]);
        }
        Self::new(octets.into(), port, 0, u32::from_be_bytes(scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(ip: &str, scope: u32) -> SocketAddrV6 {
        KeyV6::from(SocketAddrV6::new(ip.parse().unwrap(), 7561, 0, scope)).into()
    }

    #[test]
    fn an_address_and_its_scope_round_trip() {
        for (ip, scope) in [
            ("2001:db8::1", 0),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 0),
            ("::1", 0),
            ("fd00::1", 0),
            ("fe80::1", 0),
            ("fe80::1", 1),
            ("fe80::1", u32::MAX),
            ("fe80:1:0:0:ffff:ffff:ffff:ffff", 7),
            ("febf:ffff::1", 0x0102_0304),
            ("fe80:0:0:7::1", 0),
        ] {
            let address = SocketAddrV6::new(ip.parse().unwrap(), 7561, 0, scope);
            assert_eq!(there_and_back(ip, scope), address);
        }
    }

    #[test]
    fn a_scope_that_does_not_fit_is_dropped() {
        let client = there_and_back("fe80:0:0:7::1", 2);
        assert_eq!(client, SocketAddrV6::new("fe80:0:0:7::1".parse().unwrap(), 7561, 0, 0));
    }
}
