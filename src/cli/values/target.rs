//! The address of a daemon on the command line.

use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use wakeupd_protocol::DEFAULT_PORT;

/// A host and a port, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

/// Selects among the addresses of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// All addresses, IPv4 first: a daemon serves IPv4 by default.
    Any,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// The addresses of a target.
#[derive(Debug)]
pub struct Resolved {
    /// The address to use: the first IPv4 address or, without one, the first IPv6 address.
    pub address: SocketAddr,
    /// All addresses of the name, in the resolver's order.
    pub all: Vec<SocketAddr>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // More than one colon makes it an IPv6 address, perhaps with a scope.
        let (host, port) =
            if let Some((host, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
                match rest.strip_prefix(':') {
                    None if !rest.is_empty() => {
                        return Err(
                            "only :PORT can follow the closing bracket, as in [::1]:7000".into()
                        );
                    }
                    port => (host, port),
                }
            } else {
                match text.split_once(':') {
                    Some((host, port)) if !port.contains(':') => (host, Some(port)),
                    _ => (text, None),
                }
            };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("{port:?} is not a port from 1 to 65535"))?,
        };
        if host.is_empty() {
            return Err("the host is missing: write HOST or HOST:PORT".into());
        }
        if host.contains(['[', ']']) {
            return Err("brackets must enclose an IPv6 address, as in [::1]:7000".into());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl Target {
    /// Resolves the host.
    ///
    /// # Errors
    /// If the host cannot be resolved or has no address of that family.
    pub async fn resolve(&self, family: Family) -> io::Result<Resolved> {
        let fail = |why: &dyn Display| io::Error::other(format!("{}: {why}", self.host));
        let all: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| fail(&error))?
            .collect();
        let address = all
            .iter()
            .filter(|address| match family {
                Family::Any => true,
                Family::Ipv4 => address.is_ipv4(),
                Family::Ipv6 => address.is_ipv6(),
            })
            .min_by_key(|address| address.is_ipv6())
            .copied()
            .ok_or_else(|| match family {
                Family::Any => fail(&"the host has no address"),
                Family::Ipv4 => fail(&"the host has no IPv4 address"),
                Family::Ipv6 => fail(&"the host has no IPv6 address"),
            })?;
        Ok(Resolved { address, all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_follow_the_host() {
        let targets = [
            ("localhost", "localhost", 7561),
            ("localhost:7000", "localhost", 7000),
            ("192.0.2.1", "192.0.2.1", 7561),
            ("192.0.2.1:7000", "192.0.2.1", 7000),
            ("::1", "::1", 7561),
            ("[::1]", "::1", 7561),
            ("[::1]:7000", "::1", 7000),
            ("fe80::1%lo", "fe80::1%lo", 7561),
            ("[fe80::1%lo]:7000", "fe80::1%lo", 7000),
        ];
        for (text, host, port) in targets {
            assert_eq!(text.parse(), Ok(Target { host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = ["", ":7561", "host:", "host:0", "host:65536", "host:x", "[::1]7561", "[]:1"];
        let unbalanced = ["[::1", "::1]", "[::1:7000", "[[::1]]", "a[b", "]", "[", "[localhost"];
        for text in wrong.iter().chain(&unbalanced) {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
