//! Estimates how much memory the daemon can need, and compares the estimate with the memory limits.
//!
//! The daemon cannot free memory during a flood, so at startup it reports a limit that is too small. Only
//! configured limits are checked, not the free memory of the machine.

use std::fmt::Display;
use std::io;

use thiserror::Error;

use crate::catalogue::Occurrence;
use crate::catalogue::machine::{MEMORY_LIMIT_SMALL, MEMORY_LIMIT_TINY, MEMORY_SHORT};
use crate::config::Config;
use crate::machine::Machine;

/// The memory of a daemon without clients, with full receive buffers.
const IDLE_BYTES: u64 = 32 << 20;

/// Upper bound on the memory of an IPv4 client in bytes: a registry entry of 24 bytes and, in the worst case that
/// every client has a network of its own, an entry of 8 bytes in each of the guard's two tables. Each entry has a
/// control byte, and each table is at least 7/16 full.
const IPV4_CLIENT_BYTES: u64 = 100;

/// Upper bound on the memory of an IPv6 client in bytes, calculated like [`IPV4_CLIENT_BYTES`]: a registry entry
/// takes 36 bytes, and an entry in each of the guard's two tables 16 bytes.
const IPV6_CLIENT_BYTES: u64 = 170;

/// Upper bound for an IPv4 client in a snapshot, which is read as a whole.
const IPV4_SNAPSHOT_BYTES: u64 = 32;

/// Upper bound for an IPv6 client in a snapshot.
const IPV6_SNAPSHOT_BYTES: u64 = 50;

/// Address space that a thread's stack reserves. Most of it is never touched.
const STACK_BYTES: u64 = 2 << 20;

/// The number of threads other than the workers: the main thread, the threads of the signals, the log, the
/// listener, the endpoint, the snapshots and `DENY_FILE`, and two that read files at the start if the disk
/// does not answer.
const OTHER_THREADS: usize = 9;

/// Address space that glibc reserves for each malloc arena. Most of it stays empty.
const ARENA_BYTES: u64 =
    if cfg!(all(target_env = "gnu", target_pointer_width = "64")) { 64 << 20 } else { 0 };

/// The limit on malloc arenas per processor, unless `MALLOC_ARENA_MAX` is set.
const ARENAS_A_PROCESSOR: u64 = 8;

/// The settings that determine how much memory the daemon can need.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// `MAX_CLIENTS`.
    pub clients: u32,
    /// True if the daemon serves IPv6 clients.
    pub is_ipv6: bool,
    /// True if the daemon writes snapshots.
    pub has_snapshots: bool,
    /// `WORKER_POOL_SIZE`.
    pub workers: usize,
}

/// A bound on the memory of the process: a configured limit, or the available memory of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// A phrase for the limit, as the subject of a sentence.
    pub name: &'static str,
    /// The size of the limit.
    pub bytes: u64,
    /// Bytes that count against the limit although no client uses them.
    pub taken: u64,
    /// The settings that raise the limit, by service manager or shell. `None` if no setting does.
    pub raise: Option<&'static str>,
}

/// A limit is too small for `MAX_CLIENTS`.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TooSmall(String);

impl Needs {
    /// The needs of a daemon with these settings.
    #[must_use]
    pub fn of(config: &Config, is_ipv6: bool) -> Self {
        Self {
            clients: config.max_clients,
            is_ipv6,
            has_snapshots: config.snapshot_path.is_some(),
            workers: config.worker_pool_size,
        }
    }

