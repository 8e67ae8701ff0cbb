//! Provokes each problem of the daemon.

use super::*;
use crate::metrics::LATENESS_BUCKETS;

/// Owns the values that [`Seen`] refers to.
struct Facts {
    stuck: Vec<String>,
    buffers: Buffers,
    clients: Clients,
    snapshot: Option<Snapshot>,
    deny_file: Option<DenyFile>,
    clients_without_local_address: u32,
    is_enforcing: bool,
    recent: Totals,
}

impl Default for Facts {
    /// A busy daemon without problems.
    fn default() -> Self {
        let mut recent = Totals { served_slots: 100, ..Totals::default() };
        recent.lateness[0] = 100_000;
        Self {
            stuck: Vec::new(),
            buffers: Buffers {
                receive_bytes: 8,
                wanted_receive_bytes: 8,
                send_bytes: 4,
                wanted_send_bytes: 4,
            },
            clients: Clients { ipv4: 40, ipv6: 40, max: 100 },
            snapshot: None,
            deny_file: None,
            clients_without_local_address: 0,
            is_enforcing: true,
            recent,
        }
    }
}

fn found(change: impl FnOnce(&mut Facts)) -> Vec<Occurrence> {
    let mut facts = Facts::default();
    change(&mut facts);
    facts.recent.pings = facts.recent.lateness.iter().sum();
    occurrences(&Seen {
        stuck: &facts.stuck,
        buffers: &facts.buffers,
        clients: &facts.clients,
        snapshot: facts.snapshot.as_ref(),
        deny_file: facts.deny_file.as_ref(),
        clients_without_local_address: facts.clients_without_local_address,
        is_enforcing: facts.is_enforcing,
        recent: &facts.recent,
    })
}

fn snapshot(age_seconds: f64, failure: Option<&str>, unused: Option<&str>) -> Snapshot {
    Snapshot {
        remedy: failure.map(|_| "make room".to_owned()),
        unused: unused.map(str::to_owned),
        age_seconds,
        interval_seconds: 5.0,
        written: 1,
        failed: 1,
        failure: failure.map(str::to_owned),
        took_seconds: 0.1,
        clients: 1,
        bytes: 1,
    }
}

fn deny_file(read: Option<&str>, reason: &str, line: Option<usize>) -> DenyFile {
    let time = "2026-11-21T18:00:00Z".to_owned();
    let failure = Some(FailedRead { time, reason: reason.to_owned(), line });
    DenyFile { read: read.map(str::to_owned), failed: 1, failure }
}

