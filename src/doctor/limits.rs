//! Whether files and memory suffice.

use std::io;

use super::diagnosis::Diagnosis;
use super::machine::{Machine, if_any};
use crate::config::Config;
use crate::http::MOST_CONNECTIONS;

const FILES: &str = "open files";
const MEMORY: &str = "memory";

/// What the daemon has open besides a socket for each worker and the operators' connections: standard
/// streams, the runtimes, `DENY_FILE`.
const SPARE_FILES: u64 = 32;

/// What the daemon takes without clients, with what waits in its sockets.
const IDLE_BYTES: u64 = 32 << 20;

/// What an IPv4 client takes at the most: an entry of 24 bytes and a control byte in a table that is
/// 7/16 full, and as much room in the guard's two tables, as if no other client shared its network.
const IPV4_CLIENT_BYTES: u64 = 100;

/// Likewise where entries are of 36 bytes, and the guard's keys twice as long.
const IPV6_CLIENT_BYTES: u64 = 170;

/// The address space that a thread's stack takes, though not memory.
const STACK_BYTES: u64 = 2 << 20;

/// The threads that are no workers, at the most.
const SPARE_THREADS: u64 = 32;

/// From here on the limit of a control group is none.
const UNLIMITED: u64 = 1 << 60;

/// Whose limits to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    /// The running daemon, or else a daemon that is started as this process was.
    pub(super) daemon: Option<u32>,
}

impl Subject {
    fn file(self, name: &str) -> String {
        match self.daemon {
            Some(pid) => format!("proc/{pid}/{name}"),
            None => format!("proc/self/{name}"),
        }
    }

    fn describe(self) -> String {
        match self.daemon {
            Some(pid) => format!("the running wakeupd (pid {pid})"),
            None => "a wakeupd started from here".to_owned(),
        }
    }
}

/// Something that bounds the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    name: &'static str,
    bytes: u64,
    /// What of it is taken though no client has it.
    taken: u64,
    mend: &'static str,
}

/// Looks at the limit on open files.
pub(super) fn check_files(machine: &Machine, subject: Subject, config: &Config) -> Diagnosis {
    match limit(machine, subject, "Max open files") {
        Ok(limit) => {
            let connections = config.http_address.map_or(0, |_| MOST_CONNECTIONS);
            judge_files(limit, subject, (config.worker_pool_size + connections) as u64)
        }
        Err(error) => Diagnosis::unknown(FILES, error),
    }
}

fn judge_files(limit: Option<u64>, subject: Subject, sockets: u64) -> Diagnosis {
    let needed = sockets + SPARE_FILES;
    let who = subject.describe();
    match limit {
        None => Diagnosis::ok(FILES, format!("{who} may open any number")),
        Some(limit) if limit >= needed => {
            Diagnosis::ok(FILES, format!("{who} may open {limit}, and needs up to {needed}"))
        }
        Some(limit) => Diagnosis::finding(
            FILES,
            format!("{who} may open {limit}, and needs up to {needed}"),
            "each worker has a socket of its own, and each operator who looks at the daemon: it does not start, or does not answer them",
            format!(
                "systemd: `sudo systemctl edit wakeupd`, and there, below [Service], LimitNOFILE={0}\n\
                 Docker: docker run --ulimit nofile={0}\n\
                 shell: ulimit -n {0}",
                needed.next_power_of_two().max(1024)
            ),
        ),
    }
}

/// Looks at what bounds the memory.
pub(super) fn check_memory(
    machine: &Machine,
    subject: Subject,
    config: &Config,
    is_ipv6: bool,
) -> Diagnosis {
    match bounds(machine, subject, config.worker_pool_size as u64) {
        Ok(bounds) => judge_memory(&bounds, subject, config.guard.caps.clients.into(), is_ipv6),
        Err(error) => Diagnosis::unknown(MEMORY, error),
    }
}

