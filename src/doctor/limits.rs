//! Checks the limits on open files and memory.

use std::io;

use super::diagnosis::Diagnosis;
use crate::catalogue::machine;
use crate::config::Config;
use crate::http::MOST_CONNECTIONS;
use crate::machine::Machine;
use crate::memory::{Limit, Needs, megabytes};

const FILES: &str = "open files";
const MEMORY: &str = "memory";

/// Files open in addition to a socket per worker and the HTTP connections: the standard streams, the runtimes,
/// `DENY_FILE`.
const SPARE_FILES: u64 = 32;

/// The process subject to the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    /// The pid of the running daemon. `None` if the subject is a daemon that has not started yet: it would
    /// get the limits of this process.
    pub(super) daemon: Option<u32>,
}

impl Subject {
    /// The process's folder in procfs, relative to the root folder.
    fn process(self) -> String {
        self.daemon.map_or_else(|| "proc/self".to_owned(), |pid| format!("proc/{pid}"))
    }

    fn describe(self) -> String {
        match self.daemon {
            Some(pid) => format!("the running wakeupd (pid {pid})"),
            None => "a wakeupd started from here".to_owned(),
        }
    }
}

/// Checks the limit on open files.
pub(super) fn check_files(machine: &Machine, subject: Subject, config: &Config) -> Diagnosis {
    match machine.soft_limit(&subject.process(), "Max open files") {
        Ok(limit) => {
            let connections = config.http_addr.map_or(0, |_| MOST_CONNECTIONS);
            judge_files(limit, subject, (config.worker_pool_size + connections) as u64)
        }
        Err(error) => Diagnosis::unknown(FILES, error),
    }
}

pub(super) fn judge_files(limit: Option<u64>, subject: Subject, sockets: u64) -> Diagnosis {
    let needed = sockets + SPARE_FILES;
    let process = subject.describe();
    match limit {
        None => Diagnosis::ok(FILES, format!("{process} has no limit on open files")),
        Some(limit) if limit >= needed => Diagnosis::ok(
            FILES,
            format!(
                "the limit of {process} is {limit}, and the daemon needs up to {needed} open files"
            ),
        ),
        Some(limit) => {
            let enough = needed.next_power_of_two().max(1024);
            let problem = machine::OPEN_FILES_LIMIT_SMALL.with(&[
                ("process", &process),
                ("limit", &limit),
                ("needed", &needed),
                ("enough", &enough),
            ]);
            Diagnosis::finding(FILES, problem)
        }
    }
}

/// Checks the bounds on memory.
pub(super) fn check_memory(
    machine: &Machine,
    subject: Subject,
    config: &Config,
    is_ipv6: bool,
) -> Diagnosis {
    let needs = Needs::of(config, is_ipv6);
    match bounds(machine, subject, needs) {
        Ok(bounds) => judge_memory(&bounds, subject, needs),
        Err(error) => Diagnosis::unknown(MEMORY, error),
    }
}

/// Lists all bounds on memory. The last bound, the available memory, can change at any time.
fn bounds(machine: &Machine, subject: Subject, needs: Needs) -> io::Result<Vec<Limit>> {
    let process = subject.process();
    let mut bounds = Vec::new();
    for limit in needs.limits(machine, &process) {
        bounds.extend(limit?);
    }
    let available = machine.kilobytes("proc/meminfo", "MemAvailable:")?;
    let resident = match subject.daemon {
        Some(_) => machine.kilobytes(&format!("{process}/status"), "VmRSS:")?,
        None => 0,
    };
    bounds.push(Limit {
        name: "the available memory of this machine",
        bytes: available + resident,
        taken: 0,
        raise: None,
    });
    Ok(bounds)
}

