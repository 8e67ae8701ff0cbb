//! Checks whether the port is free or held by the daemon.

use std::fmt::{self, Display};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::diagnosis::Diagnosis;
use super::sockets::{Holder, Process, Protocol};
use super::user::User;
use super::words::list;
use crate::catalogue::{Occurrence, machine};
use crate::machine::Machine;

/// The prefix of the names of Docker's processes that forward published ports.
const DOCKER_PROXY: &str = "docker-proxy";

/// systemd holds the sockets that it passes to services.
const SYSTEMD: &str = "systemd";

/// Returns the pid of the daemon that holds the port, if there is one.
pub(super) fn daemon(holder: &io::Result<Holder>) -> Option<u32> {
    match holder {
        Ok(Holder::Processes(holders)) => {
            holders.iter().find(|process| process.is_wakeupd).map(|process| process.pid)
        }
        Ok(Holder::Hidden { wakeupd, .. }) => *wakeupd,
        _ => None,
    }
}

/// A port that the daemon needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub(super) check: &'static str,
    /// The setting that selects the port.
    pub(super) variable: &'static str,
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// The port as part of a sentence.
impl Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {} of {}", self.protocol.name(), self.address.port(), self.address.ip())
    }
}

/// If nobody holds `port`, tries to bind it, because the kernel can refuse a port that its socket tables
/// (`/proc/net/udp` and the like) show as free. Returns a diagnosis if `user` cannot bind the port, or if it is
/// unknown whether the service's user can. Returns `None` if `user` can bind the port and, without trying, if the
/// port is 0 or in use or its holder is unknown.
pub(super) fn attempt(
    port: Port,
    holder: &io::Result<Holder>,
    user: User,
    machine: &Machine,
) -> Option<Diagnosis> {
    let number = port.address.port();
    if number == 0 || !matches!(holder, Ok(Holder::Nobody)) {
        return None;
    }
    let bound = match port.protocol {
        Protocol::Udp => UdpSocket::bind(port.address).map(drop),
        Protocol::Tcp => TcpListener::bind(port.address).map(drop),
    };
    let privileged = "proc/sys/net/ipv4/ip_unprivileged_port_start";
    let is_privileged = number < machine.number(privileged).unwrap_or(1024);
    judge_attempt(port, &bound, is_privileged && user.is_impersonated())
}

pub(super) fn judge_attempt(
    port: Port,
    bound: &io::Result<()>,
    needs_more_than_the_user_has: bool,
) -> Option<Diagnosis> {
    let Port { check, variable, .. } = port;
    let error = match bound {
        Ok(()) if needs_more_than_the_user_has => {
            return Some(Diagnosis::unknown(
                check,
                format!(
                    "{port} is free, but only root or a service with CAP_NET_BIND_SERVICE can bind it"
                ),
            ));
        }
        Ok(()) => return None,
        Err(error) => error,
    };
    let problem = match error.kind() {
        io::ErrorKind::PermissionDenied => machine::PORT_PRIVILEGED,
        _ => machine::PORT_UNAVAILABLE,
    };
    let values: [(&str, &dyn Display); 3] =
        [("port", &port), ("error", error), ("variable", &variable)];
    Some(Diagnosis::finding(check, problem.with(&values)))
}

/// Judges the holder of a port. `may_hold` decides whether a process is allowed to hold the port.
pub(super) fn judge(
    port: Port,
    holder: &io::Result<Holder>,
    may_hold: impl Fn(&Process) -> bool,
) -> Diagnosis {
    let Port { check, variable, protocol, address } = port;
    if address.port() == 0 {
        return Diagnosis::ok(
            check,
            format!("{variable} lets the system choose a {} port", protocol.name()),
        );
    }
    let holders = match holder {
        Ok(Holder::Nobody) => {
            return Diagnosis::ok(check, format!("{port} is free"));
        }
        Ok(Holder::Hidden { uid, wakeupd }) => {
            let perhaps = wakeupd
                .map(|pid| format!(", possibly the wakeupd with pid {pid}"))
                .unwrap_or_default();
            return Diagnosis::unknown(
                check,
                format!(
                    "{port} is in use by a process of user {uid}{perhaps}: run the doctor as root to identify it"
                ),
            );
        }
        Ok(Holder::Processes(holders)) => holders,
        Err(error) => return Diagnosis::unknown(check, error),
    };
    let is_served = holders.iter().any(&may_hold);
    let is_meant = |process: &&Process| may_hold(process) || is_served && process.name == SYSTEMD;
    let others: Vec<_> = holders.iter().filter(|process| !is_meant(process)).collect();
    if others.is_empty() {
        let pids: Vec<_> = holders.iter().map(|process| process.pid.to_string()).collect();
        return Diagnosis::ok(check, format!("wakeupd holds {port}, pid {}", list(&pids)));
    }
    Diagnosis::finding(check, held(port, &others))
}

