//! Sets of networks, as operators write them.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// A set of addresses, made of networks. Looking an address up takes the logarithm of their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// In order, and none overlaps another.
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{}\" is no network: write it like 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7", .0.escape_debug())]
pub struct NotANetwork(String);

impl Networks {
    /// Whether `ip` is in one of them.
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

    /// The number of networks, those that lie within another or make one up together taken as one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether no address is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Reads a network, or an address as the network that holds it alone.
///
/// # Errors
/// With the text if it is neither.
pub fn network(text: &str) -> Result<IpNet, NotANetwork> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| NotANetwork(text.to_owned()))
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

/// From a list with commas between the networks.
impl FromStr for Networks {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(network).collect()
    }
}

/// As [`FromStr`] reads it.
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
    fn an_address_is_in_it_or_not() {
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
    fn those_that_overlap_or_touch_are_one() {
        let networks = networks("10.1.0.0/16,10.0.0.1/8,10.2.3.4,192.0.2.0/25,192.0.2.128/25");
        assert_eq!((networks.to_string().as_str(), networks.len()), ("10.0.0.0/8,192.0.2.0/24", 2));
        assert!(!networks.contains("9.255.255.255".parse().unwrap()));
        assert!(networks.contains("10.255.255.255".parse().unwrap()));
    }

    #[test]
    fn all_and_nothing() {
        let all = networks("0.0.0.0/0,::/0");
        for ip in ["0.0.0.0", "255.255.255.255", "::", "ffff::ffff"] {
            assert!(all.contains(ip.parse().unwrap()));
            assert!(!Networks::default().contains(ip.parse().unwrap()));
        }
        assert!(networks("").is_empty() && networks(" , ,").is_empty() && !all.is_empty());
    }

    #[test]
    fn what_is_no_network_is_told() {
        for text in
            ["10.0.0.0/33", "10.0.0", "example.com", "::/129", "10.0.0.1-10.0.0.9", "fe80::1%1"]
        {
            let error = format!("1.1.1.1, {text}").parse::<Networks>().unwrap_err();
            assert_eq!(error, NotANetwork(text.to_owned()));
        }
        let error = networks_error("\u{1b}[2J");
        assert!(error.contains(r#""\u{1b}[2J" is no network"#), "{error}");
    }

    fn networks_error(text: &str) -> String {
        text.parse::<Networks>().unwrap_err().to_string()
    }
}
