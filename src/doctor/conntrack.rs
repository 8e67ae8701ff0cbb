//! Checks whether the connection tracking table has room for the clients.

use std::fmt::Display;
use std::io;

use super::diagnosis::Diagnosis;
use crate::catalogue::machine::{CONNECTION_TABLE_FULL, CONNECTION_TABLE_SMALL};
use crate::machine::{Machine, set_sysctl};

const CHECK: &str = "connection tracking";

const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
const LIMIT: &str = "proc/sys/net/netfilter/nf_conntrack_max";

/// A kernel parameter that exists in every network namespace, with or without `nf_conntrack`.
const SEEN: &str = "proc/sys/net/core/somaxconn";

/// The fill level, in percent, from which the table is nearly full.
const NEARLY_FULL_PERCENT: u64 = 80;

/// The suggested limit is rounded up to a multiple of this number.
const ROUND: u64 = 1 << 16;

/// The fill level of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) count: u64,
    pub(super) limit: u64,
}

/// The daemon's port and its clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) port: u16,
    /// `MAX_CLIENTS`.
    pub(super) most: u64,
    /// The current number of clients, if the daemon reports it.
    pub(super) now: Option<u64>,
}

/// Checks the table of this network namespace.
pub(super) fn check(machine: &Machine, served: Served) -> Diagnosis {
    match read(machine) {
        Ok(table) => judge(table, served),
        Err(error) => Diagnosis::unknown(CHECK, error),
    }
}

/// Reads the table; `None` if `nf_conntrack` is not loaded.
fn read(machine: &Machine) -> io::Result<Option<Table>> {
    // Without this file the kernel's parameters are not visible, so a missing table would prove nothing.
    machine.text(SEEN)?;
    let (count, limit) = (machine.number_if_any(COUNT)?, machine.number_if_any(LIMIT)?);
    Ok(count.zip(limit).map(|(count, limit)| Table { count, limit }))
}

pub(super) fn judge(table: Option<Table>, served: Served) -> Diagnosis {
    let Served { port, most: max_clients, now } = served;
    let Some(Table { count, limit }) = table else {
        return Diagnosis::ok(
            CHECK,
            "nf_conntrack is not loaded, so the kernel tracks no connections",
        );
    };
    // A kernel that tracks connections has at least one, such as the operator's own.
    if count == 0 {
        return Diagnosis::ok(
            CHECK,
            "nf_conntrack is loaded, but tracks no connections in this network namespace",
        );
    }
    let told = format!("the table holds {count} of at most {limit} connections");
    let is_nearly_full = count.saturating_mul(100) >= limit.saturating_mul(NEARLY_FULL_PERCENT);
    if !is_nearly_full && limit >= max_clients {
        return Diagnosis::ok(CHECK, told);
    }
    // Every tracked client takes an entry, so most clients are not tracked.
    if let Some(clients) = now.filter(|clients| *clients > count) {
        return Diagnosis::ok(
            CHECK,
            format!(
                "{told}, and the daemon has {clients} clients, so most clients are not tracked"
            ),
        );
    }
    // Room for the current entries and for twice the clients, because client ports change.
    let enough = count.saturating_add(max_clients.saturating_mul(2)).max(count.saturating_mul(2));
    let enough = enough.div_ceil(ROUND).saturating_mul(ROUND);
    let raise = set_sysctl("net.netfilter.nf_conntrack_max", enough);
    let exempt = notrack(port);
    let common: [(&str, &dyn Display); 4] =
        [("limit", &limit), ("port", &port), ("raise", &raise), ("exempt", &exempt)];
    let (problem, value): (_, (&str, &dyn Display)) = if is_nearly_full {
        (CONNECTION_TABLE_FULL, ("count", &count))
    } else {
        (CONNECTION_TABLE_SMALL, ("clients", &max_clients))
    };
    Diagnosis::finding(CHECK, problem.with(&[&common[..], &[value]].concat()))
}

