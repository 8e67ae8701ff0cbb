//! What a run of the bench says.

use std::fmt::{self, Display};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::HumanCount;
use serde::Serialize;

use super::baseline::Baseline;
use super::crowd::Crowd;
use super::pings::LATE;
use super::processes::Usage;
use super::run::{Measured, Plan};
use super::subject::Log;

/// All figures of one run, in the form in which `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// `loopback`, `wire` or `target`.
    pub(super) route: &'static str,
    pub(super) server: SocketAddr,
    pub(super) clients: u32,
    pub(super) measured_clients: u32,
    pub(super) heartbeat_every_seconds: f64,
    pub(super) register_in_seconds: f64,
    pub(super) seconds: u64,
    pub(super) pings: Pings,
    pub(super) deviation_ms: Quantiles,
    pub(super) first_ping_seconds: FirstPing,
    pub(super) heartbeats: Heartbeats,
    pub(super) kernel_drops: Drops,
    pub(super) daemon: Option<Daemon>,
    pub(super) baseline: Option<MachineLimit>,
    /// What followed `--halve-after`.
    pub(super) halving: Option<Recovery>,
    pub(super) timeline: Vec<Second>,
}

/// Pings to the measured clients, unless said otherwise.
#[derive(Debug, Serialize)]
pub(super) struct Pings {
    pub(super) expected: u64,
    pub(super) delivered: u64,
    pub(super) late: u64,
    pub(super) missed: u64,
    pub(super) duplicate: u64,
    /// Datagrams that were no pings of this daemon.
    pub(super) strange: u64,
    /// What the client that got the fewest and the one that got the most got.
    pub(super) fewest: u64,
    pub(super) most: u64,
    /// To all clients, by the kernel's count, which is off by what a moment brings.
    pub(super) delivered_to_all: u64,
}

/// Of many times, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) p99_99: f64,
    pub(super) max: f64,
}

/// How many seconds after its first heartbeat a client was pinged.
#[derive(Debug, Serialize)]
pub(super) struct FirstPing {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) clients_never_pinged: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Heartbeats {
    pub(super) sent: u64,
    pub(super) failed: u64,
    /// How long it took until each client had sent one.
    pub(super) registered_in_seconds: f64,
    pub(super) worst_lateness_ms: f64,
}

/// Datagrams that the kernel dropped because a buffer was full.
#[derive(Debug, Serialize)]
pub(super) struct Drops {
    /// Heartbeats, at the daemon's.
    pub(super) daemon: Option<u64>,
    /// Pings, at the bench's.
    pub(super) bench: u64,
}

/// What the daemon used and said.
#[derive(Debug, Serialize)]
pub(super) struct Daemon {
    pub(super) cpu_cores: f64,
    pub(super) cpu_ns_per_ping: f64,
    pub(super) resident_bytes: u64,
    pub(super) resident_bytes_idle: u64,
    pub(super) resident_bytes_per_client: f64,
    pub(super) clients_at_end: u64,
    pub(super) heartbeats: u64,
    pub(super) pings: u64,
    pub(super) failed_sends: u64,
    pub(super) skipped_slots: u64,
    pub(super) worst_lateness_ms: f64,
    /// With `--scrape`: how often its endpoint answered.
    pub(super) http_answers: u64,
    pub(super) warnings: Vec<String>,
}

/// What a bare `sendmmsg` loop costs on one core over the same path, and how late a thread wakes up
/// that does nothing but sleep.
#[derive(Debug, Serialize)]
pub(super) struct MachineLimit {
    pub(super) cpu_ns_per_datagram: f64,
    pub(super) datagrams_per_second: f64,
    /// The daemon's processor time for a ping in terms of the loop's.
    pub(super) ratio: f64,
    pub(super) wakeup_lateness_ms: Quantiles,
}

