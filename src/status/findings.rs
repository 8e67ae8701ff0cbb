//! Detects the daemon's problems.

use serde::{Deserialize, Serialize};

use super::{Buffers, Clients, DenyFile, FailedRead, Snapshot};
use crate::catalogue::{Occurrence, Problem, Severity, daemon};
use crate::engine::guard::Refused;
use crate::machine::set_sysctl;
use crate::metrics::{LATENESS_BOUNDS, Totals};
use crate::net::SendFailure;
use crate::output::{counted, grouped};

/// The index of the histogram bound above which a ping is late: clients that expect one ping a second notice
/// the delay.
const LATE_BOUND: usize = 6;

/// Fewer late or failed pings than this in a minute are not worth a finding.
const SOME: u64 = 10;

/// A problem with the daemon, in the words of the [catalogue](crate::catalogue).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable identifier for the kind of problem.
    pub id: String,
    /// How urgent the problem is.
    pub severity: Severity,
    /// The fact and its consequence.
    pub summary: String,
    /// The remedy.
    pub advice: String,
    /// The path of the document about this problem, with the anchor of its section.
    pub more: String,
}

impl From<Occurrence> for Finding {
    fn from(occurrence: Occurrence) -> Self {
        let problem = occurrence.problem;
        Self {
            id: problem.id.to_owned(),
            severity: problem.severity,
            summary: format!("{} {}", occurrence.summary, occurrence.impact),
            advice: occurrence.advice(),
            more: problem.more(),
        }
    }
}

/// The inputs of [`find`].
#[derive(Debug)]
pub struct Seen<'a> {
    /// The names of the tasks with a stalled loop.
    pub stuck: &'a [String],
    /// The sizes of the socket buffers.
    pub buffers: &'a Buffers,
    /// The number of clients and its cap.
    pub clients: &'a Clients,
    /// The snapshot file, if snapshots are enabled.
    pub snapshot: Option<&'a Snapshot>,
    /// The reads of `DENY_FILE`, if one is set.
    pub deny_file: Option<&'a DenyFile>,
    /// Clients without an entry in the table of local addresses because the table is full.
    pub clients_without_local_address: u32,
    /// Whether the guard enforces its rules.
    pub is_enforcing: bool,
    /// The counters of the last minute.
    pub recent: &'a Totals,
}

/// Returns all findings, the most severe first.
#[must_use]
pub fn find(seen: &Seen) -> Vec<Finding> {
    occurrences(seen).into_iter().map(Finding::from).collect()
}

fn occurrences(seen: &Seen) -> Vec<Occurrence> {
    let judges = [
        stuck,
        pings_skipped,
        receive_drops,
        pings_failed,
        clients_near_cap,
        clients_turned_away,
        local_addresses_full,
        pings_late,
        control_truncated,
        snapshot_old,
        snapshot_unused,
        deny_file_stale,
        receive_buffer_small,
        send_buffer_small,
        not_enforcing,
    ];
    let mut found: Vec<_> = judges.iter().filter_map(|judge| judge(seen)).collect();
    found.sort_by_key(|occurrence| occurrence.problem.severity);
    found
}

fn stuck(seen: &Seen) -> Option<Occurrence> {
    let is_stuck = !seen.stuck.is_empty();
    is_stuck.then(|| daemon::STUCK.with(&[("tasks", &seen.stuck.join(", "))]))
}

fn pings_skipped(seen: &Seen) -> Option<Occurrence> {
    let skipped = seen.recent.skipped_pings;
    (skipped > 0).then(|| {
        daemon::PINGS_SKIPPED.with(&[
            ("pings", &counted(skipped, "ping", "pings")),
            ("percent", &format_args!("{:.1}", seen.recent.short_percent())),
        ])
    })
}

fn receive_drops(seen: &Seen) -> Option<Occurrence> {
    let drops = seen.recent.receive_drops;
    let Buffers { receive_bytes, wanted_receive_bytes, .. } = *seen.buffers;
    (drops > 0).then(|| {
        let datagrams = counted(drops, "datagram", "datagrams");
        if receive_bytes < wanted_receive_bytes {
            let raise = set_sysctl("net.core.rmem_max", wanted_receive_bytes);
            daemon::RECEIVE_DROPS_SMALL_BUFFER.with(&[("datagrams", &datagrams), ("raise", &raise)])
        } else {
            daemon::RECEIVE_DROPS.with(&[("datagrams", &datagrams)])
        }
    })
}

fn pings_failed(seen: &Seen) -> Option<Occurrence> {
    let failed = seen.recent.failed_pings();
    if failed < SOME || failed * 100 < failed + seen.recent.pings {
        return None;
    }
    let most = SendFailure::ALL
        .into_iter()
        .max_by_key(|failure| seen.recent.failed_pings[*failure as usize])?;
    let pings = counted(failed, "ping", "pings");
    Some(most.problem().with(&[("pings", &pings), ("reason", &most.label())]))
}

fn clients_near_cap(seen: &Seen) -> Option<Occurrence> {
    let Clients { max, .. } = *seen.clients;
    let total = seen.clients.total() as u64;
    let refused = seen.recent.refused[Refused::MaxClients as usize];
    if refused == 0 && total * 5 <= u64::from(max) * 4 {
        return None;
    }
    let (total, max) = (grouped(total), grouped(max.into()));
    if refused == 0 {
        return Some(daemon::CLIENTS_NEAR_CAP.with(&[("clients", &total), ("max", &max)]));
    }
    let problem =
        if seen.is_enforcing { daemon::CLIENTS_AT_CAP } else { daemon::CLIENTS_ABOVE_CAP };
    let heartbeats = counted(refused, "heartbeat", "heartbeats");
    Some(problem.with(&[("clients", &total), ("max", &max), ("heartbeats", &heartbeats)]))
}

