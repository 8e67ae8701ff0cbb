//! The options of the subcommands. Each doc comment of a field is its help text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::{self, Target};

/// The HTTP endpoint of the daemon to query.
#[derive(Args, Debug)]
pub struct EndpointOptions {
    /// Address of the daemon's HTTP endpoint, in place of `HTTP_ADDR`
    #[arg(long, value_name = "IP:PORT")]
    pub http_addr: Option<SocketAddr>,
}

/// Options of `wakeupd status`.
#[derive(Args, Debug)]
pub struct StatusOptions {
    /// The endpoint that reports the state.
    #[command(flatten)]
    pub endpoint: EndpointOptions,

    /// Print the status as JSON, one line per query
    #[arg(long)]
    pub json: bool,

    /// Query the daemon every second until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Options of `wakeupd healthcheck`.
#[derive(Args, Debug)]
pub struct HealthcheckOptions {
    /// The endpoint that reports the health.
    #[command(flatten)]
    pub endpoint: EndpointOptions,
}

/// Options of `wakeupd probe`.
#[derive(Args, Debug)]
pub struct ProbeOptions {
    /// Name or address of the daemon, and its port if it is not 7561
    ///
    /// Put an IPv6 address with a port in brackets, as in `[::1]:7000`.
    #[arg(value_name = "HOST[:PORT]")]
    pub target: Target,

    /// Interval between heartbeats, at least 1s (1s until the first ping)
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = values::duration)]
    pub every: Duration,

    /// Stop after this many pings, or 5 s after the last of them was due
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,

    /// Stop after this time, such as 30s or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    pub length: Option<Duration>,

    /// Use IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

/// Options of `wakeupd doctor`.
#[cfg(target_os = "linux")]
#[derive(Args, Debug)]
pub struct DoctorOptions {
    /// Print a JSON array of {check, result, seen, id, severity, why, mend, more}; result is ok, finding or unknown
    #[arg(long)]
    pub json: bool,
}

/// Subcommands of `wakeupd snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Print a summary of a snapshot
    ///
    /// The summary contains client addresses only with --clients. The exit code is 1 if the file cannot be
    /// used.
    Show(ShowOptions),
}

/// Options of `wakeupd snapshot show`.
#[derive(Args, Debug)]
pub struct ShowOptions {
    /// Path of the snapshot, as in `SNAPSHOT_PATH`
    pub file: PathBuf,

    /// Also print each client with its address
    #[arg(long)]
    pub clients: bool,
}
