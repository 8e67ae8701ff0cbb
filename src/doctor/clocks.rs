//! Checks whether the clocks and timers allow evenly spaced pings.

use std::time::Duration;

use super::diagnosis::Diagnosis;
use super::sockets;
use crate::clock;
use crate::machine::Machine;

const SOURCE: &str = "clock source";
const TIMERS: &str = "timers";
const WALL: &str = "wall clock";

const SOURCES: &str = "sys/devices/system/clocksource/clocksource0";

/// Clock sources that need a slow hardware read or only count kernel ticks.
const SLOW: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];

/// The acceptable delay of a thread's wake-up.
const SLACK: Duration = Duration::from_millis(1);

/// The start of 2025. A wall clock before this program was written is wrong.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);

/// Time synchronisation daemons, by the first 15 letters of their names.
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

fn judge_source(current: &str, available: &str) -> Diagnosis {
    if current.is_empty() {
        return Diagnosis::unknown(SOURCE, "the kernel names none");
    }
    if !SLOW.contains(&current) {
        return Diagnosis::ok(SOURCE, current);
    }
    let faster: Vec<_> =
        available.split_ascii_whitespace().filter(|name| !SLOW.contains(name)).collect();
    let mend = match faster.first() {
        Some(faster) => format!(
            "sudo sh -c 'echo {faster} >/{SOURCES}/current_clocksource'\n# `sudo dmesg | grep -i clocksource` tells why the kernel does not use it"
        ),
        None => "# let the hypervisor offer a clock (kvm-clock, Hyper-V's, Xen's) or a stable TSC; `sudo dmesg | grep -i -e clocksource -e tsc` tells why there is none".to_owned(),
    };
    Diagnosis::finding(
        SOURCE,
        format!("{current}, which is slow or coarse"),
        "the daemon asks for the time with every batch of heartbeats and every slot: pings get late, and the machine carries fewer clients",
        mend,
    )
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

fn judge_timers(resolution: Duration, slack: Option<Duration>) -> Diagnosis {
    let why = "workers sleep until each slot is due, so every ping is late by that";
    if resolution > SLACK {
        return Diagnosis::finding(
            TIMERS,
            format!("they count ticks of {resolution:?}, because high-resolution timers are off"),
            why,
            "# start the kernel without highres=off, and with CONFIG_HIGH_RES_TIMERS; see also the clock source",
        );
    }
    match slack {
        Some(slack) if slack > SLACK => Diagnosis::finding(
            TIMERS,
            format!("a thread may wake {slack:?} late, by its timer slack"),
            why,
            "# systemd: `sudo systemctl edit wakeupd`, and there, below [Service], TimerSlackNSec=50us\n# otherwise take away whatever sets the slack of what starts the daemon",
        ),
        Some(slack) => {
            Diagnosis::ok(TIMERS, format!("of high resolution, with a slack of {slack:?}"))
        }
        None => Diagnosis::ok(TIMERS, "of high resolution"),
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

fn judge_wall(now: Duration, is_synchronised: bool, keeper: Option<&str>) -> Diagnosis {
    let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + now);
    if now < EARLIEST {
        return Diagnosis::finding(
            WALL,
            format!("it says {time}"),
            "the times in the log are wrong; pings do not depend on it",
            "sudo timedatectl set-ntp true",
        );
    }
    match keeper {
        _ if is_synchronised => {
            Diagnosis::ok(WALL, format!("it says {time}, and systemd-timesyncd has set it"))
        }
        Some(keeper) => Diagnosis::ok(WALL, format!("it says {time}, and {keeper} is running")),
        None => Diagnosis::unknown(
            WALL,
            format!(
                "it says {time}; neither chronyd nor systemd-timesyncd nor their like is seen to keep it right (of a container or a virtual machine the host may)"
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
    fn a_slow_clock_is_found_and_a_faster_one_named() {
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
            assert!(diagnosis.mend.unwrap_or_default().contains(mend));
        }
        for available in ["hpet acpi_pm", ""] {
            let mend = judge_source("acpi_pm", available).mend.unwrap();
            assert!(mend.starts_with("# let the hypervisor"), "{mend}");
        }
        let current = format!("{SOURCES}/current_clocksource");
        let fake = Fake::new(&[(current.as_str(), "jiffies\n")]);
        assert_eq!(check_source(&fake.0).result, Outcome::Finding);
        assert_eq!(check_source(&Fake::new(&[]).0).result, Outcome::Unknown);
    }

    #[test]
    fn coarse_timers_and_slack_are_found() {
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
                "of high resolution, with a slack of 50µs",
                "a thread may wake 40ms late, by its timer slack",
                "of high resolution",
            ]
        );
    }

    #[test]
    fn a_wall_clock_is_right_where_something_keeps_it() {
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
        assert_eq!(seen, "it says 1970-01-01T00:00:00Z");
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