fn clients_turned_away(seen: &Seen) -> Option<Occurrence> {
    let caps = [Refused::MaxClientsPerAddress, Refused::MaxClientsPerPrefix];
    let refused: u64 = caps.iter().map(|cap| seen.recent.refused[*cap as usize]).sum();
    if refused == 0 || !seen.is_enforcing {
        return None;
    }
    let heartbeats = counted(refused, "heartbeat", "heartbeats");
    Some(daemon::CLIENTS_TURNED_AWAY.with(&[("heartbeats", &heartbeats)]))
}

fn local_addresses_full(seen: &Seen) -> Option<Occurrence> {
    let clients = seen.clients_without_local_address;
    (clients > 0).then(|| {
        let clients = counted(clients.into(), "client", "clients");
        daemon::LOCAL_ADDRESSES_FULL.with(&[("clients", &clients)])
    })
}

fn pings_late(seen: &Seen) -> Option<Occurrence> {
    let late: u64 = seen.recent.lateness[LATE_BOUND + 1..].iter().sum();
    if late < SOME || late * 100 < seen.recent.pings {
        return None;
    }
    let limit = LATENESS_BOUNDS[LATE_BOUND].as_millis();
    let pings = counted(late, "ping", "pings");
    Some(daemon::PINGS_LATE.with(&[("pings", &pings), ("limit", &limit)]))
}

fn control_truncated(seen: &Seen) -> Option<Occurrence> {
    let truncated = seen.recent.truncated_control;
    (truncated > 0).then(|| {
        let datagrams = counted(truncated, "datagram", "datagrams");
        daemon::CONTROL_TRUNCATED.with(&[("datagrams", &datagrams)])
    })
}

fn snapshot_old(seen: &Seen) -> Option<Occurrence> {
    let Snapshot { age_seconds, interval_seconds, failure, remedy, .. } = seen.snapshot?;
    if let Some(reason) = failure {
        let remedy = remedy.as_deref().unwrap_or("check the disk of SNAPSHOT_PATH");
        return Some(daemon::SNAPSHOT_FAILED.with(&[("reason", reason), ("remedy", &remedy)]));
    }
    (*age_seconds > 3.0 * interval_seconds)
        .then(|| daemon::SNAPSHOT_OLD.with(&[("age", &format_args!("{age_seconds:.0}"))]))
}

fn snapshot_unused(seen: &Seen) -> Option<Occurrence> {
    let reason = seen.snapshot?.unused.as_ref()?;
    Some(daemon::SNAPSHOT_UNUSED.with(&[("reason", reason)]))
}

fn deny_file_stale(seen: &Seen) -> Option<Occurrence> {
    let DenyFile { read, failure, .. } = seen.deny_file?;
    let FailedRead { reason, line, .. } = failure.as_ref()?;
    Some(deny_file_unread(read.is_some(), reason, *line))
}

/// The problem of a `DENY_FILE` that could not be read. `has_networks` is true if an earlier read succeeded.
/// `line` is the number of the invalid line, or `None` if the content of the file is not the cause.
#[must_use]
pub fn deny_file_unread(has_networks: bool, reason: &str, line: Option<usize>) -> Occurrence {
    let problem = match (has_networks, line) {
        (true, _) => daemon::DENY_FILE_STALE,
        (false, Some(_)) => daemon::DENY_FILE_INVALID,
        (false, None) => daemon::DENY_FILE_UNREAD,
    };
    problem.with(&[("reason", &reason)])
}

fn receive_buffer_small(seen: &Seen) -> Option<Occurrence> {
    let Buffers { receive_bytes, wanted_receive_bytes, .. } = *seen.buffers;
    SocketBuffer::RECEIVE.problem(receive_bytes, wanted_receive_bytes)
}

fn send_buffer_small(seen: &Seen) -> Option<Occurrence> {
    let Buffers { send_bytes, wanted_send_bytes, .. } = *seen.buffers;
    SocketBuffer::SEND.problem(send_bytes, wanted_send_bytes)
}

fn not_enforcing(seen: &Seen) -> Option<Occurrence> {
    (!seen.is_enforcing).then(|| daemon::NOT_ENFORCING.with(&[]))
}

/// One of the two buffers of a socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketBuffer {
    small: Problem,
    /// The kernel parameter that limits the size.
    pub parameter: &'static str,
}

impl SocketBuffer {
    /// The receive buffer.
    pub const RECEIVE: Self =
        Self { small: daemon::RECEIVE_BUFFER_SMALL, parameter: "net.core.rmem_max" };
    /// The send buffer.
    pub const SEND: Self =
        Self { small: daemon::SEND_BUFFER_SMALL, parameter: "net.core.wmem_max" };

    /// The problem with a buffer of `granted` bytes. `None` if the buffer has the `wanted` bytes that the
    /// daemon requests.
    #[must_use]
    pub fn problem(self, granted: usize, wanted: usize) -> Option<Occurrence> {
        (granted < wanted).then(|| {
            self.small.with(&[
                ("granted", &grouped(granted as u64)),
                ("wanted", &grouped(wanted as u64)),
                ("raise", &set_sysctl(self.parameter, wanted)),
            ])
        })
    }
}

#[cfg(test)]
mod tests;
