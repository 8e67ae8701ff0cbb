//! The daemon's status, as served to the status page, to scripts and to `wakeupd status`.
//!
//! Times are RFC 3339 in UTC, durations are in seconds and sizes in bytes.

mod findings;
mod refusals;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use self::findings::{Finding, Seen, SocketBuffer, deny_file_unread, find};
pub use self::refusals::Refusal;
pub use crate::catalogue::Severity;
pub use crate::metrics::Report as Totals;

/// The daemon's state, counters and findings at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The bound UDP address.
    pub address: SocketAddr,
    /// The start time.
    pub started: String,
    /// The time since the start.
    pub uptime_seconds: f64,
    /// Whether the daemon is serving, so neither starting nor stopping.
    pub ready: bool,
    /// The names of the tasks with a stalled loop.
    pub stuck: Vec<String>,
    /// The number of clients and its cap.
    pub clients: Clients,
    /// The guard's mode and limits.
    pub guard: Guard,
    /// The sizes of the socket buffers.
    pub buffers: Buffers,
    /// The snapshot file, if snapshots are enabled.
    pub snapshot: Option<Snapshot>,
    /// The reads of `DENY_FILE`, if one is set.
    pub deny_file: Option<DenyFile>,
    /// The effective settings, except those that can contain networks, paths or secrets.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The counters since the start.
    pub totals: Totals,
    /// The lateness of pings in the last ten minutes.
    pub lateness: Lateness,
    /// The activity of the last second.
    pub now: Sample,
    /// The findings, worst first.
    pub findings: Vec<Finding>,
}

/// The number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Clients {
    pub ipv4: usize,
    pub ipv6: usize,
    /// `MAX_CLIENTS`.
    pub max: u32,
}

impl Clients {
    /// The number of clients of both families.
    #[must_use]
    pub fn total(&self) -> usize {
        self.ipv4 + self.ipv6
    }
}

/// The guard's mode and limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    /// Whether the guard enforces its rules. If not, it only reports the heartbeats that it would refuse.
    pub enforcing: bool,
    /// `MAX_CLIENTS_PER_ADDRESS`.
    pub max_clients_per_address: u32,
    /// `MAX_CLIENTS_PER_PREFIX`.
    pub max_clients_per_prefix: u32,
    /// The number of networks in `DENY_FILE`.
    pub denied_networks: usize,
}

/// The sizes of the socket buffers, granted and requested.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Buffers {
    pub receive_bytes: usize,
    pub wanted_receive_bytes: usize,
    pub send_bytes: usize,
    pub wanted_send_bytes: usize,
}

/// The snapshot file, which keeps the clients across a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The age of the last snapshot. Before the first snapshot, the daemon's uptime.
    pub age_seconds: f64,
    /// `SNAPSHOT_INTERVAL_SECONDS`, the target age.
    pub interval_seconds: f64,
    /// Successful writes.
    pub written: u64,
    /// Failed writes.
    pub failed: u64,
    /// The error, if the last write failed.
    pub failure: Option<String>,
    /// The remedy for `failure`. `None` if the last write succeeded.
    pub remedy: Option<String>,
    /// Why the daemon did not use the snapshot that it found at startup. `None` if there was no such problem,
    /// or an hour after the start.
    pub unused: Option<String>,
    /// The duration of the last write.
    pub took_seconds: f64,
    /// The number of clients in the last snapshot.
    pub clients: u64,
    /// The size of the snapshot file.
    pub bytes: u64,
}

/// The reads of `DENY_FILE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenyFile {
    /// The time of the last successful read. `None` if no read has succeeded yet, so no network in
    /// `DENY_FILE` is denied.
    pub read: Option<String>,
    /// Failed reads.
    pub failed: u64,
    /// Details of the last read, if it failed.
    pub failure: Option<FailedRead>,
}

/// A failed read of `DENY_FILE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedRead {
    /// The time of the failure.
    pub time: String,
    /// The cause. The text of an invalid line appears only in the log.
    pub reason: String,
    /// The number of the invalid line, from 1. `None` if the content of the file is not the cause.
    pub line: Option<usize>,
}

/// A histogram of the lateness of pings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lateness {
    /// The buckets in ascending order.
    pub buckets: Vec<Bucket>,
}

/// One bucket. It counts the pings that were later than the bound of the previous bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// The upper bound of the lateness, inclusive. `None` for the last bucket, which is unbounded.
    pub le_seconds: Option<f64>,
    /// The number of pings in the bucket.
    pub pings: u64,
}

/// The activity of one second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The end of the second, in seconds since 1970.
    pub time: f64,
    /// The number of clients at the end of the second.
    pub clients: usize,
    /// Accepted heartbeats.
    pub heartbeats: u64,
    /// Pings that the kernel accepted.
    pub pings: u64,
    /// Refused datagrams.
    pub refused: u64,
    /// Pings that the kernel rejected.
    pub failed_pings: u64,
    /// Pings skipped because a worker was late by a second or more.
    pub skipped_pings: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub receive_drops: u64,
    /// The largest lateness of a ping.
    pub worst_lateness_seconds: f64,
}

/// A registered client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    /// The source address of the client's heartbeats.
    pub address: SocketAddr,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The time of the client's first heartbeat, rounded to the second.
    pub first_seen: String,
    /// The time of the client's last heartbeat.
    pub last_heartbeat: String,
    /// The number of heartbeats from the client.
    pub heartbeats: u32,
    /// The number of pings to the client that the kernel accepted.
    pub pings: u32,
    /// Whether the daemon sends the client no pings until its next heartbeat, because its port is closed.
    pub muted: bool,
    /// The time until the client expires if it sends no other heartbeat.
    pub expires_in_seconds: f64,
}

/// A network with clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prefix {
    /// A /24 of IPv4 or a /56 of IPv6.
    pub prefix: String,
    /// The number of clients in the network.
    pub clients: u64,
    /// The pings that the network receives: one for each client that is not muted.
    pub pings_per_second: u64,
    /// The share of the clients that sent only one heartbeat, from 0 to 1. A value near 1 means forged or
    /// newly registered clients, because real clients repeat their heartbeats.
    pub single_heartbeat_share: f64,
}
