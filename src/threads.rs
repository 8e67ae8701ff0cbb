//! Starts threads. The daemon starts all of its threads at startup, so that a thread limit that is too small
//! causes an error then and not later.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::machine::Machine;

/// Starts a thread with a name, which tools such as `top -H` show.
///
/// # Errors
/// If the system refuses to start a thread. The message names the limits that may be the cause.
pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        let limits = limits(&Machine::new("/"), "proc/self");
        io::Error::new(
            error.kind(),
            format!(
                "cannot start the thread {name} ({error}; {limits}). Raise the limit on threads (systemd: TasksMax= and LimitNPROC=, Docker: --pids-limit, Compose: pids_limit, shell: ulimit -u) or lower WORKER_POOL_SIZE."
            ),
        )
    })
}

/// Describes the limits on a process's threads.
fn limits(machine: &Machine, process: &str) -> String {
    let group = machine.limit_of_the_group(process, "pids", "pids.max", "pids.max");
    let user = machine.soft_limit(process, "Max processes");
    let found = [("control group", group), ("user", user)].map(|(name, limit)| match limit {
        Ok(Some(limit)) => format!("{name} limit: {limit}"),
        _ => format!("{name} limit: none"),
    });
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn thread_limits_are_listed() {
        let line = |soft| format!("Max processes             {soft}   100   processes");
        let both = Fake::new(&[
            ("proc/self/limits", &line("70")),
            ("proc/self/cgroup", "0::/a"),
            ("sys/fs/cgroup/a/pids.max", "12"),
        ]);
        assert_eq!(limits(&both.0, "proc/self"), "control group limit: 12, user limit: 70");
        let neither = Fake::new(&[
            ("proc/self/limits", &line("unlimited")),
            ("proc/self/cgroup", "8:pids:/a"),
            ("sys/fs/cgroup/pids/a/pids.max", "max"),
        ]);
        assert_eq!(limits(&neither.0, "proc/self"), "control group limit: none, user limit: none");
    }
}
