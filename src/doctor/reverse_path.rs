//! Checks whether reverse-path filtering can drop heartbeats.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::addresses::Local;
use super::diagnosis::Diagnosis;
use super::words::list;
use crate::catalogue::machine;
use crate::machine::{Machine, if_any, set_sysctl};

const CHECK: &str = "reverse path filter";

/// The strict mode of `rp_filter`, per the kernel's `ip-sysctl` documentation: 0 is off, 2 is loose.
const STRICT: u32 = 1;

/// An interface that can receive heartbeats over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// The effective `rp_filter`: the larger of the values of this interface and of `all`.
    pub(super) filter: u32,
}

/// Checks the interfaces of `locals`.
pub(super) fn check(
    machine: &Machine,
    host: Option<IpAddr>,
    locals: &io::Result<Vec<Local>>,
) -> Diagnosis {
    match host {
        Some(ip) if ip.is_loopback() => {
            return Diagnosis::ok(CHECK, "HOST serves only clients on this machine");
        }
        Some(ip) if ip.is_ipv6() && !ip.is_unspecified() => {
            return Diagnosis::ok(CHECK, "HOST serves only IPv6, which has no reverse-path filter");
        }
        _ => {}
    }
    match locals {
        Ok(locals) => match read(machine, locals) {
            Ok(interfaces) => judge(&interfaces),
            Err(error) => Diagnosis::unknown(CHECK, error),
        },
        Err(error) => Diagnosis::unknown(CHECK, format!("cannot list the interfaces: {error}")),
    }
}

fn read(machine: &Machine, locals: &[Local]) -> io::Result<Vec<Interface>> {
    let filter =
        |name: &str| machine.number::<u32>(&format!("proc/sys/net/ipv4/conf/{name}/rp_filter"));
    let all = filter("all")?;
    let routes = if_any(machine.text("proc/net/route"))?.unwrap_or_default();
    let has_default_route = |name: &str| {
        routes.lines().any(|route| {
            let fields: Vec<_> = route.split_ascii_whitespace().collect();
            matches!(fields[..], [interface, "00000000", _, _, _, _, _, "00000000", ..] if interface == name)
        })
    };
    // A bridge without a default route connects only this machine's containers and virtual machines.
    let is_inside = |name: &str| {
        machine.path(&format!("sys/class/net/{name}/bridge")).exists() && !has_default_route(name)
    };
    let names: BTreeSet<_> =
        locals.iter().filter(|local| local.ip.is_ipv4()).map(|local| &local.interface).collect();
    names
        .into_iter()
        .filter(|name| !is_inside(name))
        .map(|name| Ok(Interface { name: name.clone(), filter: filter(name)?.max(all) }))
        .collect()
}

pub(super) fn judge(interfaces: &[Interface]) -> Diagnosis {
    let names = |interfaces: &[&Interface]| {
        list(&interfaces.iter().map(|interface| interface.name.clone()).collect::<Vec<_>>())
    };
    let all: Vec<_> = interfaces.iter().collect();
    let strict: Vec<_> = interfaces.iter().filter(|interface| interface.filter == STRICT).collect();
    if strict.is_empty() {
        return Diagnosis::ok(
            CHECK,
            format!("the filter is strict on no interface ({})", names(&all)),
        );
    }
    if interfaces.len() == 1 {
        return Diagnosis::ok(
            CHECK,
            format!("the filter is strict, but {} is the only interface", names(&all)),
        );
    }
    let problem = machine::REVERSE_PATH_STRICT.with(&[
        ("strict", &names(&strict)),
        ("interfaces", &names(&all)),
        ("set", &set_sysctl("net.ipv4.conf.all.rp_filter", 2)),
    ]);
    Diagnosis::finding(CHECK, problem)
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    const ROUTES: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
";

    fn locals(addresses: &[(&str, &str)]) -> Vec<Local> {
        let local = |(interface, ip): &(&str, &str)| Local {
            interface: (*interface).to_owned(),
            ip: ip.parse().unwrap(),
        };
        addresses.iter().map(local).collect()
    }

    #[test]
    fn a_strict_filter_with_several_interfaces_is_a_finding() {
        for (filters, outcome, seen) in [
            (&[][..], Outcome::Ok, "the filter is strict on no interface (none)"),
            (&[0], Outcome::Ok, "the filter is strict on no interface (eth0)"),
            (&[1], Outcome::Ok, "eth0 is the only interface"),
            (&[0, 2], Outcome::Ok, "(eth0 and eth1)"),
            (
                &[0, 1],
                Outcome::Finding,
                "on eth1, and heartbeats can arrive on several interfaces: eth0 and eth1.",
            ),
            (&[1, 1], Outcome::Finding, "on eth0 and eth1"),
        ] {
            let interface = |(number, filter): (usize, &u32)| Interface {
                name: format!("eth{number}"),
                filter: *filter,
            };
            let interfaces: Vec<_> = filters.iter().enumerate().map(interface).collect();
            let diagnosis = judge(&interfaces);
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.seen.contains(seen), "{diagnosis:?}");
        }
    }

    #[test]
    fn the_larger_rp_filter_value_applies() {
        let fake = |all, eth0| {
            Fake::new(&[
                ("proc/sys/net/ipv4/conf/all/rp_filter", all),
                ("proc/sys/net/ipv4/conf/eth0/rp_filter", eth0),
            ])
        };
        let locals = locals(&[("eth0", "192.0.2.1"), ("eth0", "192.0.2.2"), ("eth1", "::2")]);
        for (all, eth0, filter) in [("0", "1", 1), ("1", "0", 1), ("2", "1", 2), ("0", "0", 0)] {
            let interfaces = read(&fake(all, eth0).0, &locals).unwrap();
            assert_eq!(interfaces, [Interface { name: "eth0".to_owned(), filter }]);
        }
        assert!(read(&fake("0", "no").0, &locals).is_err());
        let unknown = check(&fake("", "0").0, None, &Ok(locals));
        assert_eq!(unknown.result, Outcome::Unknown);
    }

    #[test]
    fn container_bridges_are_ignored() {
        let fake = Fake::new(&[
            ("proc/sys/net/ipv4/conf/all/rp_filter", "1"),
            ("proc/sys/net/ipv4/conf/eth0/rp_filter", "0"),
            ("proc/sys/net/ipv4/conf/docker0/rp_filter", "0"),
            ("proc/net/route", ROUTES),
            ("sys/class/net/eth0/bridge/x", ""),
            ("sys/class/net/docker0/bridge/x", ""),
        ]);
        let locals = Ok(locals(&[("eth0", "192.0.2.1"), ("docker0", "172.17.0.1")]));
        let diagnosis = check(&fake.0, None, &locals);
        assert_eq!(diagnosis.seen, "the filter is strict, but eth0 is the only interface");
        for (host, seen) in [
            ("0.0.0.0", "only interface"),
            ("::", "only interface"),
            ("2001:db8::1", "only IPv6"),
            ("127.0.0.1", "only clients on this machine"),
            ("::1", "only clients on this machine"),
        ] {
            let diagnosis = check(&fake.0, Some(host.parse().unwrap()), &locals);
            assert!(
                diagnosis.result == Outcome::Ok && diagnosis.seen.contains(seen),
                "{diagnosis:?}"
            );
        }
    }
}
