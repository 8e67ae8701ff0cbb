//! Checks the sizes of the socket buffers.

use std::io;

use super::diagnosis::Diagnosis;
use crate::catalogue::Problem;
use crate::catalogue::machine::{RECEIVE_BUFFER_OUTDATED, SEND_BUFFER_OUTDATED};
use crate::machine::Machine;
use crate::net::{self, Buffers};
use crate::output::grouped;
use crate::status::{self, SocketBuffer};

/// `CAP_NET_ADMIN` of `linux/capability.h`, which lifts the limits on buffer sizes.
const NET_ADMIN: u32 = 12;

/// The facts about one of the two buffers.
pub(super) struct Facts {
    pub(super) check: &'static str,
    pub(super) buffer: SocketBuffer,
    /// The problem if the limit was raised after the running daemon opened its sockets.
    pub(super) outdated: Problem,
    pub(super) wanted: usize,
    /// The size reported by the running daemon. `None` if no daemon reports its status.
    pub(super) told: Option<usize>,
    /// The size granted to this process.
    pub(super) granted: Result<usize, String>,
    /// The kernel's limit. `None` if the parameter is not visible, as in containers on older kernels.
    pub(super) limit: Result<Option<usize>, String>,
    /// Whether the running daemon can exceed the limit, because it has `CAP_NET_ADMIN`.
    pub(super) is_privileged: bool,
}

