//! The metrics in the text format of Prometheus, named by its conventions.

#[cfg(target_os = "linux")]
mod process;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::clock;
use crate::engine::guard::Refused;
use crate::engine::registry::{LocalUse, Removal};
use crate::logging;
use crate::metrics::{LATENESS_BOUNDS, Totals};
use crate::net::SendFailure;
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
        count("wakeupd_heartbeats_total", "Heartbeats that were let in.", totals.heartbeats),
        count("wakeupd_registrations_total", "Clients that came.", totals.registered),
        counts(
            "wakeupd_removals_total",
            "Clients that went.",
            Removal::ALL.map(Removal::label).into_iter().zip(totals.removed),
        ),
        count(
            "wakeupd_mutes_total",
            "Times that a client was muted because its port is closed, or would have been where the guard only observes.",
            totals.muted,
        ),
        counts(
            "wakeupd_refused_datagrams_total",
            "Datagrams that were not let in, or would not have been where the guard only observes.",
            Refused::ALL.map(Refused::label).into_iter().zip(totals.refused),
        ),
        single(
            "wakeupd_guard_enforcing",
            "1 if the guard refuses what its rules say, 0 if it only observes.",
            usize::from(shared.engine.guard().enforces()),
        ),
        single(
            "wakeupd_denied_networks",
            "Networks in DENY_FILE, those that make one up taken as one.",
            shared.engine.guard().denied(),
        ),
        count(
            "wakeupd_network_errors_total",
            "ICMP errors that came back for pings.",
            totals.network_errors,
        ),
        count("wakeupd_pings_total", "Pings that the kernel took.", totals.pings()),
        counts(
            "wakeupd_failed_pings_total",
            "Pings that the kernel did not take.",
            SendFailure::ALL.map(SendFailure::label).into_iter().zip(totals.failed_sends),
        ),
        count(
            "wakeupd_skipped_pings_total",
            "Pings left out because a worker was a whole second late.",
            totals.skipped_pings,
        ),
        lateness(&totals.lateness, totals.lateness_micros),
        count("wakeupd_served_slots_total", "Slots that were not skipped.", totals.served_slots),
        count(
            "wakeupd_skipped_slots_total",
            "Slots left out because a worker was a whole second late.",
            totals.skipped_slots,
        ),
        count(
            "wakeupd_restored_clients_total",
            "Clients that came from the snapshot at the start.",
            totals.restored,
        ),
        single(
            "wakeupd_stuck_tasks",
            "Tasks that have not turned their loop for more than 3 s.",
            shared.watchdog.stuck(clock::now()).len(),
        ),
        count(
            "wakeupd_wrong_tokens_total",
            "HTTP requests that showed a wrong ADMIN_TOKEN.",
            totals.wrong_tokens,
        ),
        count(
            "wakeupd_dropped_log_lines_total",
            "Log lines dropped because standard error did not take them in time.",
            logging::dropped_lines(),
        ),
    ];
    families.extend(lost_on_arrival(&totals));
    families.extend(caps(status));
    families.extend(local_addresses(shared.engine.registry().local_use()));
    families.extend(buffers(&status.buffers));
    families.extend(status.snapshot.iter().flat_map(snapshot));
    families.extend(status.deny_file.iter().flat_map(deny_file));
    #[cfg(target_os = "linux")]
    families.extend(process::metrics().unwrap_or_default());
    TextEncoder::new().encode_to_string(&families).expect("every family has a metric")
}

fn lost_on_arrival(totals: &Totals) -> [MetricFamily; 3] {
    [
        count(
            "wakeupd_receive_drops_total",
            "Datagrams that the kernel dropped because the receive buffer was full.",
            totals.receive_drops,
        ),
        count("wakeupd_failed_receives_total", "Failed receive calls.", totals.failed_receives),
        count(
            "wakeupd_truncated_control_messages_total",
            "Datagrams and ICMP errors with truncated control messages.",
            totals.truncated_control,
        ),
    ]
}

fn caps(status: &Status) -> [MetricFamily; 3] {
    let Guard { max_clients_per_address, max_clients_per_prefix, .. } = status.guard;
    [
        single("wakeupd_max_clients", "Most clients at a time.", status.clients.max as usize),
        single(
            "wakeupd_max_clients_per_address",
            "Most clients at a time of one IPv4 address or IPv6 /64.",
            max_clients_per_address as usize,
        ),
        single(
            "wakeupd_max_clients_per_prefix",
            "Most clients at a time of one IPv4 /24 or IPv6 /56.",
            max_clients_per_prefix as usize,
        ),
    ]
}

fn local_addresses(local_use: LocalUse) -> [MetricFamily; 2] {
    [
        single(
            "wakeupd_local_addresses",
            "Local addresses that clients send to.",
            local_use.addresses,
        ),
        single(
            "wakeupd_clients_without_local_address",
            "Clients that are pinged from an address of the kernel's choice because the table of local addresses is full.",
            local_use.clients_without as usize,
        ),
    ]
}

fn buffers(buffers: &Buffers) -> [MetricFamily; 4] {
    [
        single("wakeupd_receive_buffer_bytes", "Granted receive buffer.", buffers.receive_bytes),
        single(
            "wakeupd_wanted_receive_buffer_bytes",
            "Receive buffer that was asked for.",
            buffers.wanted_receive_bytes,
        ),
        single("wakeupd_send_buffer_bytes", "Granted send buffer.", buffers.send_bytes),
        single(
            "wakeupd_wanted_send_buffer_bytes",
            "Send buffer that was asked for.",
            buffers.wanted_send_bytes,
        ),
    ]
}

fn snapshot(snapshot: &Snapshot) -> [MetricFamily; 6] {
    [
        count("wakeupd_snapshots_total", "Snapshots that were written.", snapshot.written),
        count(
            "wakeupd_failed_snapshots_total",
            "Snapshots that could not be written.",
            snapshot.failed,
        ),
        float(
            "wakeupd_snapshot_age_seconds",
            "Age of the snapshot, or of the daemon if it has written none.",
            snapshot.age_seconds,
        ),
        float(
            "wakeupd_snapshot_interval_seconds",
            "Maximum age of the snapshot under normal conditions.",
            snapshot.interval_seconds,
        ),
        float(
            "wakeupd_snapshot_duration_seconds",
            "Time that the last snapshot took, most of it in pauses.",
            snapshot.took_seconds,
        ),
        number("wakeupd_snapshot_bytes", "Size of the snapshot.", snapshot.bytes),
    ]
}

fn deny_file(deny_file: &DenyFile) -> [MetricFamily; 2] {
    [
        count(
            "wakeupd_failed_deny_file_reads_total",
            "Reads of DENY_FILE that failed.",
            deny_file.failed,
        ),
        single(
            "wakeupd_deny_file_stale",
            "1 if the last read of DENY_FILE failed, so that what it holds is not in force.",
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

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^52 need not be exact")]
fn counts<'a>(
    name: &str,
    help: &str,
    by_reason: impl IntoIterator<Item = (&'a str, u64)>,
) -> MetricFamily {
    let metric = |(reason, count)| labelled(counter(count as f64), "reason", reason);
    family(MetricType::COUNTER, name, help, by_reason.into_iter().map(metric).collect())
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
        "How long after it was due the kernel took a ping.",
        vec![metric],
    )
}
