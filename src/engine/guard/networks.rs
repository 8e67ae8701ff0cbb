//! Sets of networks, as operators write them.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// A set of networks. A lookup takes time logarithmic in their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Sorted and disjoint.
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

/// Why a text is not a valid network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotANetwork {
    /// The text is not an address or a network.
    #[error("\"{}\" is not a network: write a network or an address, such as 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7", .0.escape_debug())]
    Malformed(String),
    /// A decimal number has a leading zero.
    #[error("\"{}\" has a number with a leading zero, which other programs read as octal: write the number without the zero", .0.escape_debug())]
    LeadingZero(String),
    /// The address has a zone, such as `%eth0`.
    #[error("\"{}\" has a zone, but a network applies to all interfaces: remove the % and the text after it", .0.escape_debug())]
    Zone(String),
    /// The network covers IPv4-mapped addresses and others, so no IPv4 network equals it.
    #[error("\"{}\" contains both IPv4-mapped and other addresses: write the IPv4 network instead, such as 203.0.113.0/24, or 0.0.0.0/0 for all of IPv4", .0.escape_debug())]
    PartlyMapped(String),
}

impl Networks {
    /// Whether a network of the set contains `ip`.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => {
                let after = self.v4.partition_point(|network| network.network() <= ip);
                self.v4[..after].last().is_some_and(|network| network.contains(&ip))
            }
            IpAddr::V6(ip) => {
                let after = self.v6.partition_point(|network| network.network() <= ip);
                self.v6[..after].last().is_some_and(|network| network.contains(&ip))
            }
        }
    }

    /// The number of networks, after nested and adjacent ones are merged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether the set contains no network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Parses a network, or an address as a single-address network. A network of IPv4-mapped addresses becomes
/// the IPv4 network, because addresses are compared in canonical form.
///
/// # Errors
/// If the text is neither a network nor an address.
pub fn network(text: &str) -> Result<IpNet, NotANetwork> {
    let wrong = |kind: fn(String) -> NotANetwork| kind(text.to_owned());
    let malformed = || {
        wrong(match text {
            _ if has_leading_zero(text) => NotANetwork::LeadingZero,
            _ if text.contains(':') && text.contains('%') => NotANetwork::Zone,
            _ => NotANetwork::Malformed,
        })
    };
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip, Some(prefix_length(length).ok_or_else(malformed)?)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
    let network = match length {
        Some(length) => IpNet::new(ip, length).map_err(|_| malformed())?.trunc(),
        None => ip.into(),
    };
    canonical(ip, network).ok_or_else(|| wrong(NotANetwork::PartlyMapped))
}

/// Parses a plain decimal number, without a sign or leading zeros.
fn prefix_length(text: &str) -> Option<u8> {
    let is_plain =
        text.bytes().all(|c| c.is_ascii_digit()) && !(text.len() > 1 && text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Whether a decimal number of an IPv4 address or a prefix length has a leading zero.
fn has_leading_zero(text: &str) -> bool {
    let is_padded = |number: &str| {
        number.len() > 1 && number.starts_with('0') && number.bytes().all(|c| c.is_ascii_digit())
    };
    let (ip, length) = text.split_once('/').unwrap_or((text, ""));
    let ipv4 = ip.rsplit(':').next().unwrap_or_default();
    is_padded(length) || ipv4.contains('.') && ipv4.split('.').any(is_padded)
}

/// The canonical form of `network`, which was written with the address `ip`: a network of IPv4-mapped
/// addresses becomes an IPv4 network. Returns `None` if it covers mapped addresses and others, except for
/// `::/0` and other networks that begin at `::`.
fn canonical(ip: IpAddr, network: IpNet) -> Option<IpNet> {
    const MAPPED: Ipv6Addr = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    let IpNet::V6(v6) = network else { return Some(network) };
    if let (Some(ipv4), Some(length)) =
        (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return Some(Ipv4Net::new_assert(ipv4, length).into());
    }
    let is_meant =
        ip.to_canonical().is_ipv4() || v6.contains(&MAPPED) && !v6.network().is_unspecified();
    (!is_meant).then_some(network)
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push(network),
                IpNet::V6(network) => v6.push(network),
            }
        }
        Self { v4: Ipv4Net::aggregate(&v4), v6: Ipv6Net::aggregate(&v6) }
    }
}