    /// Upper bound on the memory of the whole daemon, in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        IDLE_BYTES + u64::from(self.clients) * self.bytes_a_client()
    }

    fn bytes_a_client(self) -> u64 {
        let (table, snapshot) = if self.is_ipv6 {
            (IPV6_CLIENT_BYTES, IPV6_SNAPSHOT_BYTES)
        } else {
            (IPV4_CLIENT_BYTES, IPV4_SNAPSHOT_BYTES)
        };
        table + if self.has_snapshots { snapshot } else { 0 }
    }

    /// Checks that the daemon fits into the limits of this process. A limit that cannot be read is ignored.
    ///
    /// # Errors
    /// If the limit with the least room is too small.
    pub fn check(self, machine: &Machine) -> Result<(), TooSmall> {
        let limits = self.limits(machine, "proc/self").into_iter();
        let least = limits.filter_map(|limit| limit.ok().flatten()).min_by_key(Limit::room);
        match least {
            Some(limit) => match self.problem(&limit) {
                Some(problem) => Err(TooSmall(problem.to_string())),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The problem with a limit, if it is too small.
    #[must_use]
    pub fn problem(self, limit: &Limit) -> Option<Occurrence> {
        let (needed, room) = (self.bytes(), limit.room());
        if room >= needed {
            return None;
        }
        let enough = megabytes((limit.taken + needed).next_multiple_of(1_000_000));
        let fit = room.saturating_sub(IDLE_BYTES) / self.bytes_a_client();
        let (needed, room) = (megabytes(needed), megabytes(room));
        let sizes: [(&str, &dyn Display); 3] =
            [("clients", &self.clients), ("needed", &needed), ("room", &room)];
        let Some(settings) = limit.raise else { return Some(MEMORY_SHORT.with(&sizes)) };
        let raise: [(&str, &dyn Display); 3] =
            [("limit", &limit.name), ("enough", &enough), ("settings", &settings)];
        let values = [sizes, raise].concat();
        Some(match fit {
            0 => MEMORY_LIMIT_TINY.with(&values),
            fit => MEMORY_LIMIT_SMALL.with(&[&values[..], &[("fit", &fit)]].concat()),
        })
    }

    /// The memory limits on a process. `process` is the folder of the process, such as `proc/self`. `None`
    /// means that no limit is set.
    pub fn limits(self, machine: &Machine, process: &str) -> [io::Result<Option<Limit>>; 3] {
        [
            of_the_group(machine, process),
            self.on_address_space(machine, process),
            self.on_data(machine, process),
        ]
    }

    fn on_address_space(self, machine: &Machine, process: &str) -> io::Result<Option<Limit>> {
        let Some(bytes) = machine.soft_limit(process, "Max address space")? else {
            return Ok(None);
        };
        let processors = processors(machine, process)?;
        let threads = self.threads();
        let arenas = most_arenas(machine, process).unwrap_or(processors * ARENAS_A_PROCESSOR);
        Ok(Some(Limit {
            name: "the limit on address space (`ulimit -v`), minus what the threads reserve,",
            bytes,
            taken: threads * STACK_BYTES + threads.min(arenas) * ARENA_BYTES,
            raise: Some("systemd: LimitAS=infinity, shell: ulimit -v unlimited"),
        }))
    }

    fn on_data(self, machine: &Machine, process: &str) -> io::Result<Option<Limit>> {
        let Some(bytes) = machine.soft_limit(process, "Max data size")? else { return Ok(None) };
        Ok(Some(Limit {
            name: "the limit on data (`ulimit -d`), minus the stacks of the threads,",
            bytes,
            taken: self.threads() * STACK_BYTES,
            raise: Some("systemd: LimitDATA=infinity, shell: ulimit -d unlimited"),
        }))
    }

    fn threads(self) -> u64 {
        (self.workers + OTHER_THREADS) as u64
    }
}

impl Limit {
    /// The bytes that the limit leaves for the daemon.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.bytes.saturating_sub(self.taken)
    }
}

/// Formats bytes as whole megabytes of 10⁶ bytes, rounded down.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

/// The number of processors that a process may run on.
fn processors(machine: &Machine, process: &str) -> io::Result<u64> {
    let mask = machine.line(&format!("{process}/status"), "Cpus_allowed:")?;
    let digits = mask.chars().filter_map(|digit| digit.to_digit(16));
    Ok(digits.map(|digit| u64::from(digit.count_ones())).sum())
}

/// `MALLOC_ARENA_MAX` in the environment of a process, see `mallopt(3)`.
fn most_arenas(machine: &Machine, process: &str) -> Option<u64> {
    let environment = machine.text(&format!("{process}/environ")).ok()?;
    let value = |variable: &str| {
        variable.strip_prefix("MALLOC_ARENA_MAX=")?.parse().ok().filter(|most| *most > 0)
    };
    environment.split('\0').find_map(value)
}

fn of_the_group(machine: &Machine, process: &str) -> io::Result<Option<Limit>> {
    let limit =
        machine.limit_of_the_group(process, "memory", "memory.max", "memory.limit_in_bytes")?;
    Ok(limit.map(|bytes| Limit {
        name: "the limit of the control group",
        bytes,
        taken: 0,
        raise: Some("systemd: MemoryMax=, Docker: --memory, Compose: mem_limit"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max data size             unlimited            unlimited            bytes
Max address space         unlimited            unlimited            bytes
";

    const NEEDS: Needs =
        Needs { clients: 200_000, is_ipv6: false, has_snapshots: false, workers: 10 };

    fn group(files: &[(&str, &str)]) -> io::Result<Option<u64>> {
        let limit = of_the_group(&Fake::new(files).0, "proc/self")?;
        Ok(limit.map(|limit| limit.bytes))
    }

    #[test]
    fn memory_per_client_depends_on_family_and_snapshots() {
        let more = |needs: Needs| needs.bytes() - Needs { clients: 0, ..needs }.bytes();
        assert_eq!(more(NEEDS), 20_000_000);
        assert_eq!(more(Needs { is_ipv6: true, ..NEEDS }), 34_000_000);
        assert_eq!(more(Needs { has_snapshots: true, ..NEEDS }), 26_400_000);
        assert_eq!(more(Needs { is_ipv6: true, has_snapshots: true, ..NEEDS }), 44_000_000);
        let most = Needs { clients: u32::MAX, is_ipv6: true, has_snapshots: true, workers: 256 };
        assert!(most.bytes() > u64::from(u32::MAX) * 200);
    }

    #[test]
    fn the_tightest_memory_limit_applies() {
        let check = |needs: Needs, group: &str, data: &str| {
            let fake = Fake::new(&[
                ("proc/self/limits", &LIMITS.replacen("unlimited", data, 1)),
                ("proc/self/status", "Cpus_allowed:\t3\n"),
                ("proc/self/cgroup", "0::/"),
                ("sys/fs/cgroup/memory.max", group),
            ]);
            needs.check(&fake.0).map_err(|error| error.to_string())
        };
        let needed = NEEDS.bytes().to_string();
        assert_eq!(check(NEEDS, "max", "unlimited"), Ok(()));
        assert_eq!(check(NEEDS, &needed, "unlimited"), Ok(()));
        assert_eq!(check(Needs { clients: 1, ..NEEDS }, "34000000", "unlimited"), Ok(()));
        for (group, data, summary, remedy) in [
            (
                "40000000",
                "unlimited",
                "MAX_CLIENTS=200000 needs up to 53 MB of memory, but the limit of the control group leaves 40 MB.",
                "Raise the limit to 54 MB (systemd: MemoryMax=, Docker: --memory, Compose: mem_limit), or set MAX_CLIENTS=64455 or less.",
            ),
            (
                "30000000",
                "100000000",
                "MAX_CLIENTS=200000 needs up to 53 MB of memory, but the limit of the control group leaves 30 MB.",
                "Raise the limit to 54 MB (systemd: MemoryMax=, Docker: --memory, Compose: mem_limit).",
            ),
            (
                "50000000",
                "82291456",
                "MAX_CLIENTS=200000 needs up to 53 MB of memory, but the limit on data (`ulimit -d`), minus the stacks of the threads, leaves 42 MB.",
                "Raise the limit to 94 MB (systemd: LimitDATA=infinity, shell: ulimit -d unlimited), or set MAX_CLIENTS=88911 or less.",
            ),
        ] {
            let complaint = check(NEEDS, group, data).unwrap_err();
            assert!(complaint.starts_with(summary) && complaint.ends_with(remedy), "{complaint}");
        }
        let fits = Needs { clients: 64_455, ..NEEDS };
        assert_eq!(check(fits, "40000000", "unlimited"), Ok(()));
        assert!(check(Needs { clients: 64_456, ..NEEDS }, "40000000", "unlimited").is_err());
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_ignored() {
        for files in [
            &[][..],
            &[("proc/self/limits", "nonsense"), ("proc/self/cgroup", "nonsense")],
            &[("proc/self/limits", "Max data size many"), ("proc/self/cgroup", "0:\n")],
            &[("proc/self/limits", "Max data size 1e9 1\nMax address space 1 1")],
            &[("proc/self/cgroup", "0::/a"), ("sys/fs/cgroup/a/memory.max", "little")],
            &[("proc/self/cgroup", "0::/../a"), ("sys/fs/cgroup/memory.max", "max")],
        ] {
            NEEDS.check(&Fake::new(files).0).unwrap();
        }
    }

    #[test]
    fn threads_reserve_address_space() {
        let taken = |mask: &str, environ: &str| {
            let fake = Fake::new(&[
                ("proc/7/limits", &LIMITS.replace("unlimited", "5000000000")),
                ("proc/7/status", &format!("Cpus_allowed:\t{mask}\nCpus_allowed_list:\t0-9\n")),
                ("proc/7/environ", environ),
            ]);
            let [group, space, data] = NEEDS.limits(&fake.0, "proc/7").map(Result::unwrap);
            assert_eq!(group, None);
            [space, data].map(|limit| limit.unwrap().taken)
        };
        let (stack, arena) = (STACK_BYTES, ARENA_BYTES);
        assert_eq!(taken("1", ""), [19 * stack + 8 * arena, 19 * stack]);
        assert_eq!(taken("00000001,80000003", "")[0], 19 * stack + 19 * arena);
        assert_eq!(taken("3", "A=B\0MALLOC_ARENA_MAX=1\0C=D")[0], 19 * stack + arena);
        assert_eq!(taken("3", "MALLOC_ARENA_MAX=x")[0], 19 * stack + 16 * arena);
    }

    #[test]
    fn the_lowest_limit_of_nested_control_groups_applies() {
        let two = |inner, outer| {
            group(&[
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
        assert_eq!(group(&container).unwrap(), Some(300));
        let of_old = |root| {
            group(&[
                ("proc/self/cgroup", "9:name=systemd:/\n4:hugetlb,memory:/docker/a:b\n0::/"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", root),
            ])
        };
        assert_eq!(of_old("400").unwrap(), Some(400));
        assert_eq!(of_old("9223372036854771712").unwrap(), None);
        assert_eq!(group(&[]).unwrap(), None);
        assert!(group(&[("proc/self/cgroup", "nonsense")]).is_err());
    }
}
