//! The options of the subcommands. Each doc comment of a field is its help text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::{self, Target};

/// The HTTP endpoint of the daemon to query.
#[derive(Args, Debug)]
pub struct EndpointOptions {
    /// The endpoint of the daemon, if that is not the `HTTP_ADDR` of the environment
    #[arg(long, value_name = "IP:PORT")]
    pub http_addr: Option<SocketAddr>,
}

/// Options of `wakeupd status`.
#[derive(Args, Debug)]
pub struct StatusOptions {
    /// The endpoint that reports the state.
    #[command(flatten)]
    pub endpoint: EndpointOptions,

    /// Print JSON, each answer on a line
    #[arg(long)]
    pub json: bool,

    /// Ask again every second
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
    /// The daemon: a name or an address, and its port if that is not 7561
    ///
    /// An IPv6 address with a port stands in brackets, as in `[::1]:7000`.
    #[arg(value_name = "HOST[:PORT]")]
    pub target: Target,

    /// Interval between heartbeats, at least 1s (every second until the first ping)
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = values::duration)]
    pub every: Duration,

    /// Stop after this many pings, or 5 seconds after the last of them was due
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
    /// Print an array of {check, result, seen, why, mend} as JSON; result is ok, finding or unknown
    #[arg(long)]
    pub json: bool,
}

/// Subcommands of `wakeupd snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Print what is in a snapshot
    ///
    /// Only with --clients it prints addresses. The exit code is 1 if the file cannot be used.
    Show(ShowOptions),
}

/// Options of `wakeupd snapshot show`.
#[derive(Args, Debug)]
pub struct ShowOptions {
    /// The file that `SNAPSHOT_PATH` names
    pub file: PathBuf,

    /// Print each client too, with its address
    #[arg(long)]
    pub clients: bool,
}
