//! Detects the daemon's problems and describes each with its remedy.

use serde::{Deserialize, Serialize};

use super::{Buffers, Clients, DenyFile, Snapshot};
use crate::engine::guard::Refused;
use crate::machine::set_sysctl;
use crate::metrics::{LATENESS_BOUNDS, Totals};
use crate::net::SendFailure;
use crate::output::{counted, grouped};

/// The index of the histogram bound above which a ping counts as late: clients that expect one ping a second
/// notice the delay.
const LATE_BOUND: usize = 6;

/// Fewer pings than this in a minute are not worth a finding.
const SOME: u64 = 10;

/// A problem with the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable identifier for the kind of problem.
    pub id: String,
    /// The severity.
    pub severity: Severity,
    /// The observation, as a sentence.
    pub summary: String,
    /// The remedy.
    pub advice: String,
    /// The section of the operator's handbook about this problem.
    pub more: String,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients miss pings or are turned away.
    Critical,
    /// Clients may soon miss pings or be turned away.
    Warning,
}

impl Finding {
    fn new(id: &str, severity: Severity, summary: String, advice: impl Into<String>) -> Self {
        let more = format!("docs/operations.md#{}", id.replace('_', "-"));
        Self { id: id.to_owned(), severity, summary, advice: advice.into(), more }
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

/// Returns all findings, worst first.
#[must_use]
pub fn find(seen: &Seen) -> Vec<Finding> {
    let found = [
        stuck(seen),
        pings_skipped(seen),
        receive_drops(seen),
        pings_failed(seen),
        clients_near_cap(seen),
        clients_turned_away(seen),
        local_addresses_full(seen),
        pings_late(seen),
        control_truncated(seen),
        snapshot_old(seen),
        snapshot_unused(seen),
        deny_file_stale(seen),
        buffer_small(
            "receive",
            seen.buffers.receive_bytes,
            seen.buffers.wanted_receive_bytes,
            "net.core.rmem_max",
        ),
        buffer_small(
            "send",
            seen.buffers.send_bytes,
            seen.buffers.wanted_send_bytes,
            "net.core.wmem_max",
        ),
        not_enforcing(seen),
    ];
    let mut findings: Vec<_> = found.into_iter().flatten().collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn stuck(seen: &Seen) -> Option<Finding> {
    if seen.stuck.is_empty() {
        return None;
    }
    Some(Finding::new(
        "stuck",
        Severity::Critical,
        format!("Not a sign of life for more than 3 s from: {}.", seen.stuck.join(", ")),
        "Restart the daemon: `systemctl restart wakeupd` or `docker restart wakeupd`. If it comes back, look at the processor and the memory of the machine.",
    ))
}

fn pings_skipped(seen: &Seen) -> Option<Finding> {
    let skipped_pings = seen.recent.skipped_pings;
    if skipped_pings == 0 {
        return None;
    }
    Some(Finding::new(
        "pings_skipped",
        Severity::Critical,
        format!(
            "Up to {} left out in the last minute, because a worker was a whole second late: the machine was too slow by {:.1} %.",
            counted(skipped_pings, "ping was", "pings were"),
            seen.recent.short_percent()
        ),
        "See with `top -H` which threads use the processor. Give the daemon more processor time, or lower MAX_CLIENTS; `wakeupd-bench` measures the capacity of the machine. After suspend this finding is expected once.",
    ))
}

fn receive_drops(seen: &Seen) -> Option<Finding> {
    let drops = seen.recent.receive_drops;
    if drops == 0 {
        return None;
    }
    let is_small = seen.buffers.receive_bytes < seen.buffers.wanted_receive_bytes;
    Some(Finding::new(
        "receive_drops",
        Severity::Critical,
        format!(
            "The kernel dropped {} in the last minute, because the receive buffer was full.",
            counted(drops, "datagram", "datagrams")
        ),
        if is_small {
            format!(
                "Let the kernel grant a larger buffer: run `{}` on the host and restart the daemon.",
                set_sysctl("net.core.rmem_max", seen.buffers.wanted_receive_bytes)
            )
        } else {
            "The buffer is large, so either the processor is too slow, or a flood hits the port: look at the refused datagrams and at the top prefixes.".to_owned()
        },
    ))
}

fn pings_failed(seen: &Seen) -> Option<Finding> {
    let failed = seen.recent.failed_pings();
    if failed < SOME || failed * 100 < failed + seen.recent.pings {
        return None;
    }
    let most = SendFailure::ALL
        .into_iter()
        .max_by_key(|failure| seen.recent.failed_pings[*failure as usize])?;
    Some(Finding::new(
        "pings_failed",
        Severity::Critical,
        format!(
            "The kernel did not take {} pings in the last minute, mostly for this reason: {}.",
            grouped(failed),
            most.label()
        ),
        most.advice(),
    ))
}

fn clients_near_cap(seen: &Seen) -> Option<Finding> {
    let Clients { max, .. } = *seen.clients;
    let total = seen.clients.total();
    let refused = seen.recent.refused[Refused::MaxClients as usize];
    if refused == 0 && total as u64 * 5 <= u64::from(max) * 4 {
        return None;
    }
    let (severity, consequence) = match (refused, seen.is_enforcing) {
        (0, _) => (Severity::Warning, "At the cap, new clients are refused.".to_owned()),
        (_, true) => (
            Severity::Critical,
            format!(
                "{} refused in the last minute.",
                counted(refused, "heartbeat of a new client was", "heartbeats of new clients were")
            ),
        ),
        (_, false) => (
            Severity::Warning,
            format!("{} would have been refused.", counted(refused, "heartbeat", "heartbeats")),
        ),
    };
    Some(Finding::new(
        "clients_near_cap",
        severity,
        format!(
            "{} of at most {} registered (MAX_CLIENTS). {consequence}",
            grouped(total as u64),
            counted(max.into(), "client", "clients")
        ),
        "If they are yours, set a larger MAX_CLIENTS, after `wakeupd-bench` has told what the machine carries. If not, see the top prefixes, and deny the networks in DENY_FILE.",
    ))
}

fn clients_turned_away(seen: &Seen) -> Option<Finding> {
    let caps = [Refused::MaxClientsPerAddress, Refused::MaxClientsPerPrefix];
    let refused: u64 = caps.iter().map(|cap| seen.recent.refused[*cap as usize]).sum();
    if refused == 0 || !seen.is_enforcing {
        return None;
    }
    Some(Finding::new(
        "clients_turned_away",
        Severity::Warning,
        format!(
            "{} refused in the last minute, because the address or its network has as many clients as it may.",
            counted(refused, "heartbeat was", "heartbeats were")
        ),
        "The log names some of them. If they are yours, behind a NAT, say, set a larger MAX_CLIENTS_PER_ADDRESS or MAX_CLIENTS_PER_PREFIX, or put a gateway of your own into LOCAL_NETS. If not, the cap does its work.",
    ))
}

fn local_addresses_full(seen: &Seen) -> Option<Finding> {
    let clients = seen.clients_without_local_address;
    if clients == 0 {
        return None;
    }
    Some(Finding::new(
        "local_addresses_full",
        Severity::Critical,
        format!(
            "The table of local addresses has no room for {}, so the kernel chooses the source address of their pings.",
            counted(clients.into(), "client", "clients")
        ),
        "A client that expects pings from the address it sends to may not receive them. Set HOST to that address, or route a smaller network to this machine: see `ip route show table local type local`.",
    ))
}

fn pings_late(seen: &Seen) -> Option<Finding> {
    let late: u64 = seen.recent.lateness[LATE_BOUND + 1..].iter().sum();
    if late < SOME || late * 100 < seen.recent.pings {
        return None;
    }
    Some(Finding::new(
        "pings_late",
        Severity::Warning,
        format!(
            "{} pings of the last minute, one in a hundred or more, were later than {} ms.",
            grouped(late),
            LATENESS_BOUNDS[LATE_BOUND].as_millis()
        ),
        "See with `top -H` which other threads use the processor, and whether the machine is throttled (`st` in `top`).",
    ))
}

fn control_truncated(seen: &Seen) -> Option<Finding> {
    let truncated = seen.recent.truncated_control;
    if truncated == 0 {
        return None;
    }
    Some(Finding::new(
        "control_truncated",
        Severity::Warning,
        format!(
            "The kernel cut off the control messages of {} in the last minute. Pings to these clients may leave from an address that they did not call.",
            counted(truncated, "datagram", "datagrams")
        ),
        "The handed-over socket reports more with each datagram than the daemon has room for. Remove options such as PassSecurity= from wakeupd.socket and restart both units.",
    ))
}

fn buffer_small(which: &str, granted: usize, wanted: usize, parameter: &str) -> Option<Finding> {
    if granted >= wanted {
        return None;
    }
    Some(Finding::new(
        &format!("{which}_buffer_small"),
        Severity::Warning,
        format!(
            "The kernel granted a {which} buffer of {granted} bytes, where {wanted} were asked for, so bursts may be lost."
        ),
        format!("Run `{}` on the host and restart the daemon.", set_sysctl(parameter, wanted)),
    ))
}

fn snapshot_old(seen: &Seen) -> Option<Finding> {
    let snapshot = seen.snapshot?;
    let is_old = snapshot.age_seconds > 3.0 * snapshot.interval_seconds;
    if snapshot.failure.is_none() && !is_old {
        return None;
    }
    let reason = match &snapshot.failure {
        Some(failure) => format!("it cannot be written ({failure})"),
        None => "the disk is slow or does not answer".to_owned(),
    };
    let advice = match &snapshot.remedy {
        Some(remedy) => format!("To end this, {remedy}."),
        None => "Look with `findmnt` and in the log of the kernel (`dmesg`) for trouble with the disk of SNAPSHOT_PATH.".to_owned(),
    };
    Some(Finding::new(
        "snapshot_old",
        Severity::Warning,
        format!(
            "The snapshot is {:.0} s old, because {reason}. A restart would forget the clients that registered since.",
            snapshot.age_seconds
        ),
        advice + " Pings do not suffer.",
    ))
}

fn snapshot_unused(seen: &Seen) -> Option<Finding> {
    let reason = seen.snapshot?.unused.as_ref()?;
    Some(Finding::new(
        "snapshot_unused",
        Severity::Warning,
        format!(
            "The daemon started without the clients of its snapshot, because {reason}. Each gets pings again from its next heartbeat on."
        ),
        "Look for the file beside SNAPSHOT_PATH with the ending .bad, or at SNAPSHOT_PATH if it could not be moved. `wakeupd snapshot show` says whether it can be read. This finding ends an hour after the start.",
    ))
}

fn deny_file_stale(seen: &Seen) -> Option<Finding> {
    let DenyFile { read, failure, .. } = seen.deny_file?;
    let failure = failure.as_ref()?;
    let (severity, summary, advice) = match read {
        Some(read) => (
            Severity::Warning,
            format!(
                "DENY_FILE could not be read at {} ({}), so the networks read at {read} stay denied. A restart would lose them.",
                failure.time, failure.reason
            ),
            "Correct the file, then send SIGHUP: `systemctl reload wakeupd`. The log has the text of a wrong line.".to_owned(),
        ),
        None => (
            Severity::Critical,
            format!(
                "DENY_FILE has not been read since the start ({}), so none of its networks is denied.",
                failure.reason
            ),
            format!(
                "{} The daemon keeps trying, and applies the file as soon as it can read it.",
                match failure.line {
                    Some(_) => "Correct the file. The log has the text of the wrong line.",
                    None =>
                        "Check the disk of DENY_FILE with `findmnt` and in the log of the kernel (`dmesg`).",
                }
            ),
        ),
    };
    Some(Finding::new("deny_file_stale", severity, summary, advice))
}

fn not_enforcing(seen: &Seen) -> Option<Finding> {
    if seen.is_enforcing {
        return None;
    }
    Some(Finding::new(
        "not_enforcing",
        Severity::Warning,
        "GUARD_MODE is observe, so no source is refused, and a forger can make the daemon ping any address."
            .to_owned(),
        "Read what it would refuse, and then set GUARD_MODE=enforce.",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::FailedRead;
    use super::*;
    use crate::metrics::LATENESS_BUCKETS;

    fn found(
        change: impl FnOnce(&mut Buffers, &mut Clients, &mut Totals),
    ) -> Vec<(String, Severity)> {
        let mut buffers = Buffers {
            receive_bytes: 8,
            wanted_receive_bytes: 8,
            send_bytes: 4,
            wanted_send_bytes: 4,
        };
        let mut clients = Clients { ipv4: 40, ipv6: 40, max: 100 };
        let mut recent = Totals::default();
        recent.lateness[0] = 100_000;
        recent.served_slots = 100;
        change(&mut buffers, &mut clients, &mut recent);
        recent.pings = recent.lateness.iter().sum();
        let seen = Seen {
            stuck: &[],
            buffers: &buffers,
            clients: &clients,
            snapshot: None,
            deny_file: None,
            clients_without_local_address: 0,
            is_enforcing: true,
            recent: &recent,
        };
        find(&seen).into_iter().map(|finding| (finding.id, finding.severity)).collect()
    }

    fn only(id: &str, severity: Severity) -> Vec<(String, Severity)> {
        vec![(id.to_owned(), severity)]
    }

    #[test]
    fn all_may_be_well() {
        assert_eq!(found(|_, _, _| {}), []);
    }

    #[test]
    fn what_is_wrong_is_found_and_what_is_hardly_so_is_not() {
        let critical = |id| only(id, Severity::Critical);
        let warning = |id| only(id, Severity::Warning);
        assert_eq!(found(|_, _, recent| recent.skipped_pings = 1), critical("pings_skipped"));
        assert_eq!(found(|_, _, recent| recent.receive_drops = 1), critical("receive_drops"));
        assert_eq!(found(|_, _, recent| recent.failed_pings[1] = 1_011), critical("pings_failed"));
        assert_eq!(found(|_, _, recent| recent.failed_pings[1] = 1_010), []);
        assert_eq!(found(|_, _, recent| recent.lateness[7] = 1_011), warning("pings_late"));
        assert_eq!(found(|_, _, recent| recent.lateness[7] = 1_010), []);
        assert_eq!(found(|_, _, recent| recent.lateness[6] = 9_999), []);
        let truncated = found(|_, _, recent| recent.truncated_control = 1);
        assert_eq!(truncated, warning("control_truncated"));
        assert_eq!(found(|_, clients, _| clients.ipv6 = 41), warning("clients_near_cap"));
        let [max_clients, per_prefix] =
            [Refused::MaxClients, Refused::MaxClientsPerPrefix].map(|reason| reason as usize);
        let turned_away = found(|_, _, recent| recent.refused[per_prefix] = 1);
        assert_eq!(turned_away, warning("clients_turned_away"));
        assert_eq!(found(|_, _, recent| recent.skipped_slots = 1), []);
        let few = |recent: &mut Totals| {
            recent.lateness = [0; LATENESS_BUCKETS];
            (recent.lateness[7], recent.failed_pings[1]) = (9, 9);
        };
        assert_eq!(found(|_, _, recent| few(recent)), []);
        assert_eq!(
            found(|_, _, recent| recent.refused[max_clients] = 1),
            critical("clients_near_cap")
        );
        assert_eq!(
            found(|buffers, _, _| buffers.receive_bytes = 7),
            warning("receive_buffer_small")
        );
        assert_eq!(found(|buffers, _, _| buffers.send_bytes = 3), warning("send_buffer_small"));
    }

    #[test]
    fn the_worst_comes_first() {
        let found = found(|buffers, _, recent| {
            buffers.send_bytes = 3;
            recent.receive_drops = 1;
        });
        assert_eq!(found[0].0, "receive_drops");
        assert_eq!(found[1].0, "send_buffer_small");
    }

    #[test]
    fn what_is_no_count_is_told_too() {
        let buffers = Buffers {
            receive_bytes: 8,
            wanted_receive_bytes: 8,
            send_bytes: 4,
            wanted_send_bytes: 4,
        };
        let seen = Seen {
            stuck: &["worker 3".to_owned()],
            buffers: &buffers,
            clients: &Clients { ipv4: 0, ipv6: 0, max: 1 },
            snapshot: None,
            deny_file: None,
            clients_without_local_address: 2,
            is_enforcing: false,
            recent: &Totals::default(),
        };
        let findings = find(&seen);
        assert_eq!(findings[0].id, "stuck");
        assert!(findings[0].summary.contains("worker 3"));
        assert_eq!(findings[1].id, "local_addresses_full");
        assert!(findings[1].summary.contains("2 clients"));
        assert_eq!(findings[2].id, "not_enforcing");
        assert_eq!(findings[2].more, "docs/operations.md#not-enforcing");
        assert_eq!(findings.len(), 3);

        let told = |age_seconds, failure: Option<&str>| {
            let snapshot = Snapshot {
                remedy: failure.map(|_| "make room".to_owned()),
                unused: None,
                age_seconds,
                interval_seconds: 5.0,
                written: 1,
                failed: 1,
                failure: failure.map(str::to_owned),
                took_seconds: 0.1,
                clients: 1,
                bytes: 1,
            };
            let findings = find(&Seen { snapshot: Some(&snapshot), ..seen });
            let of_snapshot = findings.into_iter().find(|finding| finding.id == "snapshot_old");
            of_snapshot.map(|finding| finding.summary + " " + &finding.advice)
        };
        assert_eq!(told(15.0, None), None);
        assert!(told(15.1, None).unwrap().contains("is 15 s old, because the disk is slow or"));
        let full = told(0.0, Some("full")).unwrap();
        assert!(full.contains("it cannot be written (full)"), "{full}");
        assert!(full.contains("To end this, make room."), "{full}");
    }

    #[test]
    fn a_file_that_was_not_read_is_worse_than_one_that_was_not_read_again() {
        let (buffers, clients, recent) = (
            Buffers {
                receive_bytes: 8,
                wanted_receive_bytes: 8,
                send_bytes: 4,
                wanted_send_bytes: 4,
            },
            Clients { ipv4: 0, ipv6: 0, max: 1 },
            Totals::default(),
        );
        let found = |read: Option<&str>, reason: Option<&str>| {
            let time = "2026-11-21T18:00:00Z".to_owned();
            let failure = |reason: &str| FailedRead { time, reason: reason.to_owned(), line: None };
            let deny_file =
                DenyFile { read: read.map(str::to_owned), failed: 1, failure: reason.map(failure) };
            let seen = Seen {
                stuck: &[],
                buffers: &buffers,
                clients: &clients,
                snapshot: None,
                deny_file: Some(&deny_file),
                clients_without_local_address: 0,
                is_enforcing: true,
                recent: &recent,
            };
            find(&seen).pop()
        };
        assert_eq!(found(Some("earlier"), None), None);
        let stale = found(Some("earlier"), Some("line 3")).unwrap();
        let expected = "DENY_FILE could not be read at 2026-11-21T18:00:00Z (line 3), so the networks read at earlier stay denied.";
        assert!(stale.summary.starts_with(expected), "{}", stale.summary);
        assert_eq!(stale.severity, Severity::Warning);
        let unread = found(None, Some("no answer")).unwrap();
        assert_eq!((&*unread.id, unread.severity), ("deny_file_stale", Severity::Critical));
    }
}
