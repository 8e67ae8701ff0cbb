//! IPv4 addresses embedded in IPv6 addresses by translators (RFC 6052).

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

use super::networks::{NotANetwork, network};

/// The valid lengths of a translation prefix (RFC 6052, section 2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The maximum number of configured prefixes: each costs one comparison per IPv6 datagram.
const MAX_PREFIXES: usize = 16;

/// The first 32 bits of both well-known prefixes, `64:ff9b::/96` (RFC 6052) and `64:ff9b:1::/48` (RFC 8215).
const WELL_KNOWN: u128 = 0x0064_ff9b;

/// The translation prefixes (NAT64, SIIT) behind which IPv4 hosts appear: the configured ones and the
/// well-known ones.
///
/// RFC 8215 lets each network choose its own prefixes from `64:ff9b:1::/48`. The common choice is a /96, with
/// the IPv4 address after a 64-bit prefix: `64:ff9b:1:X::192.0.2.1`. Only this form is decoded by default.
/// The forms of other lengths have nonzero octets in between, so they are never mistaken for this form, and
/// an operator must configure them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat64Prefixes(
    /// Sorted by length, longest first: the longest match decides.
    Vec<Ipv6Net>,
);

/// Why a list of translation prefixes is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotPrefixes {
    /// An entry is not a network.
    #[error(transparent)]
    NotANetwork(#[from] NotANetwork),
    /// An entry is an IPv4 network.
    #[error(
        "\"{0}\" is not an IPv6 network: write the IPv6 prefix of the translator, such as 64:ff9b::/96"
    )]
    Ipv4(IpNet),
    /// An entry has a length that RFC 6052 does not allow.
    #[error(
        "\"{0}\" has a prefix length that RFC 6052 does not allow: use 32, 40, 48, 56, 64 or 96"
    )]
    Length(Ipv6Net),
    /// A /96 has nonzero bits 64 to 71, which RFC 6052 forbids.
    #[error(
        "\"{0}\" has nonzero bits 64 to 71, which RFC 6052 forbids in a /96: set these bits to zero"
    )]
    Octet(Ipv6Net),
    /// The list exceeds the maximum number of prefixes.
    #[error(
        "{0} prefixes are set, but at most {MAX_PREFIXES} are allowed: replace several prefixes by a shorter one that contains them"
    )]
    TooMany(usize),
}

impl Nat64Prefixes {
    /// The IPv4 address of the host behind `ip`, if `ip` has a translation prefix.
    #[must_use]
    pub fn embedded(&self, ip: IpAddr) -> Option<Ipv4Addr> {
        let IpAddr::V6(ip) = ip else { return None };
        let named = self.0.iter().find(|prefix| prefix.contains(&ip)).map(Ipv6Net::prefix_len);
        let length = named.or_else(|| is_well_known(ip).then_some(96))?;
        Some(extract(ip, length))
    }
}

fn is_well_known(ip: Ipv6Addr) -> bool {
    let bits = ip.to_bits();
    bits >> 96 == WELL_KNOWN
        && matches!(ip.segments(), [_, _, 0, 0, 0, 0, ..] | [_, _, 1, _, 0, 0, ..])
}

