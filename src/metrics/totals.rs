//! The table of the counters in `/status` and `/metrics`. To add a counter, count it in [`Metrics`] or in the
//! engine's [`Counters`], and add it here. Gauges are in `http/exposition.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::info;

use super::{LATENESS_BUCKETS, Metrics};
use crate::counter::Counter;
use crate::engine::Counters;
use crate::engine::guard::Refused;
use crate::engine::registry::Removal;
use crate::logging;
use crate::net::SendFailure;

/// The public properties of a counter.
#[derive(Debug)]
pub struct Definition {
    /// The name in `/status` and in the log.
    pub name: &'static str,
    /// The name of the Prometheus metric.
    pub metric: &'static str,
    /// The HELP text of the metric and the description in `/openapi.json`.
    pub help: &'static str,
    /// The values of the label `reason`, if the counter has one.
    pub reasons: Vec<&'static str>,
}

/// A count, or one count for each reason.
trait Counts {
    fn since(&self, earlier: &Self) -> Self;
    fn counts(&self) -> &[u64];
}

impl Counts for u64 {
    fn since(&self, earlier: &Self) -> Self {
        self - earlier
    }

    fn counts(&self) -> &[u64] {
        std::slice::from_ref(self)
    }
}

impl<const N: usize> Counts for [u64; N] {
    fn since(&self, earlier: &Self) -> Self {
        std::array::from_fn(|reason| self[reason] - earlier[reason])
    }

    fn counts(&self) -> &[u64] {
        self
    }
}

fn each<const N: usize>(counters: &[Counter; N]) -> [u64; N] {
    counters.each_ref().map(Counter::get)
}

/// The types and conversions of a counter without and with a label.
macro_rules! by_reason {
    (count) => { u64 };
    (count $Reason:ident) => { [u64; $Reason::ALL.len()] };
    (report) => { u64 };
    (report $Reason:ident) => { BTreeMap<String, u64> };
    (reasons) => { Vec::new() };
    (reasons $Reason:ident) => { $Reason::ALL.map($Reason::label).to_vec() };
    (to_report $count:expr) => { $count };
    (to_report $count:expr, $Reason:ident) => {
        $Reason::ALL.map($Reason::label).map(str::to_owned).into_iter().zip($count).collect()
    };
}

/// Defines [`Totals`] with a field for each counter, its serializable form, and the conversions. The entries in
/// `every_minute` are also fields of the log line that summarizes each minute.
macro_rules! counters {
    (
        |$engine:ident, $tasks:ident, $lateness:ident|
        every_minute { $($logged:tt)* }
        others { $($other:tt)* }
    ) => {
        counters!(@totals $engine, $tasks, $lateness, $($logged)* $($other)*);
        counters!(@summary $($logged)*);
    };
    (@totals $engine:ident, $tasks:ident, $lateness:ident, $(
        $(#[doc = $help:literal])+
        $field:ident $(by $Reason:ident)?, $metric:literal = $read:expr;
    )+) => {
        /// Counter values, since the start or over a period.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[doc = $help])+ pub $field: by_reason!(count $($Reason)?),)+
            /// Pings that the kernel accepted, by lateness bucket.
            pub lateness: [u64; LATENESS_BUCKETS],
            /// The summed lateness of the pings that the kernel accepted, in microseconds.
            pub lateness_micros: u64,
        }

        /// The counters in `/status`, broken down by reason where there are several. A counter that a daemon of
        /// another version does not have is 0.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Report {
            $($(#[doc = $help])+ pub $field: by_reason!(report $($Reason)?),)+
        }

        /// The definitions of all counters in the table.
        #[must_use]
        pub fn definitions() -> Vec<Definition> {
            vec![$(Definition {
                name: stringify!($field),
                metric: $metric,
                help: concat!($($help),+).trim_ascii(),
                reasons: by_reason!(reasons $($Reason)?),
            }),+]
        }

        impl Totals {
            pub(super) fn read($engine: &Counters, $tasks: &Metrics) -> Self {
                let $lateness = each(&$tasks.lateness);
                Self {
                    $($field: $read,)+
                    lateness: $lateness,
                    lateness_micros: $tasks.lateness_micros.get(),
                }
            }

            /// Returns the counts since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self {
                    $($field: self.$field.since(&earlier.$field),)+
                    lateness: self.lateness.since(&earlier.lateness),
                    lateness_micros: self.lateness_micros - earlier.lateness_micros,
                }
            }

            /// Returns each counter's definition and its counts, one for each reason.
            #[must_use]
            pub fn counts(&self) -> Vec<(Definition, &[u64])> {
                definitions().into_iter().zip([$(self.$field.counts()),+]).collect()
            }

            /// Returns the counters for `/status`.
            #[must_use]
            pub fn report(&self) -> Report {
                Report { $($field: by_reason!(to_report self.$field $(, $Reason)?),)+ }
            }
        }
    };
    (@summary $(
        $(#[doc = $help:literal])+
        $field:ident $(by $Reason:ident)?, $metric:literal = $read:expr;
    )+) => {
        impl Totals {
            /// Logs the summary of a minute, in which these events occurred.
            pub fn log(&self, clients: usize, worst_lateness: Duration) {
                info!(
                    clients,
                    $($field = self.$field.counts().iter().sum::<u64>(),)+
                    short_percent = (self.short_percent() * 10.0).round() / 10.0,
                    worst_lateness_ms = (worst_lateness.as_secs_f64() * 1e6).round() / 1e3,
                    "summary"
                );
            }
        }
    };
}