/// A problem of the daemon, a change that provokes only this problem, and a part of its text.
type Case = (Problem, fn(&mut Facts), &'static str);
const CASES: &[Case] = &[
    (daemon::STUCK, |facts| facts.stuck = vec!["worker 3".to_owned()], "3 s: worker 3."),
    (
        daemon::PINGS_SKIPPED,
        |facts| (facts.recent.skipped_pings, facts.recent.skipped_slots) = (1_000, 100),
        "up to 1,000 pings in the last minute, 50.0 % of all",
    ),
    (daemon::RECEIVE_DROPS, |facts| facts.recent.receive_drops = 1, "1 datagram in"),
    (
        daemon::PINGS_FAILED,
        |facts| facts.recent.failed_pings[SendFailure::Other as usize] = 1_011,
        "1,011 pings in the last minute. The most frequent reason is other.",
    ),
    (
        daemon::PINGS_FAILED_ROUTE,
        |facts| facts.recent.failed_pings[SendFailure::Prohibited as usize] = 1_011,
        "prohibited",
    ),
    (
        daemon::PINGS_FAILED_FIREWALL,
        |facts| facts.recent.failed_pings[SendFailure::NotPermitted as usize] = 1_011,
        "not_permitted",
    ),
    (
        daemon::PINGS_FAILED_ROOM,
        |facts| facts.recent.failed_pings[SendFailure::NoBuffers as usize] = 1_011,
        "no_buffers",
    ),
    (daemon::CLIENTS_NEAR_CAP, |facts| facts.clients.ipv6 = 41, "81 of at most 100 clients"),
    (
        daemon::CLIENTS_AT_CAP,
        |facts| facts.recent.refused[Refused::MaxClients as usize] = 1,
        "the daemon refused 1 heartbeat from new clients",
    ),
    (
        daemon::CLIENTS_TURNED_AWAY,
        |facts| facts.recent.refused[Refused::MaxClientsPerPrefix as usize] = 2,
        "refused 2 heartbeats from new clients in",
    ),
    (
        daemon::LOCAL_ADDRESSES_FULL,
        |facts| facts.clients_without_local_address = 2,
        "that 2 clients sent",
    ),
    (
        daemon::PINGS_LATE,
        |facts| facts.recent.lateness[7] = 1_011,
        "1,011 pings, at least one in a hundred, were more than 50 ms late",
    ),
    (daemon::CONTROL_TRUNCATED, |facts| facts.recent.truncated_control = 1, "of 1 datagram in"),
    (
        daemon::SNAPSHOT_OLD,
        |facts| facts.snapshot = Some(snapshot(15.1, None, None)),
        "is 15 s old, because the disk is slow or",
    ),
    (
        daemon::SNAPSHOT_FAILED,
        |facts| facts.snapshot = Some(snapshot(0.0, Some("full"), None)),
        "cannot write the snapshot: full.",
    ),
    (
        daemon::SNAPSHOT_UNUSED,
        |facts| facts.snapshot = Some(snapshot(0.0, None, Some("it is cut off"))),
        "could not use the snapshot: it is cut off.",
    ),
    (
        daemon::DENY_FILE_STALE,
        |facts| facts.deny_file = Some(deny_file(Some("earlier"), "line 3", Some(3))),
        "cannot reload DENY_FILE: line 3.",
    ),
    (
        daemon::DENY_FILE_UNREAD,
        |facts| facts.deny_file = Some(deny_file(None, "no answer", None)),
        "cannot load DENY_FILE: no answer.",
    ),
    (
        daemon::DENY_FILE_INVALID,
        |facts| facts.deny_file = Some(deny_file(None, "line 3", Some(3))),
        "cannot load DENY_FILE: line 3.",
    ),
    (
        daemon::RECEIVE_BUFFER_SMALL,
        |facts| (facts.buffers.receive_bytes, facts.buffers.wanted_receive_bytes) = (7, 8_000),
        "receive buffer to 7 bytes, but the daemon requests 8,000.",
    ),
    (
        daemon::SEND_BUFFER_SMALL,
        |facts| facts.buffers.send_bytes = 3,
        "send buffer to 3 bytes, but the daemon requests 4.",
    ),
    (daemon::NOT_ENFORCING, |facts| facts.is_enforcing = false, "GUARD_MODE is observe"),
];

#[test]
fn each_problem_is_reported() {
    for (problem, provoke, part) in CASES {
        let found = found(provoke);
        assert_eq!(found.iter().map(|it| it.problem).collect::<Vec<_>>(), [*problem]);
        let finding = Finding::from(found[0].clone());
        assert!(finding.summary.contains(part), "{finding:?}");
    }
    // These come with another problem.
    let with_another = [daemon::RECEIVE_DROPS_SMALL_BUFFER, daemon::CLIENTS_ABOVE_CAP];
    let dropped = found(|facts| {
        (facts.recent.receive_drops, facts.buffers.receive_bytes) = (1, 7);
    });
    assert_eq!(dropped[0].problem, with_another[0]);
    assert!(dropped[0].advice().contains("`sudo sh -c 'f=/etc/sysctl.d/"), "{dropped:?}");
    let observed = found(|facts| {
        facts.is_enforcing = false;
        facts.recent.refused[Refused::MaxClients as usize] = 3;
    });
    assert_eq!(observed[0].problem, with_another[1]);
    assert!(observed[0].impact.contains("refused 3 heartbeats"), "{observed:?}");
    for problem in daemon::ALL {
        let is_provoked = CASES.iter().any(|(other, ..)| other == problem);
        assert!(is_provoked || with_another.contains(problem), "no test provokes {problem:?}");
    }
}

#[test]
fn problems_below_their_threshold_are_not_reported() {
    let failing = SendFailure::Other as usize;
    let prefix = Refused::MaxClientsPerPrefix as usize;
    assert_eq!(found(|_| {}), []);
    assert_eq!(found(|facts| facts.recent.failed_pings[failing] = 1_010), []);
    assert_eq!(found(|facts| facts.recent.lateness[7] = 1_010), []);
    assert_eq!(found(|facts| facts.recent.lateness[6] = 9_999), []);
    assert_eq!(found(|facts| facts.recent.skipped_slots = 1), []);
    assert_eq!(found(|facts| facts.snapshot = Some(snapshot(15.0, None, None))), []);
    let few = |facts: &mut Facts| {
        facts.recent.lateness = [0; LATENESS_BUCKETS];
        (facts.recent.lateness[7], facts.recent.failed_pings[failing]) = (9, 9);
    };
    assert_eq!(found(few), []);
    let observed = found(|facts| {
        (facts.is_enforcing, facts.recent.refused[prefix]) = (false, 1);
    });
    assert_eq!(observed.len(), 1, "{observed:?}");
}

#[test]
fn the_most_severe_finding_comes_first() {
    let found = found(|facts| {
        facts.buffers.send_bytes = 3;
        facts.recent.receive_drops = 1;
    });
    let problems: Vec<_> = found.iter().map(|it| it.problem.id).collect();
    assert_eq!(problems, ["receive_drops", "send_buffer_small"]);
}

#[test]
fn a_finding_takes_its_text_from_the_catalogue() {
    let failed = found(|facts| facts.snapshot = Some(snapshot(0.0, Some("full"), None)));
    let finding = Finding::from(failed[0].clone());
    assert_eq!(finding.summary, format!("{} {}", failed[0].summary, failed[0].impact));
    assert_eq!(finding.advice, "To let the daemon write the snapshot, make room.");
    assert_eq!(finding.more, "docs/operations.md#snapshot-old");
}