fn bounds(machine: &Machine, subject: Subject, workers: u64) -> io::Result<Vec<Bound>> {
    let available = kilobytes(machine, "proc/meminfo", "MemAvailable:")?;
    let resident = match subject.daemon {
        Some(_) => kilobytes(machine, &subject.file("status"), "VmRSS:")?,
        None => 0,
    };
    let mut bounds = vec![Bound {
        name: "what this machine has available",
        bytes: available + resident,
        taken: 0,
        mend: "set a smaller MAX_CLIENTS, or give the machine more memory",
    }];
    if let Some(bytes) = group_limit(machine, subject)? {
        bounds.push(Bound {
            name: "the limit of its control group",
            bytes,
            taken: 0,
            mend: "set a smaller MAX_CLIENTS, or raise the limit (systemd: MemoryMax=, Docker: --memory, Compose: mem_limit)",
        });
    }
    if let Some(bytes) = limit(machine, subject, "Max address space")? {
        bounds.push(Bound {
            name: "what its limit on address space, ulimit -v, leaves beside the stacks",
            bytes,
            taken: (workers + SPARE_THREADS) * STACK_BYTES,
            mend: "set a smaller MAX_CLIENTS, or lift the limit (systemd: LimitAS=infinity, shell: ulimit -v unlimited)",
        });
    }
    Ok(bounds)
}

