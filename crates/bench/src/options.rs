//! The command line.

use std::env;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use wakeupd::cli::values::{self, Target};

use crate::churn::Churn;
use crate::plan::{Plan, Restart};
use crate::{crowd, heartbeats, wire};

/// The daemon's default expiration.
const DEFAULT_EXPIRATION: Duration = Duration::from_secs(120);

/// The most clients that fit into the network of loopback addresses.
pub(crate) const MOST_CLIENTS: u32 = 10_000_000;

/// The shortest run with a restart: the daemon needs time to ping every client before and after the restart.
const SHORTEST_WITH_RESTART: Duration = Duration::from_secs(4);

/// Load generator for wakeupd: simulates clients and times every ping
///
/// Starts a daemon and measures it, or measures the daemon of --target. The exit code is 0 if no client missed
/// a ping and, with --restart or --churn, no client was lost or pinged for too long. Otherwise it is 1.
#[derive(Debug, Parser)]
#[command(version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// Number of clients to simulate
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub(crate) clients: u32,

    /// Interval between the heartbeats of a client, ±20 % at random
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = values::duration)]
    pub(crate) heartbeat_every: Duration,

    /// Time before the measurement over which the registrations of all clients are spread
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = values::duration)]
    pub(crate) register_in: Duration,

    /// Length of the measurement, in whole seconds
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) length: Duration,

    /// Stop the heartbeats of half of the clients after this time, and measure the others to the end
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) halve_after: Option<Duration>,

    /// Measure this daemon instead of starting one
    ///
    /// The daemon admits at most `MAX_CLIENTS_PER_ADDRESS` clients from this machine, unless its address is in
    /// the daemon's `LOCAL_NETS`.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) target: Option<Target>,

    /// Path of the daemon to start [default: wakeupd in the folder of wakeupd-bench]
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    program: Option<PathBuf>,

    /// Seconds that the daemon pings a client after its last heartbeat, from 1 to 86400 [default: 120]
    ///
    /// Without this option the daemon uses its own settings, and --churn assumes 120 s.
    #[arg(long, value_name = "SECONDS", env = "CLIENT_EXPIRATION_SECONDS")]
    expiration: Option<Expiration>,

    /// Allow the bench to send heartbeats to another machine
    #[arg(long, requires = "target")]
    pub(crate) yes: bool,

    /// Connect the clients and the daemon with a veth pair (needs root, iproute2 and nftables)
    ///
    /// Each end is in its own network namespace. The clients' end drops the pings to clients that are not
    /// timed, which leaves the CPU to the daemon.
    #[arg(long, conflicts_with = "target")]
    pub(crate) wire: bool,

    /// Give the clients IPv6 addresses
    #[arg(short = '6', long, requires = "wire")]
    pub(crate) ipv6: bool,

    /// Also measure a bare sendmmsg loop over the same path, which shows the kernel's limit
    #[arg(long, conflicts_with = "target")]
    pub(crate) baseline: bool,

    /// Query the daemon's HTTP endpoint during the run: metrics ten times a second, and the status page's data
    #[arg(long, conflicts_with = "target")]
    pub(crate) scrape: bool,

    /// Let the daemon write snapshots of its clients, as --restart does
    #[arg(long, conflicts_with_all = ["target", "ramp"])]
    pub(crate) snapshots: bool,

    /// Restart the daemon halfway, with SIGTERM or SIGKILL
    ///
    /// The new process uses the same port and `SNAPSHOT_PATH`, and must ping each client again. Pings missed
    /// because of the restart are counted separately.
    #[arg(long, value_name = "SIGNAL", conflicts_with_all = ["target", "ramp", "halve_after"])]
    pub(crate) restart: Option<Restart>,

    /// Replace this percentage of the clients each second with clients at other addresses
    ///
    /// A replaced client sends no more heartbeats. The daemon must ping it until `CLIENT_EXPIRATION_SECONDS`
    /// after its last heartbeat and no longer, with a tolerance of 50 ms for the kernel. In a run of more than
    /// two minutes, the daemon's memory must not grow by more than the larger of 5 % and 1 MB after the first
    /// tenth of the run, or after the first minute if that is sooner.
    #[arg(long, value_name = "PERCENT", value_parser = percent,
        conflicts_with_all = ["target", "ramp", "halve_after", "restart"])]
    churn: Option<f64>,

    /// Find the largest number of clients without a missed ping: double it, then halve the step
    #[arg(long, conflicts_with_all = ["target", "halve_after"])]
    pub(crate) ramp: bool,

    /// Print the figures as JSON; with a file name, print the report and write the JSON to that file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
}