/// What followed when half of the clients had fallen silent.
#[derive(Debug, Serialize)]
pub(super) struct Recovery {
    /// How long those were pinged still.
    pub(super) pinged_on_seconds: f64,
    /// How long pings came out of time after that; null if they did so to the end.
    pub(super) recovered_in_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Second {
    pub(super) delivered: u64,
    pub(super) late: u64,
    pub(super) worst_deviation_ms: f64,
}

/// A crowd whose heartbeats are later than this is too large for what the machine has left for it.
const BEHIND_MS: f64 = 2_000.0;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

/// A quantile of nanoseconds, in the unit that so many of them make. That of nothing is no number,
/// which JSON writes as null.
fn quantile(histogram: &Histogram<u64>, quantile: f64, unit: u64) -> f64 {
    if histogram.is_empty() {
        return f64::NAN;
    }
    ratio(histogram.value_at_quantile(quantile), unit)
}

impl Report {
    pub(super) fn new(
        route: &'static str,
        crowd: &Crowd,
        plan: &Plan,
        measured: &Measured,
        daemon: Option<(Usage, Log)>,
        baseline: Option<Baseline>,
    ) -> Self {
        let Measured { sent, heard, watched } = measured;
        let delivered_to_all = heard.delivered + watched.pings_to_the_rest;
        let daemon = daemon.zip(watched.usage).map(|((idle, log), usage)| Daemon {
            cpu_cores: usage.cpu.as_secs_f64() / watched.time.as_secs_f64(),
            cpu_ns_per_ping: ratio(
                u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX),
                delivered_to_all,
            ),
            resident_bytes: usage.resident,
            resident_bytes_idle: idle.resident,
            resident_bytes_per_client: ratio(
                usage.resident.saturating_sub(idle.resident),
                crowd.size.into(),
            ),
            clients_at_end: log.clients,
            heartbeats: log.heartbeats,
            pings: log.pings,
            failed_sends: log.failed_sends,
            skipped_slots: log.skipped_slots,
            worst_lateness_ms: log.worst_lateness_ms,
            http_answers: log.http_answers,
            warnings: log.warnings,
        });
        let baseline = baseline.map(|baseline| {
            let cpu_ns_per_datagram = baseline.cost.as_secs_f64() * 1e9;
            let per_ping = daemon.as_ref().map_or(f64::NAN, |daemon| daemon.cpu_ns_per_ping);
            MachineLimit {
                cpu_ns_per_datagram,
                datagrams_per_second: baseline.datagrams_per_second,
                ratio: per_ping / cpu_ns_per_datagram,
                wakeup_lateness_ms: Quantiles::of(&baseline.wakeup_lateness),
            }
        });
        let first = |q| quantile(&heard.first_pings, q, SECOND);
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            route,
            server: crowd.server,
            clients: crowd.size,
            measured_clients: crowd.measured(),
            heartbeat_every_seconds: plan.heartbeat_every.as_secs_f64(),
            register_in_seconds: plan.register_in.as_secs_f64(),
            seconds: plan.length.as_secs(),
            pings: Pings {
                expected: heard.delivered - heard.duplicated + heard.missed,
                delivered: heard.delivered,
                late: heard.late,
                missed: heard.missed,
                duplicate: heard.duplicated,
                strange: heard.strange,
                fewest: heard.fewest,
                most: heard.most,
                delivered_to_all,
            },
            deviation_ms: Quantiles::of(&heard.deviations),
            first_ping_seconds: FirstPing {
                p50: first(0.5),
                p99: first(0.99),
                max: first(1.0),
                clients_never_pinged: heard.never_pinged,
            },
            heartbeats: Heartbeats {
                sent: sent.heartbeats,
                failed: sent.failed,
                registered_in_seconds: sent.registered_in.as_secs_f64(),
                worst_lateness_ms: millis(sent.worst_lateness),
            },
            kernel_drops: Drops { daemon: watched.daemon_drops, bench: watched.own_drops },
            daemon,
            baseline,
            halving: heard.halving.map(|halving| Recovery {
                pinged_on_seconds: halving.pinged_on.as_secs_f64(),
                recovered_in_seconds: halving.recovered_in.map(|time| time.as_secs_f64()),
            }),
            timeline: heard
                .seconds
                .iter()
                .map(|second| Second {
                    delivered: second.delivered,
                    late: second.late,
                    worst_deviation_ms: millis(second.worst_deviation),
                })
                .collect(),
        }
    }

    /// Whether every client got every ping.
    pub(super) fn is_complete(&self) -> bool {
        self.pings.missed == 0 && self.pings.delivered > 0
    }
}