/// Parses a comma-separated list.
impl FromStr for Networks {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(network).collect()
    }
}

/// Formats the set as [`FromStr`] parses it.
impl Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = self.v4.iter().copied().map(IpNet::from);
        let all = v4.chain(self.v6.iter().copied().map(IpNet::from));
        for (index, network) in all.enumerate() {
            write!(f, "{}{network}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        text.parse().unwrap()
    }

    #[test]
    fn only_addresses_inside_a_network_are_contained() {
        let networks = networks("203.0.113.0/24, 198.51.100.7,2001:db8:7::/48 , ::1");
        for inside in ["203.0.113.0", "203.0.113.255", "198.51.100.7", "2001:db8:7:ffff::1", "::1"]
        {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.112.255", "203.0.114.0", "198.51.100.8", "2001:db8:8::", "::", "::2"]
        {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn overlapping_and_adjacent_networks_are_merged() {
        let networks = networks("10.1.0.0/16,10.0.0.1/8,10.2.3.4,192.0.2.0/25,192.0.2.128/25");
        assert_eq!((networks.to_string().as_str(), networks.len()), ("10.0.0.0/8,192.0.2.0/24", 2));
        assert!(!networks.contains("9.255.255.255".parse().unwrap()));
        assert!(networks.contains("10.255.255.255".parse().unwrap()));
    }

    #[test]
    fn a_zero_length_prefix_contains_every_address() {
        let all = networks("0.0.0.0/0,::/0");
        for ip in ["0.0.0.0", "255.255.255.255", "::", "ffff::ffff"] {
            assert!(all.contains(ip.parse().unwrap()));
            assert!(!Networks::default().contains(ip.parse().unwrap()));
        }
        assert!(networks("").is_empty() && networks(" , ,").is_empty() && !all.is_empty());
    }

    #[test]
    fn an_invalid_network_is_rejected_with_the_reason() {
        let malformed = "10.0.0.0/33 10.0.0 example.com ::/129 10.0.0.1-10.0.0.9 10.0.0.0/+8 10.0.0.0/ \
            10.0.0.0/8/8 /8 ::ffff:10.0.0.0/129 0x7f.0.0.1 100% %";
        let zero = "0127.0.0.0/8 010.0.0.0/08 10.0.0.0/08 10.00.0.0 10.0.0.007 2001:db8::/032 \
            ::ffff:010.0.0.0/104 10.0.0.0/00";
        let mapped = "::ffff:0:0/95 ::ffff:0:0/90 ::ffff:203.0.113.0/24 ::ffff:0:0/0 ::fffe:0:0/95 ::f000:0:0/84";
        for (texts, reason) in [
            (malformed, NotANetwork::Malformed as fn(String) -> NotANetwork),
            (zero, NotANetwork::LeadingZero),
            ("fe80::1%1 fe80::%eth0/64 fe80::/64%2", NotANetwork::Zone),
            (mapped, NotANetwork::PartlyMapped),
        ] {
            for text in texts.split_whitespace() {
                let error = format!("1.1.1.1, {text}").parse::<Networks>().unwrap_err();
                assert_eq!(error, reason(text.to_owned()));
            }
        }
        let error = networks_error("\u{1b}[2J");
        assert!(error.contains(r#""\u{1b}[2J" is not a network"#), "{error}");
    }

    #[test]
    fn ipv4_mapped_networks_become_ipv4_networks() {
        for (mapped, plain) in [
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
            ("::ffff:203.0.113.9/120", "203.0.113.0/24"),
            ("::FFFF:cb00:7107", "203.0.113.7"),
            ("::ffff:203.0.113.7/128", "203.0.113.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:a00:0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(network(mapped), network(plain), "{mapped}");
        }
        for plain in ["::/0", "::/80", "::/16", "::fffe:0:0/96", "::1:0:0:0/96", "64:ff9b::/96"] {
            assert_eq!(network(plain).unwrap().to_string(), plain);
        }
    }

    fn networks_error(text: &str) -> String {
        text.parse::<Networks>().unwrap_err().to_string()
    }
}
