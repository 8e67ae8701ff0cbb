//! The metrics in the text format of Prometheus, named by its conventions.

#[cfg(target_os = "linux")]
mod process;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::clock;
use crate::engine::registry::LocalUse;
use crate::metrics::{Definition, LATENESS_BOUNDS};
use crate::shared::Shared;
use crate::status::{Buffers, DenyFile, Guard, Snapshot, Status};

pub(super) const TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics. Slowly changing values come from `status`, which is at most a second old.
pub(super) fn metrics(shared: &Shared, status: &Status) -> String {
    let totals = shared.totals();
    let (ipv4, ipv6) = shared.engine.registry().families();
    let mut families = vec![
        gauge("wakeupd_build_info", "The version, as a label.", "version", [(&*status.version, 1)]),
        gauge("wakeupd_clients", "Live clients.", "family", [("ipv4", ipv4), ("ipv6", ipv6)]),
        single(
            "wakeupd_guard_enforcing",
            "1 if GUARD_MODE is enforce, 0 if it is observe.",
            usize::from(shared.engine.guard().enforces()),
        ),
        single(
            "wakeupd_denied_networks",
            "Networks in DENY_FILE, after adjacent and nested networks are merged.",
            shared.engine.guard().denied(),
        ),
        lateness(&totals.lateness, totals.lateness_micros),
        single(
            "wakeupd_stuck_tasks",
            "Tasks that have not completed their loop for more than 3 s.",
            shared.watchdog.stuck(clock::now()).len(),
        ),
    ];
    families.extend(totals.counts().iter().map(|(definition, counts)| total(definition, counts)));
    families.extend(caps(status));
    families.extend(local_addresses(shared.engine.registry().local_use()));
    families.extend(buffers(&status.buffers));
    families.extend(status.snapshot.iter().flat_map(snapshot));
    families.extend(status.deny_file.iter().flat_map(deny_file));
    #[cfg(target_os = "linux")]
    families.extend(process::metrics().unwrap_or_default());
    TextEncoder::new().encode_to_string(&families).expect("every family has a metric")
}

/// A counter, with a metric for each of its reasons.
#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^52 need not be exact")]
fn total(definition: &Definition, counts: &[u64]) -> MetricFamily {
    let Definition { metric, help, reasons, .. } = definition;
    let metrics = if reasons.is_empty() {
        counts.iter().map(|count| counter(*count as f64)).collect()
    } else {
        let labelled =
            |(reason, count): (&&str, &u64)| labelled(counter(*count as f64), "reason", reason);
        reasons.iter().zip(counts).map(labelled).collect()
    };
    family(MetricType::COUNTER, metric, help, metrics)
}

fn caps(status: &Status) -> [MetricFamily; 3] {
    let Guard { max_clients_per_address, max_clients_per_prefix, .. } = status.guard;
    [
        single(
            "wakeupd_max_clients",
            "MAX_CLIENTS: cap on simultaneous clients.",
            status.clients.max as usize,
        ),
        single(
            "wakeupd_max_clients_per_address",
            "MAX_CLIENTS_PER_ADDRESS: cap on simultaneous clients per IPv4 address or IPv6 /64.",
            max_clients_per_address as usize,
        ),
        single(
            "wakeupd_max_clients_per_prefix",
            "MAX_CLIENTS_PER_PREFIX: cap on simultaneous clients per IPv4 /24 or IPv6 /56.",
            max_clients_per_prefix as usize,
        ),
    ]
}

fn local_addresses(local_use: LocalUse) -> [MetricFamily; 2] {
    [
        single(
            "wakeupd_local_addresses",
            "Local addresses to which clients send heartbeats.",
            local_use.addresses,
        ),
        single(
            "wakeupd_clients_without_local_address",
            "Clients whose pings leave from an address that the kernel chooses, because the table of local addresses is full.",
            local_use.clients_without as usize,
        ),
    ]
}