fn judge_memory(bounds: &[Bound], subject: Subject, clients: u64, is_ipv6: bool) -> Diagnosis {
    let each = if is_ipv6 { IPV6_CLIENT_BYTES } else { IPV4_CLIENT_BYTES };
    let needed = IDLE_BYTES + clients * each;
    let room = |bound: &Bound| bound.bytes.saturating_sub(bound.taken);
    let Some(bound) = bounds.iter().min_by_key(|bound| room(bound)) else {
        return Diagnosis::ok(MEMORY, "nothing bounds it");
    };
    let (needs, has) = (megabytes(needed), megabytes(room(bound)));
    let seen = format!(
        "MAX_CLIENTS={clients} may take up to {needs}; {} may have {has} ({})",
        subject.describe(),
        bound.name,
    );
    if room(bound) >= needed {
        return Diagnosis::ok(MEMORY, seen);
    }
    Diagnosis::finding(
        MEMORY,
        seen,
        "a flood of forged heartbeats can bring as many clients as that; then the daemon is ended for want of memory, and nobody is pinged",
        bound.mend,
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

/// A soft limit of a process; `None` where there is none.
fn limit(machine: &Machine, subject: Subject, name: &str) -> io::Result<Option<u64>> {
    let path = subject.file("limits");
    let text = machine.text(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let soft = line.and_then(|line| line.split_ascii_whitespace().next());
    match soft {
        Some("unlimited") => Ok(None),
        Some(soft) => soft.parse().map(Some).map_err(|_| machine.malformed(&path, soft)),
        None => Err(machine.malformed(&path, &text)),
    }
}

/// The bytes of a line of a table such as `/proc/meminfo`.
fn kilobytes(machine: &Machine, path: &str, name: &str) -> io::Result<u64> {
    let text = machine.text(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    number.map(|number| number.saturating_mul(1024)).ok_or_else(|| machine.malformed(path, &text))
}

/// The least limit of the control groups that a process is in, by either version of them.
fn group_limit(machine: &Machine, subject: Subject) -> io::Result<Option<u64>> {
    let path = subject.file("cgroup");
    let Some(groups) = if_any(machine.text(&path))? else { return Ok(None) };
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            return Err(machine.malformed(&path, line));
        };
        let (root, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the group's path may be that of the host, and its files in the root.
        let mut group = Some(group.trim_matches('/'));
        while let Some(name) = group {
            let path = format!("{root}/{name}/{file}");
            if let Some(text) = if_any(machine.text(&path))? {
                match text.parse().ok() {
                    None if text == "max" => {}
                    Some(limit) if limit >= UNLIMITED => {}
                    Some(limit) => least = Some(least.map_or(limit, |least: u64| least.min(limit))),
                    None => return Err(machine.malformed(&path, &text)),
                }
            }
            group = match name.rsplit_once('/') {
                Some((parent, _)) => Some(parent),
                None if name.is_empty() => None,
                None => Some(""),
            };
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::super::machine::fake::Fake;
    use super::*;

    const HERE: Subject = Subject { daemon: None };
    const RUNNING: Subject = Subject { daemon: Some(7) };

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max address space         unlimited            unlimited            bytes
";

    const MEMINFO: &str = "MemTotal:  4000000 kB\nMemAvailable:  2000 kB\n";

    #[test]
    fn each_socket_is_a_file() {
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
        let mend = judge_files(Some(5), RUNNING, 10).mend.unwrap();
        assert!(mend.contains("LimitNOFILE=1024\n"), "{mend}");
    }

    #[test]
    fn limits_are_read() {
        let fake = Fake::new(&[
            ("proc/self/limits", LIMITS),
            ("proc/7/limits", "Max open files            12                 4096  files"),
            ("proc/8/limits", "Max open files            many"),
        ]);
        let of = |subject, name| limit(&fake.0, subject, name);
        assert_eq!(of(HERE, "Max open files").unwrap(), Some(1024));
        assert_eq!(of(HERE, "Max address space").unwrap(), None);
        assert_eq!(of(RUNNING, "Max open files").unwrap(), Some(12));
        assert!(of(RUNNING, "Max address space").is_err());
        assert!(of(Subject { daemon: Some(8) }, "Max open files").is_err());
        assert!(of(Subject { daemon: Some(9) }, "Max open files").is_err());
    }

    #[test]
    fn the_least_room_is_what_counts() {
        let bound = |name, bytes, taken| Bound { name, bytes, taken, mend: "mend it" };
        let all = [bound("one", 90_000_000, 0), bound("other", 110_000_000, 30_000_000)];
        for (clients, is_ipv6, outcome, seen) in [
            (460_000, false, Outcome::Ok, "a wakeupd started from here may have 80 MB (other)"),
            (470_000, false, Outcome::Finding, "MAX_CLIENTS=470000 may take up to 80 MB"),
            (270_000, true, Outcome::Ok, "MAX_CLIENTS=270000 may take up to 79 MB"),
            (290_000, true, Outcome::Finding, "MAX_CLIENTS=290000 may take up to 82 MB"),
        ] {
            let diagnosis = judge_memory(&all, HERE, clients, is_ipv6);
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.seen.contains(seen), "{diagnosis:?}");
        }
        assert_eq!(judge_memory(&[], HERE, u64::from(u32::MAX), true).result, Outcome::Ok);
        let full = [bound("one", 1, 2)];
        assert_eq!(judge_memory(&full, RUNNING, 1, false).result, Outcome::Finding);
    }

    #[test]
    fn what_a_running_daemon_has_is_available_to_it() {
        let fake = Fake::new(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/limits", LIMITS),
            ("proc/7/limits", "Max address space 300000000 unlimited bytes"),
            ("proc/7/status", "Name: wakeupd\nVmRSS:\t    500 kB\n"),
            ("proc/8/limits", LIMITS),
            ("proc/8/status", "nonsense"),
        ]);
        let room = |subject| -> io::Result<Vec<_>> {
            let bounds = bounds(&fake.0, subject, 10)?;
            Ok(bounds.iter().map(|bound| bound.bytes - bound.taken).collect())
        };
        assert_eq!(room(HERE).unwrap(), [2000 * 1024]);
        assert_eq!(room(RUNNING).unwrap(), [2500 * 1024, 300_000_000 - 42 * (2 << 20)]);
        assert!(room(Subject { daemon: Some(8) }).is_err());
    }

    #[test]
    fn the_least_limit_of_the_groups_is_in_force() {
        let limit = |files: &[(&str, &str)]| group_limit(&Fake::new(files).0, HERE);
        let two = |inner, outer| {
            limit(&[
                ("proc/self/cgroup", "0::/system.slice/wakeupd.service\n"),
                ("sys/fs/cgroup/system.slice/wakeupd.service/memory.max", inner),
                ("sys/fs/cgroup/system.slice/memory.max", outer),
            ])
        };
        assert_eq!(two("1000", "max").unwrap(), Some(1000));
        assert_eq!(two("max\n", "2000").unwrap(), Some(2000));
        assert_eq!(two("1000", "2000").unwrap(), Some(1000));
        assert_eq!(two("2000", "1000").unwrap(), Some(1000));
        assert_eq!(two("max", "max").unwrap(), None);
        assert!(two("-1", "max").is_err());
        let container = [("proc/self/cgroup", "0::/"), ("sys/fs/cgroup/memory.max", "300")];
        assert_eq!(limit(&container).unwrap(), Some(300));
        let of_old = |root| {
            limit(&[
                ("proc/self/cgroup", "9:name=systemd:/\n4:hugetlb,memory:/docker/a:b\n0::/"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", root),
            ])
        };
        assert_eq!(of_old("400").unwrap(), Some(400));
        assert_eq!(of_old("9223372036854771712").unwrap(), None);
        assert_eq!(limit(&[]).unwrap(), None);
        assert!(limit(&[("proc/self/cgroup", "nonsense")]).is_err());
    }
}