counters! {
    |engine, tasks, lateness|
    every_minute {
        /// Heartbeats that the guard accepted.
        heartbeats, "wakeupd_heartbeats_total" = engine.heartbeats.get();
        /// Pings that the kernel accepted.
        pings, "wakeupd_pings_total" = lateness.iter().sum();
        /// Datagrams that the guard refused. In observe mode, datagrams that it would have refused.
        refused by Refused, "wakeupd_refused_datagrams_total" = each(&engine.refused);
        /// Pings that the kernel rejected.
        failed_pings by SendFailure, "wakeupd_failed_pings_total" = each(&tasks.failed_pings);
        /// Slots with clients skipped because their worker was at least a second late.
        skipped_slots, "wakeupd_skipped_slots_total" = engine.skipped_slots.get();
    }
    others {
        /// Clients registered by their first heartbeat.
        registrations, "wakeupd_registrations_total" = engine.registrations.get();
        /// Clients restored from the snapshot at startup.
        restored, "wakeupd_restored_clients_total" = engine.restored.get();
        /// Clients removed.
        removals by Removal, "wakeupd_removals_total" = each(&engine.removals);
        /// Times a client was muted because its port is closed. In observe mode, times it would have been muted.
        mutes, "wakeupd_mutes_total" = engine.mutes.get();
        /// ICMP errors received for pings.
        network_errors, "wakeupd_network_errors_total" = tasks.network_errors.get();
        /// Datagrams that the kernel dropped because the receive buffer was full.
        receive_drops, "wakeupd_receive_drops_total" = tasks.receive_drops.get();
        /// Failed receive calls.
        failed_receives, "wakeupd_failed_receives_total" = tasks.failed_receives.get();
        /// Datagrams and ICMP errors with truncated control messages.
        truncated_control, "wakeupd_truncated_control_messages_total" = tasks.truncated_control.get();
        /// Pings skipped with their slots because their worker was at least a second late.
        skipped_pings, "wakeupd_skipped_pings_total" = engine.skipped_pings.get();
        /// Slots with clients served.
        served_slots, "wakeupd_served_slots_total" = engine.served_slots.get();
        /// HTTP requests with a wrong access token.
        wrong_tokens, "wakeupd_wrong_tokens_total" = tasks.wrong_tokens.get();
        /// Log lines dropped because standard error did not accept them in time.
        dropped_log_lines, "wakeupd_dropped_log_lines_total" = logging::dropped_lines();
    }
}

impl Totals {
    /// Returns the number of refused datagrams, for any reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Returns the number of pings that the kernel rejected, for any reason.
    #[must_use]
    pub fn failed_pings(&self) -> u64 {
        self.failed_pings.iter().sum()
    }

    /// Returns the percentage of slots that were skipped, which is how far the machine fell behind.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far fewer slots than 2^52")]
    pub fn short_percent(&self) -> f64 {
        let slots = self.skipped_slots + self.served_slots;
        100.0 * self.skipped_slots as f64 / slots.max(1) as f64
    }
}