/// Returns the command that exempts the port from tracking until the next reboot.
fn notrack(port: u16) -> String {
    let chain = |name, hook, end| {
        format!(
            "chain {name} {{ type filter hook {hook} priority raw; udp {end} {port} notrack; }}"
        )
    };
    let (heartbeats, pings) =
        (chain("heartbeats", "prerouting", "dport"), chain("pings", "output", "sport"));
    // The table is deleted first, because nft appends rules instead of replacing them.
    format!(
        "sudo nft 'add table inet wakeupd; delete table inet wakeupd; table inet wakeupd {{ {heartbeats}; {pings}; }}'"
    )
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    fn served(most: u64, now: Option<u64>) -> Served {
        Served { port: 7561, most, now }
    }

    fn judged(count: u64, limit: u64, max_clients: u64) -> (Outcome, String, String) {
        let diagnosis = judge(Some(Table { count, limit }), served(max_clients, None));
        (diagnosis.result, diagnosis.seen.clone(), diagnosis.mend())
    }

    #[test]
    fn a_conntrack_table_smaller_than_max_clients_is_a_finding() {
        for (count, limit, max_clients, outcome, seen) in [
            (5, 262_144, 200_000, Outcome::Ok, "holds 5 of at most 262144"),
            (0, 65_536, 200_000, Outcome::Ok, "tracks no connections"),
            (
                1,
                65_536,
                200_000,
                Outcome::Finding,
                "at most 65536 connections, but MAX_CLIENTS is 200000.",
            ),
            (799, 1_000, 1_000, Outcome::Ok, "799 of at most 1000"),
            (
                800,
                1_000,
                1_000,
                Outcome::Finding,
                "nearly full: it holds 800 of at most 1000 connections.",
            ),
            (7, 0, 1, Outcome::Finding, "nearly full"),
            (u64::MAX, u64::MAX, u64::MAX, Outcome::Finding, "nearly full"),
        ] {
            let judged = judged(count, limit, max_clients);
            assert!(judged.0 == outcome && judged.1.contains(seen), "{judged:?}");
        }
        let none = judge(None, served(1, None));
        assert_eq!(
            (none.result, none.seen.as_str()),
            (Outcome::Ok, "nf_conntrack is not loaded, so the kernel tracks no connections")
        );
    }

    #[test]
    fn untracked_clients_need_no_conntrack_entries() {
        let table = Some(Table { count: 900, limit: 1_000 });
        for (now, outcome) in
            [(Some(901), Outcome::Ok), (Some(900), Outcome::Finding), (None, Outcome::Finding)]
        {
            assert_eq!(judge(table, served(5_000, now)).result, outcome);
        }
    }

    #[test]
    fn the_suggested_limit_is_large_enough() {
        let (_, _, mend) = judged(65_000, 65_536, 200_000);
        assert!(mend.contains("\"net.netfilter.nf_conntrack_max = 524288\""), "{mend}");
        assert!(mend.ends_with("udp sport 7561 notrack; }; }'"), "{mend}");
        assert!(mend.contains("udp dport 7561 notrack; }; chain pings { type"), "{mend}");
        let (_, _, mend) = judged(900_000, 1_000_000, 10);
        assert!(mend.contains("\"net.netfilter.nf_conntrack_max = 1835008\""), "{mend}");
    }

    #[test]
    fn the_conntrack_table_is_read_from_proc() {
        let fake = |count, limit| Fake::new(&[(SEEN, "1"), (COUNT, count), (LIMIT, limit)]);
        let outcome = |fake: &Fake| check(&fake.0, served(10, None)).result;
        assert_eq!(outcome(&fake("3\n", "100\n")), Outcome::Ok);
        assert_eq!(outcome(&fake("99\n", "100\n")), Outcome::Finding);
        assert_eq!(outcome(&fake("3\n", "\n")), Outcome::Unknown);
        assert_eq!(outcome(&Fake::new(&[(SEEN, "1")])), Outcome::Ok);
        assert_eq!(outcome(&Fake::new(&[])), Outcome::Unknown);
    }
}
