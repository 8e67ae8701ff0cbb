//! How the daemon is, in the form in which it is told: to the page, to scripts and to `wakeupd status`.
//!
//! Times are RFC 3339 in UTC, spans are in seconds and sizes in bytes.

mod findings;
mod refusals;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use self::findings::{Finding, Seen, Severity, find};
pub use self::refusals::Refusal;

/// How the daemon is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The UDP address that it is bound to.
    pub address: SocketAddr,
    /// When it was started.
    pub started: String,
    /// How long ago that was.
    pub uptime_seconds: f64,
    /// Whether it serves, and is not stopping.
    pub ready: bool,
    /// The tasks that do not turn their loop.
    pub stuck: Vec<String>,
    /// How many clients there are.
    pub clients: Clients,
    /// What the guard does.
    pub guard: Guard,
    /// The sizes of the sockets' buffers.
    pub buffers: Buffers,
    /// The file that keeps the clients over a restart, if there is to be one.
    pub snapshot: Option<Snapshot>,
    /// The reads of `DENY_FILE`, if there is one.
    pub deny_file: Option<DenyFile>,
    /// What was counted since the start.
    pub totals: Totals,
    /// How late pings were in the last ten minutes.
    pub lateness: Lateness,
    /// The last second.
    pub now: Sample,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

/// How many clients there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Clients {
    pub ipv4: usize,
    pub ipv6: usize,
    /// `MAX_CLIENTS`.
    pub max: u32,
}

impl Clients {
    /// The clients of both families.
    #[must_use]
    pub fn total(&self) -> usize {
        self.ipv4 + self.ipv6
    }
}

/// What the guard does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    /// Whether it refuses, or only tells what it would refuse.
    pub enforcing: bool,
    /// `MAX_CLIENTS_PER_ADDRESS`.
    pub max_clients_per_address: u32,
    /// `MAX_CLIENTS_PER_PREFIX`.
    pub max_clients_per_prefix: u32,
    /// The number of networks in `DENY_FILE`.
    pub denied_networks: usize,
}

/// The sizes of the sockets' buffers: what the kernel granted and what it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Buffers {
    pub receive_bytes: usize,
    pub wanted_receive_bytes: usize,
    pub send_bytes: usize,
    pub wanted_send_bytes: usize,
}

/// The file that keeps the clients over a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// How old it is, or where it was never written the daemon.
    pub age_seconds: f64,
    /// How old it should become.
    pub interval_seconds: f64,
    /// How often it was written.
    pub written: u64,
    /// How often it could not be.
    pub failed: u64,
    /// Why not, if that was the last time.
    pub failure: Option<String>,
    /// What to do about that.
    pub remedy: Option<String>,
    /// Why the file found at the start was not used, if it was not. Reported for an hour.
    pub unused: Option<String>,
    /// How long it took to write.
    pub took_seconds: f64,
    /// The clients in it.
    pub clients: u64,
    /// Its size.
    pub bytes: u64,
}

/// The reads of `DENY_FILE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenyFile {
    /// When the networks in force were read.
    pub read: Option<String>,
    /// How often a read failed.
    pub failed: u64,
    /// The last read, if it failed.
    pub failure: Option<FailedRead>,
}

/// A failed read of `DENY_FILE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedRead {
    /// When it failed.
    pub time: String,
    /// Why. The text of a wrong line is only in the log.
    pub reason: String,
    /// The number of the wrong line, from 1, if the content is the reason.
    pub line: Option<usize>,
}

/// What was counted, by reason where there are several. The fields are those of
/// [`crate::metrics::Metrics`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are those of `Metrics`")]
pub struct Totals {
    pub heartbeats: u64,
    pub registrations: u64,
    pub restored: u64,
    pub removals: BTreeMap<String, u64>,
    pub mutes: u64,
    pub refused: BTreeMap<String, u64>,
    pub network_errors: u64,
    pub receive_drops: u64,
    pub pings: u64,
    pub failed_pings: BTreeMap<String, u64>,
    pub skipped_pings: u64,
    pub served_slots: u64,
    pub skipped_slots: u64,
    pub wrong_tokens: u64,
}

/// How late pings were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lateness {
    /// From the least late to the latest.
    pub buckets: Vec<Bucket>,
}

/// The pings that were later than the bucket before allows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// And no later than this; without end in the last bucket.
    pub le_seconds: Option<f64>,
    /// How many there were.
    pub pings: u64,
}

/// What happened in a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Its end, in seconds since 1970.
    pub time: f64,
    /// The clients at its end.
    pub clients: usize,
    /// Heartbeats that were let in.
    pub heartbeats: u64,
    /// Pings that the kernel took.
    pub pings: u64,
    /// Datagrams not let in.
    pub refused: u64,
    /// Pings that the kernel did not take.
    pub failed_pings: u64,
    /// Pings left out because the machine was too slow.
    pub skipped_pings: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub receive_drops: u64,
    /// The worst lateness of a ping.
    pub worst_lateness_seconds: f64,
}

/// A client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    /// Where its heartbeats come from.
    pub address: SocketAddr,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// When its first heartbeat came, to the second.
    pub first_seen: String,
    /// When its last heartbeat came.
    pub last_heartbeat: String,
    /// Its heartbeats.
    pub heartbeats: u32,
    /// The pings that the kernel took.
    pub pings: u32,
    /// Whether it gets no pings until its next heartbeat, because its port is closed.
    pub muted: bool,
    /// How long it will be pinged if no heartbeat comes.
    pub expires_in_seconds: f64,
}

/// A network with clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prefix {
    /// A /24 of IPv4 or a /56 of IPv6.
    pub prefix: String,
    /// Its clients.
    pub clients: u64,
    /// Those of them that are not muted.
    pub pings_per_second: u64,
    /// The share of those that have sent no more than one heartbeat, as somebody who forges does.
    pub single_heartbeat_share: f64,
}