impl Quantiles {
    fn of(nanos: &Histogram<u64>) -> Self {
        let millis = |q| quantile(nanos, q, MILLISECOND);
        Self {
            p50: millis(0.5),
            p99: millis(0.99),
            p99_9: millis(0.999),
            p99_99: millis(0.9999),
            max: millis(1.0),
        }
    }
}

/// A figure with its unit, or a dash for what is no number.
fn figure(value: f64, decimals: usize, unit: &str) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.decimals$} {unit}") }
}

/// A number with its thousands apart.
fn grouped(n: u64) -> String {
    HumanCount(n).to_string()
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
        let fairness = format!("{} to {}", grouped(pings.fewest), grouped(pings.most));
        line(f, "  per client", &fairness, "")?;
        line(f, "pings to all clients", &grouped(pings.delivered_to_all), "by the kernel's count")?;
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
            writeln!(f, "  the bench could not keep up: these figures are not the daemon's alone")?;
        }
        let daemon_drops = kernel_drops.daemon.map_or("unknown".to_owned(), grouped);
        line(f, "kernel drops, heartbeats", &daemon_drops, "at the daemon's socket")?;
        line(f, "kernel drops, pings", &grouped(kernel_drops.bench), "at the bench's socket")?;
        if let Some(daemon) = &self.daemon {
            write!(f, "{daemon}")?;
        }
        if let Some(limit) = &self.baseline {
            write!(f, "{limit}")?;
        }
        if let Some(recovery) = &self.halving {
            write!(f, "{recovery}")?;
        }
        if pings.delivered == 0 {
            writeln!(f, "Not one ping came: does a daemon listen at {}?", self.server)?;
        }
        Ok(())
    }
}

impl Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the daemon")?;
        let per_ping = if self.cpu_ns_per_ping.is_finite() {
            format!("{:.0} ns per ping", self.cpu_ns_per_ping)
        } else {
            String::new()
        };
        line(f, "  CPU", &format!("{:.3} cores", self.cpu_cores), &per_ping)?;
        #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
        let resident = self.resident_bytes as f64 / 1e6;
        let per_client = format!("{:.1} bytes per client", self.resident_bytes_per_client);
        line(f, "  resident memory", &format!("{resident:.1} MB"), &per_client)?;
        line(f, "  clients at the end", &grouped(self.clients_at_end), "")?;
        line(f, "  failed sends", &grouped(self.failed_sends), "")?;
        line(f, "  skipped slots", &grouped(self.skipped_slots), "a whole second late")?;
        let lateness = format!("{:.3} ms", self.worst_lateness_ms);
        line(f, "  worst lateness", &lateness, "of a ping, by the daemon's own clock")?;
        if self.http_answers > 0 {
            line(f, "  answers over HTTP", &grouped(self.http_answers), "")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  it warned: {warning}")?;
        }
        Ok(())
    }
}

impl Display for MachineLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_ns_per_datagram, datagrams_per_second, ratio, .. } = self;
        let rate = format!("{datagrams_per_second:.0} datagrams a second on one core");
        line(f, "a bare sendmmsg loop", &format!("{cpu_ns_per_datagram:.0} ns"), &rate)?;
        line(f, "the daemon's CPU to that", &figure(*ratio, 2, "x"), "for a ping")?;
        let Quantiles { p99_9, max, .. } = self.wakeup_lateness_ms;
        let lateness = format!("late at p99.9, at most {max:.3} ms");
        line(f, "a thread that only sleeps", &format!("{p99_9:.3} ms"), &lateness)
    }
}

impl Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pinged_on_seconds, recovered_in_seconds } = self;
        let pinged_on = format!("{pinged_on_seconds:.1} s");
        line(f, "the silent half", &pinged_on, "pinged still")?;
        let (time, remark) = match recovered_in_seconds {
            Some(time) => (format!("{time:.1} s"), "until all was in time again after that"),
            None => ("-".to_owned(), "not in time again: was there enough time to expire?"),
        };
        line(f, "recovered in", &time, remark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
