//! The standard metrics of a process.

use std::sync::OnceLock;
use std::time::Duration;

use procfs::process::{LimitValue, Process};
use prometheus::proto::{MetricFamily, MetricType};

use super::{counter, family, number, single, value};
use crate::clock::{self, Time};

/// When this process was started, in seconds since 1970. The first scrape computes the time from the wall
/// clock. Later scrapes return the same value, even if that clock has been set.
static STARTED: OnceLock<f64> = OnceLock::new();

/// Reads the metrics from `/proc`. Fails if a file in `/proc` cannot be read.
pub(super) fn metrics() -> procfs::ProcResult<Vec<MetricFamily>> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    #[expect(clippy::cast_precision_loss, reason = "a precision of one tick is enough")]
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let started = *STARTED.get_or_init(|| boot().as_secs_f64() + seconds(stat.starttime));
    let mut families = vec![
        family(
            MetricType::COUNTER,
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            vec![counter(seconds(stat.utime + stat.stime))],
        ),
        single("process_open_fds", "Number of open file descriptors.", process.fd_count()?),
        number("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.vsize),
        number(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            stat.rss * procfs::page_size(),
        ),
        family(
            MetricType::GAUGE,
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            vec![value(started)],
        ),
        number(
            "process_threads",
            "Number of OS threads in the process.",
            stat.num_threads.cast_unsigned(),
        ),
    ];
    if let LimitValue::Value(limit) = process.limits()?.max_open_files.soft_limit {
        families.push(number("process_max_fds", "Maximum number of open file descriptors.", limit));
    }
    Ok(families)
}

/// When the machine was started, in time since 1970 by the wall clock. The time is computed from the clocks,
/// because `/proc/stat` is not always readable.
fn boot() -> Duration {
    let boot = clock::wall().before(clock::now().since(Time::default()));
    Duration::from_nanos(boot.as_nanos())
}
