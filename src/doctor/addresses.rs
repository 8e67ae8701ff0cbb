//! Checks the machine's addresses and how `HOST` selects among them.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::diagnosis::Diagnosis;
use super::words::list;
use crate::catalogue::machine;
use crate::net::socket_address;

const CHECK: &str = "addresses";

/// An address of an interface that is up and is not the loopback interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) interface: String,
    pub(super) ip: IpAddr,
}

/// Lists the addresses of this machine at which clients can reach it.
pub(super) fn locals() -> io::Result<Vec<Local>> {
    let is_of_use = |flags: InterfaceFlags| {
        flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
    };
    let addresses = getifaddrs()?.filter(|address| is_of_use(address.flags));
    Ok(addresses
        .filter_map(|address| {
            let ip = socket_address(address.address.as_ref()?)?.ip();
            // An address label follows the colon.
            let interface = address.interface_name.split(':').next()?.to_owned();
            Some(Local { interface, ip })
        })
        .collect())
}

/// The addresses to which `HOST` resolves.
#[derive(Debug)]
pub(super) struct Host {
    /// The address that the daemon binds: the first IPv4 one if there is any.
    pub(super) bound: SocketAddr,
    /// The other addresses of the name, which the daemon does not bind.
    pub(super) others: Vec<IpAddr>,
}

impl Host {
    /// Resolves `HOST` as the daemon does at startup.
    pub(super) fn resolve(name: &str, port: u16) -> io::Result<Self> {
        let all: Vec<_> = match name.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip.to_canonical(), port)],
            Err(_) => (name, port).to_socket_addrs()?.collect(),
        };
        Self::new(&all).ok_or_else(|| io::Error::other("the name has no address"))
    }

    pub(super) fn new(all: &[SocketAddr]) -> Option<Self> {
        let bound = *all.iter().min_by_key(|address| address.is_ipv6())?;
        let mut others: Vec<_> =
            all.iter().map(SocketAddr::ip).filter(|ip| *ip != bound.ip()).collect();
        others.dedup();
        Some(Self { bound, others })
    }

    /// Binds the address on a port of the system's choice.
    pub(super) fn bind(&self) -> io::Result<()> {
        let mut address = self.bound;
        address.set_port(0);
        UdpSocket::bind(address).map(drop)
    }
}

/// Judges `HOST` on this machine. `bind` is the outcome of a trial bind.
pub(super) fn judge(
    name: &str,
    host: &io::Result<Host>,
    bind: &io::Result<()>,
    locals: &io::Result<Vec<Local>>,
) -> Diagnosis {
    let Host { bound, others, .. } = match host {
        Ok(host) => host,
        Err(error) => {
            let problem = machine::HOST_UNRESOLVED.with(&[("host", &name), ("error", error)]);
            return Diagnosis::finding(CHECK, problem);
        }
    };
    let ip = bound.ip();
    if let Err(error) = bind {
        let problem = machine::HOST_UNAVAILABLE.with(&[("ip", &ip), ("error", error)]);
        return Diagnosis::finding(CHECK, problem);
    }
    if !others.is_empty() {
        let values: [(&str, &dyn Display); 3] =
            [("host", &name), ("ip", &ip), ("others", &texts(others))];
        return Diagnosis::finding(CHECK, machine::HOST_AMBIGUOUS.with(&values));
    }
    // A machine's own name, which /etc/hosts often maps to 127.0.1.1, is not meant as loopback.
    let is_meant = name == "localhost" || name.parse::<IpAddr>().is_ok();
    if ip.is_loopback() && !is_meant {
        let problem = machine::HOST_LOOPBACK.with(&[("host", &name), ("ip", &ip)]);
        return Diagnosis::finding(CHECK, problem);
    }
    match locals {
        Ok(locals) => Diagnosis::ok(CHECK, served(name, ip, locals)),
        Err(error) => Diagnosis::unknown(CHECK, format!("cannot list the interfaces: {error}")),
    }
}

/// Describes which of the machine's addresses a daemon that binds `ip` serves.
fn served(name: &str, ip: IpAddr, locals: &[Local]) -> String {
    let (served, unserved): (Vec<_>, Vec<_>) =
        locals.iter().map(|local| local.ip).filter(|ip| !is_link_local(*ip)).partition(|local| {
            ip == *local || ip.is_unspecified() && (ip.is_ipv6() || local.is_ipv4())
        });
    let seen = if ip.is_loopback() || ip.is_unspecified() && served.is_empty() {
        format!("HOST={name} serves only clients on this machine")
    } else if ip.is_unspecified() {
        let from = match served.len() {
            0 | 1 => "",
            _ => "; pings leave from the address that the client sends to",
        };
        format!("HOST={name} serves {}{from}", texts(&served))
    } else {
        format!("HOST={name} serves only {ip}")
    };
    let has_v4 = unserved.iter().any(IpAddr::is_ipv4);
    if ip.is_loopback() || unserved.is_empty() {
        seen
    } else if has_v4 || !ip.is_unspecified() {
        format!("{seen}; clients that send to {} get no pings", texts(&unserved))
    } else {
        format!("{seen}; to serve IPv6 ({}) too, set HOST=::", texts(&unserved))
    }
}

