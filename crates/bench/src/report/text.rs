//! The figures as a table.

use std::fmt::{self, Display};

use wakeupd::output::grouped;

use super::interruption::Gaps;
use super::{
    BEHIND_MS, Daemon, FirstPing, Interruption, MachineLimit, Quantiles, Recovery, Report,
    Turnover, ratio,
};
use crate::pings::LATE;

/// A figure with its unit, or a dash for NaN.
fn figure(value: f64, decimals: usize, unit: &str) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.decimals$} {unit}") }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", ratio(bytes, 1_000_000))
}

/// Writes a line of the table.
fn line(f: &mut fmt::Formatter<'_>, name: &str, value: &str, remark: &str) -> fmt::Result {
    writeln!(f, "{}", format!("{name:<26}{value:>16}   {remark}").trim_end())
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pings, deviation_ms, first_ping_seconds, heartbeats, kernel_drops, .. } = self;
        writeln!(
            f,
            "{} clients {} ({}), each with a heartbeat every {} s, measured for {} s on {} cores, Linux {}",
            grouped(self.clients.into()),
            match self.route {
                "target" => format!("of {}", self.server),
                route => format!("over {route}"),
            },
            if self.server.is_ipv6() { "IPv6" } else { "IPv4" },
            self.heartbeat_every_seconds,
            self.seconds,
            self.cores,
            self.kernel
        )?;
        let measured = match self.clients.div_ceil(self.measured_clients.max(1)) {
            1 => "to all clients, each timed".to_owned(),
            n => format!("to one client in {n}, each timed"),
        };
        line(f, "pings expected", &grouped(pings.expected), &measured)?;
        line(f, "  delivered", &grouped(pings.delivered), "")?;
        let late = format!("by more than {} ms", LATE.as_millis());
        line(f, "  late", &grouped(pings.late), &late)?;
        let missed = match pings.missed {
            0 => String::new(),
            missed => format!("{:.1} %", 100.0 * ratio(missed, pings.expected)),
        };
        line(f, "  missed", &grouped(pings.missed), &missed)?;
        line(f, "  duplicate", &grouped(pings.duplicate), "")?;
        if self.churn.is_none() {
            let fairness = format!("{} to {}", grouped(pings.fewest), grouped(pings.most));
            line(f, "  per client", &fairness, "")?;
        }
        line(f, "pings to all clients", &grouped(pings.delivered_to_all), "counted by the kernel")?;
        let Quantiles { p50, p99, p99_9, p99_99, max } = deviation_ms;
        writeln!(f, "deviation of the period from 1 s")?;
        for (name, value) in [
            ("  p50", p50),
            ("  p99", p99),
            ("  p99.9", p99_9),
            ("  p99.99", p99_99),
            ("  max", max),
        ] {
            line(f, name, &figure(*value, 3, "ms"), "")?;
        }
        let FirstPing { p50, max, clients_never_pinged, .. } = first_ping_seconds;
        let first = match clients_never_pinged {
            0 => format!("at most, median {}", figure(*p50, 3, "s")),
            never => {
                let never = grouped(*never);
                format!("at most, median {}; {never} were never pinged", figure(*p50, 3, "s"))
            }
        };
        line(f, "time to the first ping", &figure(*max, 3, "s"), &first)?;
        let sent = format!(
            "{} failed; all had registered in {:.1} s; the latest {:.1} ms late",
            heartbeats.failed, heartbeats.registered_in_seconds, heartbeats.worst_lateness_ms
        );
        line(f, "heartbeats sent", &grouped(heartbeats.sent), &sent)?;
        if heartbeats.worst_lateness_ms > BEHIND_MS {
            writeln!(
                f,
                "  the bench sent heartbeats late: these figures also show the limits of the bench"
            )?;
        }
        let daemon_drops = kernel_drops.daemon.map_or("unknown".to_owned(), grouped);
        line(f, "kernel drops, heartbeats", &daemon_drops, "at the daemon's socket")?;
        line(f, "kernel drops, pings", &grouped(kernel_drops.bench), "at the bench's socket")?;
        if let Some(daemon) = &self.daemon {
            let lives = if self.restart.is_some() {
                ", both processes together, as far as logged; the memory is that of the second process"
            } else {
                ""
            };
            write!(f, "the daemon{lives}\n{daemon}")?;
        }
        if let Some(limit) = &self.baseline {
            write!(f, "{limit}")?;
        }
        if let Some(recovery) = &self.halving {
            write!(f, "{recovery}")?;
        }
        if let Some(interruption) = &self.restart {
            write!(f, "{interruption}")?;
        }
        if let Some(turnover) = &self.churn {
            write!(f, "{turnover}")?;
        }
        if pings.delivered == 0 {
            writeln!(f, "No ping arrived. Check that a daemon listens on {}.", self.server)?;
        }
        Ok(())
    }
}

