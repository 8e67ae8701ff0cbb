//! The status as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use crate::output::{counted, grouped, printable, size};
use crate::status::{Lateness, Severity, Status};

/// A status, formatted for an operator.
pub(super) struct Table<'a> {
    pub(super) status: &'a Status,
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { clients, buffers, totals, now, .. } = self.status;
        let uptime =
            Duration::try_from_secs_f64(self.status.uptime_seconds.trunc()).unwrap_or_default();
        writeln!(
            f,
            "wakeupd {} on UDP {}, up {}",
            printable(&self.status.version),
            self.status.address,
            humantime::format_duration(uptime)
        )?;
        self.write_findings(f)?;
        writeln!(f)?;
        let number = |n: usize| grouped(n as u64);
        let each_second = |recent: u64, total: u64| {
            format!("{} in the last second, {} in total", grouped(recent), grouped(total))
        };
        let lines = [
            (
                "clients",
                format!(
                    "{} (IPv4 {}, IPv6 {}), at most {}",
                    number(clients.total()),
                    number(clients.ipv4),
                    number(clients.ipv6),
                    grouped(clients.max.into())
                ),
            ),
            ("heartbeats", each_second(now.heartbeats, totals.heartbeats)),
            ("pings", each_second(now.pings, totals.pings)),
            ("lateness", lateness(&self.status.lateness)),
            ("refused", by_reason(&totals.refused)),
            ("failed pings", by_reason(&totals.failed_pings)),
            ("skipped pings", grouped(totals.skipped_pings)),
            ("removed clients", by_reason(&totals.removals)),
            ("mutes", grouped(totals.mutes)),
            ("kernel drops", grouped(totals.receive_drops)),
            ("wrong tokens", grouped(totals.wrong_tokens)),
            ("snapshot", snapshot(self.status)),
            (
                "buffers",
                format!(
                    "{} receive, {} send",
                    size(buffers.receive_bytes as u64),
                    size(buffers.send_bytes as u64)
                ),
            ),
        ];
        lines.iter().try_for_each(|(name, value)| writeln!(f, "{name:<16} {value}"))
    }
}

impl Table<'_> {
    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = &self.status.findings;
        if findings.is_empty() {
            return writeln!(f, "All is well.");
        }
        for finding in findings {
            let severity = match finding.severity {
                Severity::Critical => "CRITICAL",
                Severity::Warning => "WARNING",
            };
            writeln!(
                f,
                "{severity}: {}\n  {}\n  See {}",
                printable(&finding.summary),
                printable(&finding.advice),
                printable(&finding.more)
            )?;
        }
        Ok(())
    }
}

/// The snapshot of the clients, which survives a restart.
fn snapshot(status: &Status) -> String {
    let Some(snapshot) = &status.snapshot else {
        return "none: a restart loses all clients (set SNAPSHOT_PATH)".to_owned();
    };
    let restored = match status.totals.restored {
        0 => String::new(),
        clients => format!("; {} restored at startup", grouped(clients)),
    };
    format!(
        "{}, {}, {:.1} s ago{restored}",
        counted(snapshot.clients, "client", "clients"),
        size(snapshot.bytes),
        snapshot.age_seconds
    )
}

/// The counts by reason, without zeros.
fn by_reason(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    if counts.is_empty() {
        return "0".to_owned();
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let texts =
        counts.iter().map(|(reason, count)| format!("{} {}", printable(reason), grouped(**count)));
    texts.collect::<Vec<_>>().join(", ")
}

/// The percentiles of the lateness in the last ten minutes, to the resolution of the buckets.
fn lateness(lateness: &Lateness) -> String {
    let pings: u64 = lateness.buckets.iter().map(|bucket| bucket.pings).sum();
    if pings == 0 {
        return "no pings in the last ten minutes".to_owned();
    }
    let within = |permille| {
        let mut sum = 0;
        let bucket = lateness.buckets.iter().find(|bucket| {
            sum += bucket.pings;
            sum * 1000 >= permille * pings
        });
        match bucket.and_then(|bucket| bucket.le_seconds) {
            Some(seconds) => format!("<= {} ms", seconds * 1e3),
            None => "> 1 s".to_owned(),
        }
    };
    format!(
        "p50 {}, p99 {}, p99.9 {} in the last ten minutes",
        within(500),
        within(990),
        within(999)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Bucket;

    #[test]
    fn percentiles_are_bucket_bounds() {
        let lateness = |pings: [u64; 3]| {
            let bounds = [Some(0.0005), Some(1.0), None];
            let buckets = bounds.into_iter().zip(pings);
            let buckets = buckets.map(|(le_seconds, pings)| Bucket { le_seconds, pings }).collect();
            super::lateness(&Lateness { buckets })
        };
        assert_eq!(lateness([0; 3]), "no pings in the last ten minutes");
        assert!(
            lateness([1, 0, 0]).starts_with("p50 <= 0.5 ms, p99 <= 0.5 ms, p99.9 <= 0.5 ms in")
        );
        assert!(
            lateness([990, 9, 1]).starts_with("p50 <= 0.5 ms, p99 <= 0.5 ms, p99.9 <= 1000 ms in")
        );
        assert!(lateness([0, 1, 1]).starts_with("p50 <= 1000 ms, p99 > 1 s, p99.9 > 1 s in"));
    }

    #[test]
    fn reasons_are_sorted_by_frequency() {
        let counts = [("a", 0), ("b", 5), ("c", 1_000)];
        let counts: BTreeMap<_, _> = counts.map(|(reason, n)| (reason.to_owned(), n)).into();
        assert_eq!(by_reason(&counts), "c 1,000, b 5");
        assert_eq!(by_reason(&BTreeMap::new()), "0");
    }
}
