//! Checks the sizes of the socket buffers.

use std::io;

use super::diagnosis::Diagnosis;
use crate::machine::{Machine, set_sysctl};
use crate::net::{self, Buffers};
use crate::status;

/// `CAP_NET_ADMIN` of `linux/capability.h`, which lifts the limits on buffer sizes.
const NET_ADMIN: u32 = 12;

/// A restart is necessary because a socket keeps the size granted when it was opened.
const RESTART: &str = "sudo systemctl restart wakeupd\n# in a container: docker restart wakeupd";

/// The facts about one of the two buffers.
struct Buffer {
    check: &'static str,
    /// The kernel parameter that limits the size.
    limit_name: &'static str,
    wanted: usize,
    /// The size reported by the running daemon.
    told: Option<usize>,
    /// The size granted to this process.
    granted: Result<usize, String>,
    /// `None` if the parameter is not visible, as in containers on older kernels.
    limit: Result<Option<usize>, String>,
    /// Whether the daemon may exceed the limit.
    is_privileged: bool,
    /// The consequence of a small buffer.
    why: &'static str,
}

/// Requests buffers as the daemon does. `daemon` is the pid of the running daemon, and `told` its report.
pub(super) fn check(
    machine: &Machine,
    daemon: Option<u32>,
    told: Option<&status::Buffers>,
) -> [Diagnosis; 2] {
    let granted = net::granted_buffers();
    let granted = |of: fn(&Buffers) -> usize| match &granted {
        Ok(buffers) => Ok(of(buffers)),
        Err(error) => Err(format!("no socket can be opened: {error}")),
    };
    let limit = |name: &str| {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        machine.number_if_any(&path).map_err(|error| error.to_string())
    };
    // Only the daemon's privileges count: the service has none even if root runs the doctor.
    let is_privileged = daemon.is_some_and(|pid| is_privileged(machine, pid).unwrap_or(false));
    [
        judge(Buffer {
            check: "receive buffer",
            limit_name: "net.core.rmem_max",
            wanted: net::BUFFERS.receive,
            told: told.map(|buffers| buffers.receive_bytes),
            granted: granted(|buffers| buffers.receive),
            limit: limit("net.core.rmem_max"),
            is_privileged,
            why: "heartbeats that arrive while the buffer is full are lost, and a client that loses all its heartbeats gets no more pings",
        }),
        judge(Buffer {
            check: "send buffer",
            limit_name: "net.core.wmem_max",
            wanted: net::BUFFERS.send,
            told: told.map(|buffers| buffers.send_bytes),
            granted: granted(|buffers| buffers.send),
            limit: limit("net.core.wmem_max"),
            is_privileged,
            why: "pings that are due while it is full are not sent",
        }),
    ]
}

fn is_privileged(machine: &Machine, pid: u32) -> io::Result<bool> {
    let path = format!("proc/{pid}/status");
    let status = machine.text(&path)?;
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let capabilities = capabilities.ok_or_else(|| machine.malformed(&path, &status))?;
    Ok(capabilities & (1 << NET_ADMIN) != 0)
}