impl Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_ping = if self.cpu_ns_per_ping.is_finite() {
            format!("{:.0} ns per ping", self.cpu_ns_per_ping)
        } else {
            String::new()
        };
        line(f, "  CPU", &format!("{:.3} cores", self.cpu_cores), &per_ping)?;
        let per_client = format!("{:.1} bytes per client", self.resident_bytes_per_client);
        line(f, "  resident memory", &megabytes(self.resident_bytes), &per_client)?;
        line(f, "  clients at the end", &grouped(self.clients_at_end), "")?;
        line(f, "  failed sends", &grouped(self.failed_pings), "")?;
        line(f, "  skipped slots", &grouped(self.skipped_slots), "a whole second late")?;
        let lateness = format!("{:.3} ms", self.worst_lateness_ms);
        line(f, "  worst lateness", &lateness, "of a ping, measured by the daemon")?;
        if self.http_answers > 0 {
            line(f, "  HTTP responses", &grouped(self.http_answers), "")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  the daemon warned: {warning}")?;
        }
        Ok(())
    }
}

impl Display for MachineLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_ns_per_datagram, datagrams_per_second, ratio, .. } = self;
        let rate = format!("{datagrams_per_second:.0} datagrams a second on one core");
        line(f, "a bare sendmmsg loop", &format!("{cpu_ns_per_datagram:.0} ns"), &rate)?;
        line(f, "the daemon's CPU", &figure(*ratio, 2, "x"), "the CPU of that loop, for a ping")?;
        let Quantiles { p99_9, max, .. } = self.wakeup_lateness_ms;
        let lateness = format!("late at p99.9, at most {max:.3} ms");
        line(f, "a thread that only sleeps", &format!("{p99_9:.3} ms"), &lateness)
    }
}

impl Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pinged_on_seconds, recovered_in_seconds } = self;
        let pinged_on = format!("{pinged_on_seconds:.1} s");
        line(f, "the silent half", &pinged_on, "still pinged")?;
        let (time, remark) = match recovered_in_seconds {
            Some(time) => (format!("{time:.1} s"), "until all pings were punctual again"),
            None => (
                "-".to_owned(),
                "not punctual again: the run may be too short for the clients to expire",
            ),
        };
        line(f, "recovered in", &time, remark)
    }
}

impl Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended_in = format!("{:.3} s", self.ended_in_seconds);
        line(f, &format!("restart by {}", self.signal), &ended_in, "until the process had ended")?;
        let listening = format!("{:.3} s", self.listening_after_seconds);
        let since = if self.signal == "SIGTERM" { "after the end" } else { "after the signal" };
        line(f, "  listening again", &listening, since)?;
        if let Some(restored) = &self.restored {
            let how = format!(
                "clients, {:.3} s after the start ({:.0} ms by the daemon's log); {} expired, {} refused; the snapshot was {:.1} s old",
                restored.after_seconds,
                restored.took_ms,
                grouped(restored.expired),
                grouped(restored.refused),
                restored.age_seconds
            );
            line(f, "  restored", &grouped(restored.clients), &how)?;
        } else {
            line(f, "  restored", "-", "not logged")?;
        }
        let before = format!(
            "of {} clients with pings before the restart",
            grouped(self.clients_pinged_before)
        );
        line(f, "  clients lost", &grouped(self.clients_lost), &before)?;
        let Gaps { p50, p99, max } = self.gap_seconds;
        let gaps = format!("at most, p99 {}, median {}", figure(p99, 3, "s"), figure(p50, 3, "s"));
        line(f, "  gap between pings", &figure(max, 3, "s"), &gaps)?;
        line(f, "  missed in the gaps", &grouped(self.missed), "of the missed pings above")?;
        line(f, "  early or twice", &grouped(self.early), "less than 0.9 s after the previous ping")
    }
}

impl Display for Turnover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = format!("{} % a second; as many came", self.percent_per_second);
        line(f, "clients that left", &grouped(self.clients_left), &share)?;
        let overdue = format!(
            "more than {} ms after {} s of silence; the worst {:.1} ms",
            self.tolerance_ms, self.expiration_seconds, self.worst_overrun_ms
        );
        line(f, "  pinged beyond their time", &grouped(self.overdue_pings), &overdue)?;
        let judged = if self.is_growth_judged { "" } else { " (not judged in so short a run)" };
        let first = megabytes(self.first_resident_bytes);
        let first =
            format!("as much at the end as the {first} after {} s{judged}", self.first_seconds);
        line(f, "  memory", &format!("{:.3} x", self.growth), &first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_commas() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