/// Extracts the IPv4 address that follows a prefix of this length. For lengths from 32 to 64 it skips bits 64
/// to 71, which are zero. The bits after the address are ignored.
fn extract(ip: Ipv6Addr, length: u8) -> Ipv4Addr {
    const OCTET_AT: u32 = 56;
    let mut bits = ip.to_bits();
    if length < 96 {
        let after = bits & ((1 << OCTET_AT) - 1);
        bits = (bits >> 64 << OCTET_AT | after) >> (88 - u32::from(length));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the address is in the last 32 bits")]
    Ipv4Addr::from_bits(bits as u32)
}

fn prefix(text: &str) -> Result<Ipv6Net, NotPrefixes> {
    let prefix = match network(text)? {
        IpNet::V4(_) => return Err(NotPrefixes::Ipv4(network(text)?)),
        IpNet::V6(prefix) => prefix,
    };
    if !LENGTHS.contains(&prefix.prefix_len()) {
        Err(NotPrefixes::Length(prefix))
    } else if prefix.network().octets()[8] != 0 {
        Err(NotPrefixes::Octet(prefix))
    } else {
        Ok(prefix)
    }
}

/// Parses a comma-separated list.
impl FromStr for Nat64Prefixes {
    type Err = NotPrefixes;

    fn from_str(text: &str) -> Result<Self, NotPrefixes> {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let mut prefixes = texts.map(prefix).collect::<Result<Vec<_>, _>>()?;
        prefixes.sort_unstable_by_key(|prefix| (u8::MAX - prefix.prefix_len(), prefix.network()));
        prefixes.dedup();
        if prefixes.len() > MAX_PREFIXES {
            return Err(NotPrefixes::TooMany(prefixes.len()));
        }
        Ok(Self(prefixes))
    }
}

/// Formats the list as [`FromStr`] parses it: empty if no prefix is configured.
impl Display for Nat64Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(Ipv6Net::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded(prefixes: &str, ip: &str) -> Option<String> {
        let prefixes: Nat64Prefixes = prefixes.parse().unwrap();
        prefixes.embedded(ip.parse().unwrap()).map(|ip| ip.to_string())
    }

    /// The examples of RFC 6052, section 2.4.
    #[test]
    fn ipv4_addresses_are_extracted_at_each_prefix_length() {
        for (prefix, ip) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ] {
            assert_eq!(embedded(prefix, ip).as_deref(), Some("192.0.2.33"), "{prefix}");
            let all = "2001:db8::/32,2001:db8:100::/40,2001:db8:122::/48,2001:db8:122:300::/56";
            assert_eq!(embedded(&format!("{all},{prefix}"), ip), embedded(prefix, ip), "{prefix}");
        }
        // Bits 64 to 71 and the bits after the address are ignored.
        let ip = "2001:db8:122:344:ffc0:2:21ff:ffff";
        assert_eq!(embedded("2001:db8:122:344::/64", ip).as_deref(), Some("192.0.2.33"));
    }

    #[test]
    fn well_known_prefixes_need_no_configuration() {
        for ip in ["64:ff9b::c000:221", "64:ff9b:1::c000:221", "64:ff9b:1:fffe::192.0.2.33"] {
            assert_eq!(embedded("", ip).as_deref(), Some("192.0.2.33"), "{ip}");
        }
        for ip in [
            "192.0.2.33",
            "2001:db8::c000:221",
            "64:ff9b:0:1::c000:221",
            "64:ff9b::1:c000:221",
            "64:ff9b:2::c000:221",
            "64:ff9c::c000:221",
            // The forms of a /48, a /56 and a /64.
            "64:ff9b:1:c000:2:2100::",
            "64:ff9b:1:c0:0:221::",
            "64:ff9b:1:7:c0:2:2100:0",
        ] {
            assert_eq!(embedded("", ip), None, "{ip}");
        }
        let named = embedded("64:ff9b:1:7::/64", "64:ff9b:1:7:c0:2:2100:0");
        assert_eq!(named.as_deref(), Some("192.0.2.33"));
    }

    #[test]
    fn an_invalid_prefix_is_rejected_with_the_reason() {
        for (text, reason) in [
            ("10.0.0.0/8", "is not an IPv6 network"),
            ("::ffff:0:0/96", "is not an IPv6 network"),
            ("2001:db8::/33", "32, 40, 48, 56, 64 or 96"),
            ("2001:db8::", "32, 40, 48, 56, 64 or 96"),
            ("2001:db8:0:0:100::/96", "bits 64 to 71"),
            ("2001:db8::/032", "leading zero"),
            ("nat64.example", "is not a network"),
        ] {
            let error = format!("64:ff9b::/96, {text}").parse::<Nat64Prefixes>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let many = |n: usize| {
            let all: Vec<_> = (0..n).map(|n| format!("2001:db8:{n:x}::/48")).collect();
            all.join(",").parse::<Nat64Prefixes>()
        };
        assert_eq!((many(16).is_ok(), many(17)), (true, Err(NotPrefixes::TooMany(17))));
    }

    #[test]
    fn prefixes_are_printed_in_normal_form() {
        let prefixes: Nat64Prefixes =
            "2001:db8::1/32, 2001:db8:1::/96,,2001:db8::/32".parse().unwrap();
        assert_eq!(prefixes.to_string(), "2001:db8:1::/96,2001:db8::/32");
        assert_eq!(Nat64Prefixes::default().to_string(), "");
    }
}
