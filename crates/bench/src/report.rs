//! The result of a run.

mod interruption;
mod text;
mod turnover;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::baseline::Baseline;
use crate::crowd::Crowd;
use crate::measurement::Measured;
use crate::plan::Plan;
use crate::processes::Usage;
use crate::subject::Log;
use interruption::Interruption;
use turnover::Turnover;

/// All figures of one run, in the form in which `--json` prints them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// `loopback`, `wire` or `target`.
    pub(crate) route: &'static str,
    pub(crate) server: SocketAddr,
    pub(crate) clients: u32,
    pub(crate) measured_clients: u32,
    pub(crate) heartbeat_every_seconds: f64,
    pub(crate) register_in_seconds: f64,
    pub(crate) seconds: u64,
    pub(crate) pings: Pings,
    pub(crate) deviation_ms: Quantiles,
    pub(crate) first_ping_seconds: FirstPing,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) kernel_drops: Drops,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) baseline: Option<MachineLimit>,
    /// The effect of `--halve-after`.
    pub(crate) halving: Option<Recovery>,
    /// The effect of `--restart`.
    pub(crate) restart: Option<Interruption>,
    /// The effect of `--churn`.
    pub(crate) churn: Option<Turnover>,
    pub(crate) timeline_step_seconds: u64,
    pub(crate) timeline: Vec<Step>,
}

/// Pings to the measured clients, unless stated otherwise.
#[derive(Debug, Serialize)]
pub(crate) struct Pings {
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) late: u64,
    pub(crate) missed: u64,
    pub(crate) duplicate: u64,
    /// Datagrams that are not pings of this daemon.
    pub(crate) strange: u64,
    /// The smallest and the largest number of pings to one client.
    pub(crate) fewest: u64,
    pub(crate) most: u64,
    /// Pings to all clients. The kernel's counter is read a moment before or after the measurement, so the
    /// number is off by a few.
    pub(crate) delivered_to_all: u64,
}

/// Quantiles of a time, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

/// Time from a client's first heartbeat to its first ping, in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct FirstPing {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) clients_never_pinged: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Heartbeats {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// Time until each client had sent its first heartbeat.
    pub(crate) registered_in_seconds: f64,
    pub(crate) worst_lateness_ms: f64,
}

/// Datagrams that the kernel dropped because a receive buffer was full.
#[derive(Debug, Serialize)]
pub(crate) struct Drops {
    /// Heartbeats dropped at the daemon's socket.
    pub(crate) daemon: Option<u64>,
    /// Pings dropped at the bench's sockets.
    pub(crate) bench: u64,
}

/// The daemon's resource usage and its own figures.
///
/// With `--restart` the processor time and the counts cover both processes. The processor time of the first
/// process ends at the signal. Its counts end at its last summary line, which it logs once a minute and on
/// SIGTERM. The memory is that of the second process; the idle memory is that of the first process.
#[derive(Debug, Serialize)]
pub(crate) struct Daemon {
    pub(crate) cpu_cores: f64,
    pub(crate) cpu_ns_per_ping: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) resident_bytes_idle: u64,
    pub(crate) resident_bytes_per_client: f64,
    pub(crate) clients_at_end: u64,
    pub(crate) heartbeats: u64,
    pub(crate) pings: u64,
    pub(crate) failed_pings: u64,
    pub(crate) skipped_slots: u64,
    pub(crate) worst_lateness_ms: f64,
    /// With `--scrape`: responses of the daemon's HTTP endpoint.
    pub(crate) http_answers: u64,
    pub(crate) warnings: Vec<String>,
}

/// The cost of a bare `sendmmsg` loop on one core over the same path, and the wake-up lateness of a thread
/// that only sleeps.
#[derive(Debug, Serialize)]
pub(crate) struct MachineLimit {
    pub(crate) cpu_ns_per_datagram: f64,
    pub(crate) datagrams_per_second: f64,
    /// The daemon's processor time per ping, divided by the loop's processor time per datagram.
    pub(crate) ratio: f64,
    pub(crate) wakeup_lateness_ms: Quantiles,
}

/// How the daemon recovered after half of the clients fell silent.
#[derive(Debug, Serialize)]
pub(crate) struct Recovery {
    /// How long the daemon kept pinging the silent clients.
    pub(crate) pinged_on_seconds: f64,
    /// How long pings then continued to come out of time. Null if the run ended before all pings were
    /// punctual.
    pub(crate) recovered_in_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) delivered: u64,
    pub(crate) late: u64,
    pub(crate) worst_deviation_ms: f64,
}

/// If a heartbeat is later than this, the crowd is too large for the processor time that is left to the
/// bench.
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

/// A quantile of a histogram in nanoseconds, converted to a unit of `unit` nanoseconds. An empty histogram
/// gives NaN, which JSON writes as null.
fn quantile(histogram: &Histogram<u64>, quantile: f64, unit: u64) -> f64 {
    if histogram.is_empty() {
        return f64::NAN;
    }
    ratio(histogram.value_at_quantile(quantile), unit)
}

impl Report {
    pub(crate) fn new(
        route: &'static str,
        crowd: &Crowd,
        plan: &Plan,
        measured: &Measured,
        daemon: Option<(Usage, Log)>,
        baseline: Option<Baseline>,
    ) -> Self {
        let Measured { sent, heard, watched } = measured;
        let delivered_to_all = heard.delivered + watched.pings_to_the_rest;
        let restart = plan.restart.and_then(|restart| {
            Interruption::new(restart, measured, daemon.as_ref().map(|(_, log)| log))
        });
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
                log.clients.max(crowd.size.into()),
            ),
            clients_at_end: log.clients,
            heartbeats: log.heartbeats,
            pings: log.pings,
            failed_pings: log.failed_pings,
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
            restart,
            churn: Turnover::new(plan, measured),
            timeline_step_seconds: plan.timeline_step().as_secs(),
            timeline: heard
                .timeline
                .iter()
                .map(|step| Step {
                    delivered: step.delivered,
                    late: step.late,
                    worst_deviation_ms: millis(step.worst_deviation),
                })
                .collect(),
        }
    }

    /// True if no client missed a ping, no client was lost in a restart, and churn caused neither overdue
    /// pings nor memory growth. Pings missed because of a restart are excused for clients that were pinged
    /// again.
    pub(crate) fn is_good(&self) -> bool {
        let excused = self.restart.as_ref().map_or(0, |restart| restart.missed);
        self.pings.delivered > 0
            && self.pings.missed <= excused
            && self.restart.as_ref().is_none_or(|restart| restart.clients_lost == 0)
            && self.churn.as_ref().is_none_or(|churn| {
                churn.is_good() && self.first_ping_seconds.clients_never_pinged == 0
            })
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