/// Requests buffers as the daemon does. `daemon` is the pid of the running daemon, and `told` the buffer
/// sizes that it reports, both if known.
pub(super) fn check(
    machine: &Machine,
    daemon: Option<u32>,
    told: Option<&status::Buffers>,
) -> [Diagnosis; 2] {
    let granted = net::granted_buffers();
    let granted = |of: fn(&Buffers) -> usize| match &granted {
        Ok(buffers) => Ok(of(buffers)),
        Err(error) => Err(format!("cannot open a socket: {error}")),
    };
    let limit = |name: &str| {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        machine.number_if_any(&path).map_err(|error| error.to_string())
    };
    // Only the daemon's privileges count: the service has none even if root runs the doctor.
    let is_privileged = daemon.is_some_and(|pid| is_privileged(machine, pid).unwrap_or(false));
    [
        judge(Facts {
            check: "receive buffer",
            buffer: SocketBuffer::RECEIVE,
            outdated: RECEIVE_BUFFER_OUTDATED,
            wanted: net::BUFFERS.receive,
            told: told.map(|buffers| buffers.receive_bytes),
            granted: granted(|buffers| buffers.receive),
            limit: limit(SocketBuffer::RECEIVE.parameter),
            is_privileged,
        }),
        judge(Facts {
            check: "send buffer",
            buffer: SocketBuffer::SEND,
            outdated: SEND_BUFFER_OUTDATED,
            wanted: net::BUFFERS.send,
            told: told.map(|buffers| buffers.send_bytes),
            granted: granted(|buffers| buffers.send),
            limit: limit(SocketBuffer::SEND.parameter),
            is_privileged,
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

pub(super) fn judge(facts: Facts) -> Diagnosis {
    match facts.told {
        Some(told) => judge_running(&facts, told),
        None => judge_before_start(facts),
    }
}

/// Judges the buffer of the running daemon.
fn judge_running(facts: &Facts, told: usize) -> Diagnosis {
    let Facts { check, buffer, outdated, wanted, ref limit, .. } = *facts;
    let Some(problem) = buffer.problem(told, wanted) else {
        return Diagnosis::ok(
            check,
            format!("the running wakeupd has all {} requested bytes", grouped(wanted as u64)),
        );
    };
    let problem = match limit {
        Ok(Some(limit)) if *limit >= wanted => outdated.with(&[
            ("granted", &grouped(told as u64)),
            ("wanted", &grouped(wanted as u64)),
            ("parameter", &buffer.parameter),
            ("limit", &grouped(*limit as u64)),
        ]),
        _ => problem,
    };
    Diagnosis::finding(check, problem)
}

/// Judges the buffer that a daemon would get if it started now.
fn judge_before_start(facts: Facts) -> Diagnosis {
    let Facts { check, buffer, wanted, granted, limit, is_privileged, .. } = facts;
    let parameter = buffer.parameter;
    let (granted, limit) = match (granted, limit) {
        (Ok(granted), Ok(limit)) => (granted, limit),
        (Ok(_), Err(_)) if is_privileged => (wanted, None),
        (Err(error), _) | (_, Err(error)) => return Diagnosis::unknown(check, error),
    };
    if is_privileged {
        return Diagnosis::ok(
            check,
            format!("the running wakeupd can exceed {parameter}, because it has CAP_NET_ADMIN"),
        );
    }
    // This process may have CAP_NET_ADMIN and exceed the limit. A service does not.
    let granted = limit.map_or(granted, |limit| granted.min(limit));
    if let Some(problem) = buffer.problem(granted, wanted) {
        return Diagnosis::finding(check, problem);
    }
    let limit = limit.map(|limit| format!(" ({parameter} is {})", grouped(limit as u64)));
    let (wanted, limit) = (grouped(wanted as u64), limit.unwrap_or_default());
    Diagnosis::ok(check, format!("a new socket gets all {wanted} requested bytes{limit}"))
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn the_buffer_limit_of_an_unprivileged_daemon_applies() {
        let (known, hidden) = (|limit| Ok(Some(limit)), Ok(None));
        let cases = [
            (
                Ok(800),
                known(800),
                false,
                Outcome::Ok,
                "all 800 requested bytes (net.core.rmem_max is 800)",
            ),
            (Ok(800), known(900), false, Outcome::Ok, "all 800 requested bytes"),
            (
                Ok(200),
                known(200),
                false,
                Outcome::Finding,
                "to 200 bytes, but the daemon requests 800",
            ),
            (
                Ok(800),
                known(200),
                false,
                Outcome::Finding,
                "to 200 bytes, but the daemon requests 800",
            ),
            (Ok(800), known(200), true, Outcome::Ok, "can exceed net.core.rmem_max"),
            (Ok(800), hidden.clone(), false, Outcome::Ok, "all 800 requested bytes"),
            (Ok(200), hidden, false, Outcome::Finding, "to 200 bytes"),
            (Ok(200), known(900), false, Outcome::Finding, "to 200 bytes"),
            (Err("no socket".into()), known(900), false, Outcome::Unknown, "no socket"),
            (Ok(800), Err("nonsense".into()), false, Outcome::Unknown, "nonsense"),
        ];
        for (granted, limit, is_privileged, outcome, seen) in cases {
            let diagnosis = judge(Facts {
                check: "receive buffer",
                buffer: SocketBuffer::RECEIVE,
                outdated: RECEIVE_BUFFER_OUTDATED,
                wanted: 800,
                told: None,
                granted,
                limit,
                is_privileged,
            });
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.seen.contains(seen), "{diagnosis:?}");
            let mend = diagnosis.mend();
            let is_told = mend.contains("echo \"net.core.rmem_max = 800\" >>");
            assert_eq!(is_told, outcome == Outcome::Finding, "{mend}");
        }
    }

    #[test]
    fn a_small_buffer_of_the_running_daemon_is_a_finding() {
        for (told, limit, outcome, mend) in [
            (800, Ok(Some(100)), Outcome::Ok, ""),
            (400, Ok(Some(800)), Outcome::Finding, "sudo systemctl restart wakeupd\n"),
            (400, Ok(Some(400)), Outcome::Finding, "echo \"net.core.wmem_max = 800\" >>"),
            (400, Ok(None), Outcome::Finding, "echo \"net.core.wmem_max = 800\" >>"),
        ] {
            let diagnosis = judge(Facts {
                check: "send buffer",
                buffer: SocketBuffer::SEND,
                outdated: SEND_BUFFER_OUTDATED,
                wanted: 800,
                told: Some(told),
                granted: Ok(800),
                limit,
                is_privileged: true,
            });
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.mend().contains(mend), "{told}");
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