/// Parses a percentage above 0, up to 100.
fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
    percent.ok_or_else(|| "the percentage must be a number above 0, up to 100".to_owned())
}

/// `CLIENT_EXPIRATION_SECONDS`. The value in the daemon's environment can be empty (`None`) or quoted.
#[derive(Clone, Copy, Debug)]
struct Expiration(Option<Duration>);

impl FromStr for Expiration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        if text.is_empty() {
            return Ok(Self(None));
        }
        let seconds = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
        let seconds =
            seconds.ok_or("the expiration must be a whole number of seconds from 1 to 86400")?;
        Ok(Self(Some(Duration::from_secs(seconds))))
    }
}

impl Options {
    /// Checks options that depend on each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        let longest = self.heartbeat_every.mul_f64(1.0 - heartbeats::JITTER);
        if self.register_in > longest {
            return Err(format!(
                "--register-in must be at most {longest:?}, which is 0.8 times --heartbeat-every, so that all clients register before one repeats its heartbeat"
            ));
        }
        if self.halve_after.is_some_and(|time| time >= self.length) {
            return Err("--halve-after must be less than --for, so that the other half is still measured after the clients fall silent".to_owned());
        }
        if self.restart.is_some() && self.length < SHORTEST_WITH_RESTART {
            return Err(format!(
                "with --restart, --for must be at least {SHORTEST_WITH_RESTART:?}, so that the daemon can ping every client before and after the restart"
            ));
        }
        let Some(churn) = self.churn() else { return Ok(()) };
        let expiration = churn.expiration;
        if self.heartbeat_every.mul_f64(1.0 + heartbeats::JITTER) >= expiration {
            return Err(format!(
                "--heartbeat-every times 1.2 must be less than CLIENT_EXPIRATION_SECONDS ({expiration:?}), so that clients that stay do not expire"
            ));
        }
        if churn.shortest_stay(crowd::turns(self.first_client(), self.clients)).is_none() {
            return Err(format!(
                "--churn is too high for --clients: the network has too few addresses, because an address is reused only after its client has expired (CLIENT_EXPIRATION_SECONDS, {expiration:?}). Lower --churn, --clients or CLIENT_EXPIRATION_SECONDS."
            ));
        }
        Ok(())
    }

    /// The first address of the crowd's network.
    fn first_client(&self) -> IpAddr {
        if self.wire { self.family().first_client() } else { crowd::LOOPBACK }
    }

    pub(crate) fn family(&self) -> wire::Family {
        if self.ipv6 { wire::Family::Ipv6 } else { wire::Family::Ipv4 }
    }

    /// The path of the daemon's program.
    pub(crate) fn program(&self) -> io::Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        Ok(env::current_exe()?.with_file_name("wakeupd"))
    }

    /// How long the daemon pings a client after its last heartbeat.
    fn expiration(&self) -> Duration {
        self.given_expiration().unwrap_or(DEFAULT_EXPIRATION)
    }

    /// The value of `--expiration` or of `CLIENT_EXPIRATION_SECONDS`. `None` if neither is set.
    pub(crate) fn given_expiration(&self) -> Option<Duration> {
        self.expiration.and_then(|Expiration(expiration)| expiration)
    }

    fn churn(&self) -> Option<Churn> {
        let percent = self.churn?;
        Some(Churn { share: percent / 100.0, expiration: self.expiration() })
    }

    /// The plan that the options describe.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            heartbeat_every: self.heartbeat_every,
            register_in: self.register_in,
            length: Duration::from_secs(self.length.as_secs()),
            halve_after: self.halve_after,
            restart: self.restart,
            churn: self.churn(),
        }
    }
}