pub(super) fn judge_memory(bounds: &[Limit], subject: Subject, needs: Needs) -> Diagnosis {
    let Some(bound) = bounds.iter().min_by_key(|bound| bound.room()) else {
        return Diagnosis::ok(MEMORY, "no limit on memory applies");
    };
    let seen = format!(
        "MAX_CLIENTS={} needs up to {}, and {} leaves {} to {}",
        needs.clients,
        megabytes(needs.bytes()),
        bound.name,
        megabytes(bound.room()),
        subject.describe(),
    );
    match needs.problem(bound) {
        Some(problem) => Diagnosis::finding(MEMORY, problem),
        None => Diagnosis::ok(MEMORY, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    const HERE: Subject = Subject { daemon: None };
    const RUNNING: Subject = Subject { daemon: Some(7) };

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max data size             unlimited            unlimited            bytes
Max address space         unlimited            unlimited            bytes
";

    const MEMINFO: &str = "MemTotal:  4000000 kB\nMemAvailable:  2000 kB\n";

    #[test]
    fn each_socket_needs_a_file_descriptor() {
        for (limit, sockets, outcome) in [
            (None, 256, Outcome::Ok),
            (Some(1024), 256, Outcome::Ok),
            (Some(42), 10, Outcome::Ok),
            (Some(41), 10, Outcome::Finding),
            (Some(256), 256, Outcome::Finding),
        ] {
            let diagnosis = judge_files(limit, HERE, sockets);
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
        }
        let mend = judge_files(Some(5), RUNNING, 10).mend();
        assert!(mend.contains("LimitNOFILE=1024`") && mend.ends_with("ulimit -n 1024"), "{mend}");
    }

    #[test]
    fn the_tightest_memory_limit_applies() {
        let bound = |name, bytes, taken| Limit { name, bytes, taken, raise: Some("by hand") };
        let all = [bound("one", 90_000_000, 0), bound("other", 110_000_000, 30_000_000)];
        let needs = |clients, is_ipv6| Needs { clients, is_ipv6, has_snapshots: false, workers: 1 };
        for (clients, is_ipv6, outcome, seen) in [
            (460_000, false, Outcome::Ok, "other leaves 80 MB to a wakeupd started from here"),
            (470_000, false, Outcome::Finding, "MAX_CLIENTS=470000 needs up to 80 MB"),
            (270_000, true, Outcome::Ok, "MAX_CLIENTS=270000 needs up to 79 MB"),
            (290_000, true, Outcome::Finding, "MAX_CLIENTS=290000 needs up to 82 MB"),
        ] {
            let diagnosis = judge_memory(&all, HERE, needs(clients, is_ipv6));
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.seen.contains(seen), "{diagnosis:?}");
        }
        let everybody = needs(u32::MAX, true);
        assert_eq!(judge_memory(&[], HERE, everybody).result, Outcome::Ok);
        let found = |bound| judge_memory(&[bound], RUNNING, needs(1, false));
        let one = bound("one", 1, 2);
        let [set, machine] =
            [one.clone(), Limit { raise: None, ..one }].map(|bound| found(bound).mend());
        assert_eq!(set, "# Raise the limit to 34 MB (by hand).");
        assert_eq!(machine, "# Lower MAX_CLIENTS, or give the machine more memory.");
    }

    #[test]
    fn the_memory_of_the_running_daemon_counts_as_available() {
        let fake = Fake::new(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/limits", LIMITS),
            ("proc/7/limits", LIMITS),
            ("proc/7/status", "Name: wakeupd\nVmRSS:\t    500 kB\nCpus_allowed:\t3"),
            ("proc/7/cgroup", "0::/"),
            ("sys/fs/cgroup/memory.max", "9000000"),
            ("proc/8/limits", LIMITS),
            ("proc/8/status", "nonsense"),
        ]);
        let needs = Needs { clients: 1, is_ipv6: false, has_snapshots: false, workers: 10 };
        let room = |subject| -> io::Result<Vec<_>> {
            Ok(bounds(&fake.0, subject, needs)?.iter().map(Limit::room).collect())
        };
        assert_eq!(room(HERE).unwrap(), [2000 * 1024]);
        assert_eq!(room(RUNNING).unwrap(), [9_000_000, 2500 * 1024]);
        assert!(room(Subject { daemon: Some(8) }).is_err());
    }
}
