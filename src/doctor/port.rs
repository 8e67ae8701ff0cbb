//! Whether the port is free, or held by a daemon.

use std::io;
use std::net::SocketAddr;

use super::diagnosis::Diagnosis;
use super::sockets::{Holder, Process, Protocol};
use super::words::list;

/// What goes before the name of Docker's process that passes a published port on.
const DOCKER_PROXY: &str = "docker-proxy";

/// The process that holds what it hands over to a service.
const SYSTEMD: &str = "systemd";

/// The daemon that holds the port, if one does.
pub(super) fn daemon(holder: &io::Result<Holder>) -> Option<u32> {
    match holder {
        Ok(Holder::Processes(holders)) => {
            holders.iter().find(|process| process.is_wakeupd).map(|process| process.pid)
        }
        Ok(Holder::Hidden { wakeupd, .. }) => *wakeupd,
        _ => None,
    }
}

/// A port that the daemon wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub(super) check: &'static str,
    /// The variable that names it.
    pub(super) variable: &'static str,
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// Judges who holds a port. `may_hold` tells whether a process may.
pub(super) fn judge(
    port: Port,
    holder: &io::Result<Holder>,
    may_hold: impl Fn(&Process) -> bool,
) -> Diagnosis {
    let Port { check, variable, protocol, address } = port;
    if address.port() == 0 {
        return Diagnosis::ok(
            check,
            format!("{variable} leaves the choice of a {} port to the system", protocol.name()),
        );
    }
    let port_of = format!("{} port {} of {}", protocol.name(), address.port(), address.ip());
    let holders = match holder {
        Ok(Holder::Nobody) => {
            return Diagnosis::ok(check, format!("{port_of} is free"));
        }
        Ok(Holder::Hidden { uid, wakeupd }) => {
            let perhaps = wakeupd
                .map(|pid| format!(", perhaps the wakeupd with pid {pid}"))
                .unwrap_or_default();
            return Diagnosis::unknown(
                check,
                format!(
                    "{port_of} is in use by a process of user {uid}{perhaps}: run this as root to see by which"
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
        return Diagnosis::ok(
            check,
            format!("a wakeupd is running: {port_of} is held by pid {}", list(&pids)),
        );
    }
    let names: Vec<_> =
        others.iter().map(|Process { pid, name, .. }| format!("{name}, pid {pid}")).collect();
    let pids: Vec<_> = others.iter().map(|process| process.pid.to_string()).collect();
    let stop = format!(
        "stop it (`sudo kill {}`, or the service that starts it), or set another {variable}",
        pids.join(" ")
    );
    let is_there = |name| others.iter().any(|process| process.name == name);
    let mend = if is_there(DOCKER_PROXY) {
        format!(
            "if the container behind it is wakeupd, all is well: ask there, `docker exec CONTAINER /wakeupd doctor`\notherwise {stop}"
        )
    } else if is_there(SYSTEMD) {
        format!(
            "if `systemctl list-sockets` says that it is for wakeupd.service, all is well: that takes it over at the first heartbeat\notherwise stop the socket unit, or set another {variable}"
        )
    } else {
        stop
    };
    Diagnosis::finding(
        check,
        format!("{port_of} is held by {}", list(&names)),
        "the daemon shares its port with nobody, so it does not start",
        mend,
    )
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
        (diagnosis.result, diagnosis.seen, diagnosis.mend.unwrap_or_default())
    }

    #[test]
    fn a_daemon_may_hold_it_and_nobody_else() {
        let holders = |names: &[&str]| {
            Ok(Holder::Processes((7..).zip(names).map(|(pid, name)| process(pid, name)).collect()))
        };
        let hidden = |wakeupd| Ok(Holder::Hidden { uid: 99, wakeupd });
        let cases = [
            (0, holders(&["named"]), Outcome::Ok, "PORT leaves the choice", ""),
            (1, Ok(Holder::Nobody), Outcome::Ok, "UDP port 1 of 0.0.0.0 is free", ""),
            (1, holders(&["wakeupd"]), Outcome::Ok, "a wakeupd is running", ""),
            (1, holders(&["wakeupd"]), Outcome::Ok, "pid 7", ""),
            (1, holders(&["systemd", "wakeupd"]), Outcome::Ok, "a wakeupd is running", ""),
            (1, holders(&["systemd"]), Outcome::Finding, "held by systemd", "list-sockets"),
            (1, holders(&["named"]), Outcome::Finding, "held by named, pid 7", "`sudo kill 7`"),
            (
                1,
                holders(&["nc", "wakeupd", "dig"]),
                Outcome::Finding,
                "held by nc, pid 7 and dig, pid 9",
                "`sudo kill 7 9`",
            ),
            (
                1,
                holders(&["docker-proxy"]),
                Outcome::Finding,
                "held by docker-proxy, pid 7",
                "docker exec",
            ),
            (
                1,
                hidden(Some(5)),
                Outcome::Unknown,
                "user 99, perhaps the wakeupd with pid 5: run",
                "",
            ),
            (1, hidden(None), Outcome::Unknown, "by a process of user 99: run this as root", ""),
            (1, Err(io::Error::other("no /proc")), Outcome::Unknown, "no /proc", ""),
        ];
        for (port, holder, outcome, seen, mend) in cases {
            let judged = judged(port, &holder);
            assert_eq!(judged.0, outcome, "{judged:?}");
            assert!(judged.1.contains(seen) && judged.2.contains(mend), "{judged:?}");
        }
    }

    #[test]
    fn the_daemon_is_the_one_that_holds_it() {
        let holders = vec![process(3, "nc"), process(4, "wakeupd")];
        assert_eq!(daemon(&Ok(Holder::Processes(holders))), Some(4));
        assert_eq!(daemon(&Ok(Holder::Processes(vec![process(3, "nc")]))), None);
        assert_eq!(daemon(&Ok(Holder::Hidden { uid: 1, wakeupd: Some(9) })), Some(9));
        assert_eq!(daemon(&Ok(Holder::Nobody)), None);
        assert_eq!(daemon(&Err(io::ErrorKind::NotFound.into())), None);
    }
}