fn judge(buffer: Buffer) -> Diagnosis {
    let Buffer { check, limit_name, wanted, told, granted, limit, is_privileged, why } = buffer;
    let raise = format!(
        "{}\n# in a container, run that on its host\n{RESTART}",
        set_sysctl(limit_name, wanted)
    );
    let wants = format!("of the {wanted} bytes that the daemon asks for");
    match told {
        Some(told) if told >= wanted => {
            return Diagnosis::ok(check, format!("the running wakeupd has all {wanted} bytes"));
        }
        Some(told) => {
            let seen = format!("the running wakeupd has {told} {wants}");
            return match limit {
                Ok(Some(limit)) if limit >= wanted => Diagnosis::finding(
                    check,
                    format!("{seen}, though by now {limit_name} is {limit}"),
                    why,
                    RESTART,
                ),
                _ => Diagnosis::finding(check, seen, why, raise),
            };
        }
        None => {}
    }
    let granted = match granted {
        Ok(granted) => granted,
        Err(error) => return Diagnosis::unknown(check, error),
    };
    let finding = |seen: String| Diagnosis::finding(check, seen, why, raise);
    match limit {
        _ if is_privileged => Diagnosis::ok(
            check,
            format!("the running wakeupd may exceed {limit_name}, because it has CAP_NET_ADMIN"),
        ),
        Ok(Some(limit)) if limit < wanted && granted > limit => finding(format!(
            "{limit_name} grants {limit} {wants} (this process may exceed it, having CAP_NET_ADMIN, but a service may not)"
        )),
        Ok(Some(limit)) if limit < wanted => {
            finding(format!("{limit_name} grants {granted} {wants}"))
        }
        Err(error) => Diagnosis::unknown(check, error),
        Ok(_) if granted < wanted => finding(format!("a socket gets {granted} {wants}")),
        Ok(Some(limit)) => Diagnosis::ok(
            check,
            format!("a socket gets all {wanted} bytes ({limit_name} is {limit})"),
        ),
        Ok(None) => Diagnosis::ok(check, format!("a socket gets all {wanted} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn what_a_service_gets_is_what_counts() {
        let (known, hidden) = (|limit| Ok(Some(limit)), Ok(None));
        let cases = [
            (Ok(800), known(800), false, Outcome::Ok, "all 800 bytes (net.core.rmem_max is 800)"),
            (Ok(800), known(900), false, Outcome::Ok, "all 800 bytes"),
            (Ok(200), known(200), false, Outcome::Finding, "rmem_max grants 200 of the 800 bytes"),
            (
                Ok(800),
                known(200),
                false,
                Outcome::Finding,
                "200 of the 800 bytes that the daemon asks for (this process may exceed",
            ),
            (Ok(800), known(200), true, Outcome::Ok, "may exceed net.core.rmem_max"),
            (Ok(800), hidden.clone(), false, Outcome::Ok, "all 800 bytes"),
            (Ok(200), hidden, false, Outcome::Finding, "a socket gets 200 of the 800 bytes"),
            (Ok(200), known(900), false, Outcome::Finding, "a socket gets 200 of the 800 bytes"),
            (Err("no socket".into()), known(900), false, Outcome::Unknown, "no socket"),
            (Ok(800), Err("nonsense".into()), false, Outcome::Unknown, "nonsense"),
        ];
        for (granted, limit, is_privileged, outcome, seen) in cases {
            let diagnosis = judge(Buffer {
                check: "receive buffer",
                limit_name: "net.core.rmem_max",
                wanted: 800,
                told: None,
                granted,
                limit,
                is_privileged,
                why: "",
            });
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.seen.contains(seen), "{diagnosis:?}");
            let mend = diagnosis.mend.unwrap_or_default();
            let is_told = mend.contains("echo \"net.core.rmem_max = 800\" >>");
            assert_eq!(is_told, outcome == Outcome::Finding, "{mend}");
        }
    }

    #[test]
    fn what_the_running_daemon_has_it_keeps() {
        for (told, limit, outcome, mend) in [
            (800, Ok(Some(100)), Outcome::Ok, ""),
            (400, Ok(Some(800)), Outcome::Finding, "sudo systemctl restart wakeupd\n"),
            (400, Ok(Some(400)), Outcome::Finding, "echo \"net.core.wmem_max = 800\" >>"),
            (400, Ok(None), Outcome::Finding, "echo \"net.core.wmem_max = 800\" >>"),
        ] {
            let diagnosis = judge(Buffer {
                check: "send buffer",
                limit_name: "net.core.wmem_max",
                wanted: 800,
                told: Some(told),
                granted: Ok(800),
                limit,
                is_privileged: true,
                why: "",
            });
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.mend.unwrap_or_default().contains(mend), "{told}");
        }
    }

    #[test]
    fn the_limit_and_the_daemons_capabilities_are_read() {
        let fake = Fake::new(&[
            ("proc/sys/net/core/rmem_max", "1\n"),
            ("proc/sys/net/core/wmem_max", "many\n"),
            ("proc/8/status", "Name:\twakeupd\nCapEff:\t000001fffeffffff\n"),
            ("proc/9/status", "Name:\twakeupd\nCapEff:\t00000000fffeffff\nCapBnd:\t0\n"),
            ("proc/10/status", "Name:\twakeupd\nCapEff:\t0000000000000400\n"),
            ("proc/11/status", "Name:\twakeupd\n"),
        ]);
        let outcomes = |daemon| check(&fake.0, daemon, None).map(|diagnosis| diagnosis.result);
        for unprivileged in [None, Some(10), Some(11), Some(12)] {
            assert_eq!(outcomes(unprivileged), [Outcome::Finding, Outcome::Unknown]);
        }
        for privileged in [8, 9] {
            assert_eq!(outcomes(Some(privileged)), [Outcome::Ok, Outcome::Ok]);
        }
    }
}