fn texts(ips: &[IpAddr]) -> String {
    list(&ips.iter().map(IpAddr::to_string).collect::<Vec<_>>())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;

    fn local(ip: &str) -> Local {
        Local { interface: "eth0".to_owned(), ip: ip.parse().unwrap() }
    }

    fn judged(name: &str, all: &[&str], locals: &[&str]) -> (Outcome, String) {
        let all: Vec<_> = all.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 7561)).collect();
        let host = Host::new(&all).ok_or_else(|| io::Error::other("unknown name"));
        let locals = Ok(locals.iter().map(|ip| local(ip)).collect());
        let diagnosis = judge(name, &host, &Ok(()), &locals);
        (diagnosis.result, diagnosis.seen)
    }

    #[test]
    fn the_served_addresses_are_listed() {
        let two = ["192.0.2.1", "10.0.0.1", "fe80::1"];
        let both = ["192.0.2.1", "2001:db8::1", "fe80::1"];
        for (host, locals, seen) in [
            (
                "0.0.0.0",
                &two[..],
                "HOST=0.0.0.0 serves 192.0.2.1 and 10.0.0.1; pings leave from the address that the client sends to",
            ),
            ("0.0.0.0", &two[..1], "HOST=0.0.0.0 serves 192.0.2.1"),
            ("0.0.0.0", &[], "HOST=0.0.0.0 serves only clients on this machine"),
            ("::", &[], "HOST=:: serves only clients on this machine"),
            ("::1", &both, "HOST=::1 serves only clients on this machine"),
            (
                "0.0.0.0",
                &both,
                "HOST=0.0.0.0 serves 192.0.2.1; to serve IPv6 (2001:db8::1) too, set HOST=::",
            ),
            (
                "::",
                &both,
                "HOST=:: serves 192.0.2.1 and 2001:db8::1; pings leave from the address that the client sends to",
            ),
            (
                "10.0.0.1",
                &two,
                "HOST=10.0.0.1 serves only 10.0.0.1; clients that send to 192.0.2.1 get no pings",
            ),
            ("10.0.0.1", &two[1..], "HOST=10.0.0.1 serves only 10.0.0.1"),
            ("127.0.0.1", &both, "HOST=127.0.0.1 serves only clients on this machine"),
        ] {
            assert_eq!(judged(host, &[host], locals), (Outcome::Ok, seen.to_owned()));
        }
    }

    #[test]
    fn an_ambiguous_or_unresolvable_host_name_is_a_finding() {
        let all = ["::1", "127.0.0.1", "::1", "::1"];
        let (outcome, seen) = judged("localhost", &all, &[]);
        assert_eq!(outcome, Outcome::Finding);
        let expected = "resolves to 127.0.0.1 and ::1, but the daemon binds only 127.0.0.1.";
        assert!(seen.ends_with(expected), "{seen}");
        let same = ["127.0.0.1", "127.0.0.1"];
        assert_eq!(judged("localhost", &same, &[]).0, Outcome::Ok);
        assert_eq!(judged("nowhere", &[], &[]).0, Outcome::Finding);
        let (outcome, seen) = judged("box", &["127.0.1.1"], &["192.0.2.1"]);
        let expected = "HOST=box resolves to the loopback address 127.0.1.1.";
        assert_eq!((outcome, seen.as_str()), (Outcome::Finding, expected));
    }

    #[test]
    fn a_failed_bind_is_a_finding_but_unreadable_interfaces_are_not() {
        let host = Ok(Host::resolve("192.0.2.1", 7561).unwrap());
        let error = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let diagnosis = judge("192.0.2.1", &host, &Err(error()), &Ok(Vec::new()));
        assert_eq!(diagnosis.result, Outcome::Finding);
        assert!(
            diagnosis.seen.starts_with("The address 192.0.2.1 of HOST cannot be bound: "),
            "{diagnosis:?}"
        );
        let diagnosis = judge("192.0.2.1", &host, &Ok(()), &Err(error()));
        assert_eq!(diagnosis.result, Outcome::Unknown);
    }

    #[test]
    fn a_resolved_address_of_this_machine_can_be_bound() {
        assert!(locals().unwrap().iter().all(|local| !local.ip.is_loopback()));
        let host = Host::resolve("::ffff:127.0.0.1", 7561).unwrap();
        assert_eq!(host.bound, ([127, 0, 0, 1], 7561).into());
        host.bind().unwrap();
        assert!(Host::resolve("no host", 1).is_err());
    }
}
