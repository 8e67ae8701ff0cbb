//! Checks whether the clocks and timers allow evenly spaced pings.

use std::time::Duration;

use super::diagnosis::Diagnosis;
use super::sockets;
use crate::catalogue::machine;
use crate::clock;
use crate::machine::Machine;

const SOURCE: &str = "clock source";
const TIMERS: &str = "timers";
const WALL: &str = "wall clock";

const SOURCES: &str = "sys/devices/system/clocksource/clocksource0";

/// Clock sources that need a slow hardware read or only count kernel ticks.
const SLOW: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];

/// The longest acceptable delay of a thread's wake-up.
const SLACK: Duration = Duration::from_millis(1);

/// The start of 2025, before this program was written. A wall clock that shows an earlier time is wrong.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);

/// The process names of time synchronization daemons. The kernel truncates names to 15 characters.
const KEEPERS: [&str; 6] =
    ["systemd-timesyn", "chronyd", "ntpd", "openntpd", "ntpsec-ntpd", "ptp4l"];

/// Checks the kernel's clock source.
pub(super) fn check_source(machine: &Machine) -> Diagnosis {
    let read = |name: &str| machine.text(&format!("{SOURCES}/{name}"));
    match read("current_clocksource") {
        Ok(current) => judge_source(&current, &read("available_clocksource").unwrap_or_default()),
        Err(error) => Diagnosis::unknown(SOURCE, error),
    }
}

pub(super) fn judge_source(current: &str, available: &str) -> Diagnosis {
    if current.is_empty() {
        return Diagnosis::unknown(SOURCE, "the kernel names no clock source");
    }
    if !SLOW.contains(&current) {
        return Diagnosis::ok(SOURCE, current);
    }
    let faster: Vec<_> =
        available.split_ascii_whitespace().filter(|name| !SLOW.contains(name)).collect();
    let problem = match faster.first() {
        Some(faster) => {
            machine::CLOCK_SOURCE_SLOW.with(&[("source", &current), ("faster", faster)])
        }
        None => machine::CLOCK_SOURCE_MISSING.with(&[("source", &current)]),
    };
    Diagnosis::finding(SOURCE, problem)
}

/// Checks the precision of sleeping threads. `daemon` is the pid of the running daemon.
pub(super) fn check_timers(machine: &Machine, daemon: Option<u32>) -> Diagnosis {
    let slack = |process: &str| {
        let nanos = machine.number(&format!("proc/{process}/timerslack_ns"));
        nanos.ok().map(Duration::from_nanos)
    };
    // Reading another process's slack requires a privilege.
    let slack = match daemon {
        Some(pid) => slack(&pid.to_string()),
        None => slack("self"),
    };
    judge_timers(clock::resolution(), slack)
}

pub(super) fn judge_timers(resolution: Duration, slack: Option<Duration>) -> Diagnosis {
    if resolution > SLACK {
        let resolution = format!("{resolution:?}");
        let problem = machine::TIMERS_COARSE.with(&[("resolution", &resolution)]);
        return Diagnosis::finding(TIMERS, problem);
    }
    match slack {
        Some(slack) if slack > SLACK => {
            let slack = format!("{slack:?}");
            Diagnosis::finding(TIMERS, machine::TIMER_SLACK_LARGE.with(&[("slack", &slack)]))
        }
        Some(slack) => {
            Diagnosis::ok(TIMERS, format!("high-resolution timers, with a slack of {slack:?}"))
        }
        None => Diagnosis::ok(TIMERS, "high-resolution timers"),
    }
}

/// Checks whether the wall clock is plausible and synchronised.
pub(super) fn check_wall(machine: &Machine) -> Diagnosis {
    let is_synchronised = machine.path("run/systemd/timesync/synchronized").exists();
    let keeper = sockets::names(machine)
        .ok()
        .and_then(|names| names.into_iter().find(|name| KEEPERS.contains(&name.as_str())));
    let now = Duration::from_nanos(clock::wall().as_nanos());
    judge_wall(now, is_synchronised, keeper.as_deref())
}