/// The problem with a port that other processes hold.
fn held(port: Port, others: &[&Process]) -> Occurrence {
    let names: Vec<_> =
        others.iter().map(|Process { pid, name, .. }| format!("{name}, pid {pid}")).collect();
    let pids: Vec<_> = others.iter().map(|process| process.pid.to_string()).collect();
    let (holders, pids) = (list(&names), pids.join(" "));
    let common: [(&str, &dyn Display); 3] =
        [("port", &port), ("holders", &holders), ("variable", &port.variable)];
    let is_there = |name| others.iter().any(|process| process.name == name);
    if is_there(DOCKER_PROXY) {
        machine::PORT_HELD_BY_DOCKER.with(&common)
    } else if is_there(SYSTEMD) {
        machine::PORT_HELD_BY_SYSTEMD.with(&common)
    } else {
        machine::PORT_HELD.with(&[&common[..], &[("pids", &pids)]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;

    fn process(pid: u32, name: &str) -> Process {
        Process { pid, name: name.to_owned(), is_wakeupd: name == "wakeupd" }
    }

    fn judged(port: u16, holder: &io::Result<Holder>) -> (Outcome, String, String) {
        let address = ([0, 0, 0, 0], port).into();
        let port = Port { check: "port", variable: "PORT", protocol: Protocol::Udp, address };
        let diagnosis = judge(port, holder, |process| process.is_wakeupd);
        (diagnosis.result, diagnosis.seen.clone(), diagnosis.mend())
    }

    #[test]
    fn a_port_held_by_another_program_is_a_finding() {
        let holders = |names: &[&str]| {
            Ok(Holder::Processes((7..).zip(names).map(|(pid, name)| process(pid, name)).collect()))
        };
        let hidden = |wakeupd| Ok(Holder::Hidden { uid: 99, wakeupd });
        let cases = [
            (0, holders(&["named"]), Outcome::Ok, "PORT lets the system choose", ""),
            (1, Ok(Holder::Nobody), Outcome::Ok, "UDP port 1 of 0.0.0.0 is free", ""),
            (1, holders(&["wakeupd"]), Outcome::Ok, "wakeupd holds UDP port 1 of 0.0.0.0", ""),
            (1, holders(&["wakeupd"]), Outcome::Ok, "pid 7", ""),
            (
                1,
                holders(&["systemd", "wakeupd"]),
                Outcome::Ok,
                "wakeupd holds UDP port 1 of 0.0.0.0",
                "",
            ),
            (1, holders(&["systemd"]), Outcome::Finding, "in use by systemd", "list-sockets"),
            (1, holders(&["named"]), Outcome::Finding, "in use by named, pid 7.", "\nsudo kill 7"),
            (
                1,
                holders(&["nc", "wakeupd", "dig"]),
                Outcome::Finding,
                "in use by nc, pid 7 and dig, pid 9",
                "\nsudo kill 7 9",
            ),
            (
                1,
                holders(&["docker-proxy"]),
                Outcome::Finding,
                "in use by docker-proxy, pid 7",
                "docker exec",
            ),
            (
                1,
                hidden(Some(5)),
                Outcome::Unknown,
                "user 99, possibly the wakeupd with pid 5: run",
                "",
            ),
            (
                1,
                hidden(None),
                Outcome::Unknown,
                "by a process of user 99: run the doctor as root",
                "",
            ),
            (1, Err(io::Error::other("no /proc")), Outcome::Unknown, "no /proc", ""),
        ];
        for (port, holder, outcome, seen, mend) in cases {
            let judged = judged(port, &holder);
            assert_eq!(judged.0, outcome, "{judged:?}");
            assert!(judged.1.contains(seen) && judged.2.contains(mend), "{judged:?}");
        }
    }

    #[test]
    fn a_port_that_cannot_be_bound_is_a_finding() {
        let address = ([0, 0, 0, 0], 53).into();
        let port = Port { check: "port", variable: "PORT", protocol: Protocol::Udp, address };
        let attempted = |bound: io::Result<()>, is_too_much| {
            judge_attempt(port, &bound, is_too_much).map(|diagnosis| diagnosis.result)
        };
        assert_eq!(attempted(Ok(()), false), None);
        assert_eq!(attempted(Ok(()), true), Some(Outcome::Unknown));
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::AddrInUse] {
            assert_eq!(attempted(Err(kind.into()), true), Some(Outcome::Finding));
        }
    }

    #[test]
    fn the_daemon_is_found_among_the_holders_of_the_port() {
        let holders = vec![process(3, "nc"), process(4, "wakeupd")];
        assert_eq!(daemon(&Ok(Holder::Processes(holders))), Some(4));
        assert_eq!(daemon(&Ok(Holder::Processes(vec![process(3, "nc")]))), None);
        assert_eq!(daemon(&Ok(Holder::Hidden { uid: 1, wakeupd: Some(9) })), Some(9));
        assert_eq!(daemon(&Ok(Holder::Nobody)), None);
        assert_eq!(daemon(&Err(io::ErrorKind::NotFound.into())), None);
    }
}