fn buffers(buffers: &Buffers) -> [MetricFamily; 4] {
    [
        single(
            "wakeupd_receive_buffer_bytes",
            "Size of the receive buffer that the kernel granted.",
            buffers.receive_bytes,
        ),
        single(
            "wakeupd_wanted_receive_buffer_bytes",
            "Size of the receive buffer that the daemon requested.",
            buffers.wanted_receive_bytes,
        ),
        single(
            "wakeupd_send_buffer_bytes",
            "Size of each send buffer that the kernel granted.",
            buffers.send_bytes,
        ),
        single(
            "wakeupd_wanted_send_buffer_bytes",
            "Size of each send buffer that the daemon requested.",
            buffers.wanted_send_bytes,
        ),
    ]
}

fn snapshot(snapshot: &Snapshot) -> [MetricFamily; 6] {
    [
        count("wakeupd_snapshots_total", "Snapshots written.", snapshot.written),
        count("wakeupd_failed_snapshots_total", "Failed snapshot writes.", snapshot.failed),
        float(
            "wakeupd_snapshot_age_seconds",
            "Age of the last snapshot, or the uptime before the first snapshot.",
            snapshot.age_seconds,
        ),
        float(
            "wakeupd_snapshot_interval_seconds",
            "SNAPSHOT_INTERVAL_SECONDS: target age of the snapshot.",
            snapshot.interval_seconds,
        ),
        float(
            "wakeupd_snapshot_duration_seconds",
            "Duration of the last snapshot write, including its pauses.",
            snapshot.took_seconds,
        ),
        number("wakeupd_snapshot_bytes", "Size of the last snapshot.", snapshot.bytes),
    ]
}

fn deny_file(deny_file: &DenyFile) -> [MetricFamily; 2] {
    [
        count(
            "wakeupd_failed_deny_file_reads_total",
            "Failed reads of DENY_FILE.",
            deny_file.failed,
        ),
        single(
            "wakeupd_deny_file_stale",
            "1 if the last read of DENY_FILE failed, so its current content is not in force.",
            usize::from(deny_file.failure.is_some()),
        ),
    ]
}

fn family(kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn counter(count: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

fn value(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn labelled(mut metric: Metric, label: &str, text: &str) -> Metric {
    let mut pair = LabelPair::default();
    pair.set_name(label.to_owned());
    pair.set_value(text.to_owned());
    metric.set_label(vec![pair]);
    metric
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^52 need not be exact")]
fn count(name: &str, help: &str, count: u64) -> MetricFamily {
    family(MetricType::COUNTER, name, help, vec![counter(count as f64)])
}

#[expect(clippy::cast_precision_loss, reason = "a size beyond 2^52 need not be exact")]
fn gauge<'a>(
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'a str, usize)>,
) -> MetricFamily {
    let metric = |(text, number)| labelled(value(number as f64), label, text);
    family(MetricType::GAUGE, name, help, values.into_iter().map(metric).collect())
}

fn single(name: &str, help: &str, number: usize) -> MetricFamily {
    self::number(name, help, number as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a size beyond 2^52 need not be exact")]
fn number(name: &str, help: &str, number: u64) -> MetricFamily {
    float(name, help, number as f64)
}

fn float(name: &str, help: &str, number: f64) -> MetricFamily {
    family(MetricType::GAUGE, name, help, vec![value(number)])
}

#[expect(clippy::cast_precision_loss, reason = "a sum beyond 2^52 need not be exact")]
fn lateness(pings: &[u64], micros: u64) -> MetricFamily {
    let mut sum = 0;
    let buckets = LATENESS_BOUNDS.iter().zip(pings).map(|(bound, pings)| {
        sum += pings;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(sum);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(pings.iter().sum());
    histogram.set_sample_sum(micros as f64 / 1e6);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    family(
        MetricType::HISTOGRAM,
        "wakeupd_ping_lateness_seconds",
        "Delay from the due time of a ping until the kernel accepted it.",
        vec![metric],
    )
}