pub(super) fn judge_wall(now: Duration, is_synchronised: bool, keeper: Option<&str>) -> Diagnosis {
    let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + now);
    if now < EARLIEST {
        return Diagnosis::finding(WALL, machine::WALL_CLOCK_WRONG.with(&[("time", &time)]));
    }
    match keeper {
        _ if is_synchronised => {
            Diagnosis::ok(WALL, format!("{time}, synchronized by systemd-timesyncd"))
        }
        Some(keeper) => Diagnosis::ok(
            WALL,
            format!("{time}, and the time synchronization daemon {keeper} is running"),
        ),
        None => Diagnosis::unknown(
            WALL,
            format!(
                "{time}, but no time synchronization is running here (in a container or a virtual machine, the host may synchronize the clock)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn a_slow_clock_source_is_a_finding_that_names_a_faster_one() {
        let available = "tsc hpet acpi_pm";
        for (current, outcome, mend) in [
            ("tsc", Outcome::Ok, ""),
            ("kvm-clock", Outcome::Ok, ""),
            ("arch_sys_counter", Outcome::Ok, ""),
            ("hpet", Outcome::Finding, "echo tsc >/sys/devices/system/clocksource/"),
            ("", Outcome::Unknown, ""),
        ] {
            let diagnosis = judge_source(current, available);
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
            assert!(diagnosis.mend().contains(mend));
        }
        for available in ["hpet acpi_pm", ""] {
            let mend = judge_source("acpi_pm", available).mend();
            assert!(mend.starts_with("# Let the hypervisor"), "{mend}");
        }
        let current = format!("{SOURCES}/current_clocksource");
        let fake = Fake::new(&[(current.as_str(), "jiffies\n")]);
        assert_eq!(check_source(&fake.0).result, Outcome::Finding);
        assert_eq!(check_source(&Fake::new(&[]).0).result, Outcome::Unknown);
    }

    #[test]
    fn coarse_timers_and_timer_slack_are_findings() {
        let ns = Duration::from_nanos;
        for (resolution, slack, outcome) in [
            (1, Some(50_000), Outcome::Ok),
            (1, Some(1_000_000), Outcome::Ok),
            (1, None, Outcome::Ok),
            (1, Some(50_000_000), Outcome::Finding),
            (4_000_000, Some(50_000), Outcome::Finding),
        ] {
            let diagnosis = judge_timers(ns(resolution), slack.map(ns));
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
        }
        let fake = Fake::new(&[
            ("proc/self/timerslack_ns", "50000\n"),
            ("proc/7/timerslack_ns", "40000000\n"),
            ("proc/8/timerslack_ns", "much\n"),
        ]);
        let seen = [None, Some(7), Some(8)].map(|daemon| check_timers(&fake.0, daemon).seen);
        assert_eq!(
            seen,
            [
                "high-resolution timers, with a slack of 50µs",
                "The timer slack lets a thread wake up to 40ms late.",
                "high-resolution timers",
            ]
        );
    }

    #[test]
    fn a_wrong_or_unsynchronized_wall_clock_is_reported() {
        let year = Duration::from_secs(365 * 86_400);
        for (now, is_synchronised, keeper, outcome) in [
            (year * 57, true, None, Outcome::Ok),
            (year * 57, false, Some("chronyd"), Outcome::Ok),
            (year * 57, false, None, Outcome::Unknown),
            (year * 3, true, Some("chronyd"), Outcome::Finding),
        ] {
            let diagnosis = judge_wall(now, is_synchronised, keeper);
            assert_eq!(diagnosis.result, outcome, "{diagnosis:?}");
        }
        let seen = judge_wall(Duration::ZERO, false, None).seen;
        assert_eq!(seen, "The wall clock is wrong: it shows 1970-01-01T00:00:00Z.");
        let fake = |file| Fake::new(&[(file, "chronyd\n"), ("proc/2/comm", "kthreadd\n")]);
        for (file, outcome) in [
            ("proc/9/comm", Outcome::Ok),
            ("run/systemd/timesync/synchronized", Outcome::Ok),
            ("proc/9/cmdline", Outcome::Unknown),
        ] {
            assert_eq!(check_wall(&fake(file).0).result, outcome, "{file}");
        }
    }
}
