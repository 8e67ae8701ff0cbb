//! `wakeupd bench`: a crowd of clients that times every ping.
//!
//! It speaks to the daemon as strangers do. Linux only: one socket is many clients where a whole
//! network is local, and the kernel tells when each ping came.

mod baseline;
mod churn;
mod crowd;
mod heartbeats;
mod operator;
mod pings;
mod processes;
mod report;
mod restart;
mod route;
mod run;
mod socket;
mod subject;
mod wire;

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::error::ErrorKind;
use tracing::Level;

use crate::args::{self, Target};
use crate::config::{ConfigError, ReadSettings};
use crate::{logging, output};
use churn::Churn;
use report::Report;
use restart::Restart;
use route::Route;
use run::Plan;

/// As many as one network of loopback addresses has room for.
const MOST_CLIENTS: u32 = 10_000_000;

/// A daemon that is restarted half-way needs this long to ping everybody, and so does one before that.
const SHORTEST_WITH_RESTART: Duration = Duration::from_secs(4);

/// `--ramp` stops when its step is less than this share of what was carried.
const RAMP_PRECISION: u32 = 20;

/// What to measure.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// Number of clients to simulate
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    clients: u32,

    /// Interval between the heartbeats of a client, ±20 % at random
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = args::duration)]
    heartbeat_every: Duration,

    /// Time in which all clients register; it comes before the measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = args::duration)]
    register_in: Duration,

    /// Length of the measurement, in whole seconds
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = args::duration)]
    length: Duration,

    /// Let half of the clients fall silent after this time, and measure the others to the end
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    halve_after: Option<Duration>,

    /// Measure this daemon instead of one of the bench's own
    ///
    /// It lets in `MAX_CLIENTS_PER_ADDRESS` clients of this machine's address, unless that is in one
    /// of its `LOCAL_NETS`.
    #[arg(long, value_name = "HOST[:PORT]")]
    target: Option<Target>,

    /// Measure this build of the daemon instead of the one that is running the bench
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/proc/self/exe",
        hide_default_value = true,
        conflicts_with = "target"
    )]
    program: PathBuf,

    /// Agree to send heartbeats to another machine
    #[arg(long, requires = "target")]
    yes: bool,

    /// Put a virtual wire between the clients and the daemon (root; wants iproute2 and nftables)
    ///
    /// The two live in network namespaces of their own. What goes to clients that are not timed is
    /// dropped at the far end of the wire, so that the daemon has the processor.
    #[arg(long, conflicts_with = "target")]
    wire: bool,

    /// Let the clients have IPv6 addresses
    #[arg(short = '6', long, requires = "wire")]
    ipv6: bool,

    /// Measure a bare sendmmsg loop over the same path too: the kernel's limit
    #[arg(long, conflicts_with = "target")]
    baseline: bool,

    /// Ask the daemon's endpoint all the while: its metrics ten times a second, and what its page asks for
    #[arg(long, conflicts_with = "target")]
    scrape: bool,

    /// Let the daemon write snapshots of its clients, as it does with --restart too
    #[arg(long, conflicts_with_all = ["target", "ramp"])]
    snapshots: bool,

    /// Restart the daemon half-way, by SIGTERM or SIGKILL
    ///
    /// It is started anew on the same port with the same `SNAPSHOT_PATH`, and nobody may be lost: each client
    /// must be pinged again. Pings that are missed because of the restart are told apart.
    #[arg(long, value_name = "SIGNAL", conflicts_with_all = ["target", "ramp", "halve_after"])]
    restart: Option<Restart>,

    /// Let so many per cent of the clients leave each second, and as many come from other addresses
    ///
    /// Who leaves falls silent and must be pinged until `CLIENT_EXPIRATION_SECONDS` after the last
    /// heartbeat, and not longer: 50 ms are allowed for the way through the kernel. In more than two minutes the
    /// daemon's memory must not grow by more than 5 %, or a megabyte, after the first minute or the first tenth.
    #[arg(long, value_name = "PERCENT", value_parser = percent,
        conflicts_with_all = ["target", "ramp", "halve_after", "restart"])]
    churn: Option<f64>,

    /// Find the largest number of clients that misses nothing: double it, then halve the step
    #[arg(long, conflicts_with_all = ["target", "halve_after"])]
    ramp: bool,

    /// Print the figures as JSON, or else write that to a file besides
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// Measures. The exit code is 0 if no client missed a ping, else 1. The daemon reads the environment
/// itself; the bench reads the expiration from it if clients leave.
#[must_use]
pub fn run(options: &Options, settings: ReadSettings) -> ExitCode {
    let fail = |error: &dyn Display| output::fail("wakeupd bench", error);
    let churn = match options.churn.map(|percent| churn(percent, settings)).transpose() {
        Ok(churn) => churn,
        Err(error) => return fail(&error),
    };
    if let Err(mistake) = options.check(churn) {
        // Printed as all mistakes in the arguments are.
        let command = Options::augment_args(clap::Command::new("wakeupd bench"));
        clap::Error::raw(ErrorKind::ValueValidation, mistake + "\n").with_cmd(&command).exit();
    }
    match bench(options, churn) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn churn(percent: f64, settings: ReadSettings) -> Result<Churn, ConfigError> {
    let config = settings(&["CLIENT_EXPIRATION_SECONDS"])?;
    Ok(Churn { share: percent / 100.0, expiration: config.client_expiration })
}

/// Reads a share of the crowd.
fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
    percent.ok_or_else(|| "it must be a number above 0, up to 100".to_owned())
}

impl Options {
    /// Whether the figures go together.
    fn check(&self, churn: Option<Churn>) -> Result<(), String> {
        let longest = self.heartbeat_every.mul_f64(1.0 - heartbeats::JITTER);
        if self.register_in > longest {
            return Err(format!(
                "--register-in must be at most {longest:?}, 0.8 times --heartbeat-every: all clients register before the first heartbeats again"
            ));
        }
        if self.halve_after.is_some_and(|time| time >= self.length) {
            return Err("--halve-after must be less than --for".to_owned());
        }
        if self.restart.is_some() && self.length < SHORTEST_WITH_RESTART {
            return Err(format!("--for must be at least {SHORTEST_WITH_RESTART:?} with --restart"));
        }
        let Some(churn) = churn else { return Ok(()) };
        let expiration = churn.expiration;
        if self.heartbeat_every.mul_f64(1.0 + heartbeats::JITTER) >= expiration {
            return Err(format!(
                "--heartbeat-every must be so short that 1.2 times as much is less than CLIENT_EXPIRATION_SECONDS, which is {expiration:?}: who stays must not expire"
            ));
        }
        if churn.shortest_stay(crowd::turns(self.first_client(), self.clients)).is_none() {
            return Err(format!(
                "--churn is too much for --clients: their network has too few addresses, for an address is used again only when its client has expired, after CLIENT_EXPIRATION_SECONDS ({expiration:?}); lower one of the three"
            ));
        }
        Ok(())
    }

    /// The first address of the crowd's network.
    fn first_client(&self) -> IpAddr {
        if self.wire { self.family().first_client() } else { crowd::LOOPBACK }
    }

    fn family(&self) -> wire::Family {
        if self.ipv6 { wire::Family::Ipv6 } else { wire::Family::Ipv4 }
    }

    /// What so many clients are to do.
    fn plan(&self, churn: Option<Churn>) -> Plan {
        Plan {
            heartbeat_every: self.heartbeat_every,
            register_in: self.register_in,
            length: Duration::from_secs(self.length.as_secs()),
            halve_after: self.halve_after,
            restart: self.restart,
            churn,
        }
    }
}

fn bench(options: &Options, churn: Option<Churn>) -> io::Result<Report> {
    let route = Route::choose(options)?;
    let plan = options.plan(churn);
    let report = if options.ramp {
        ramp(&route, options, &plan)?
    } else {
        route.measure(options, &plan, options.clients)?
    };
    let json = || serde_json::to_string_pretty(&report);
    match options.json.as_deref() {
        Some(file) if file == Path::new("-") => print(json()?)?,
        file => {
            if let Some(file) = file {
                fs::write(file, json()? + "\n").map_err(|error| {
                    let file = file.display();
                    io::Error::new(error.kind(), format!("cannot write {file}: {error}"))
                })?;
            }
            print(report.to_string().trim_end())?;
        }
    }
    Ok(report)
}

/// Finds the largest crowd that misses nothing.
fn ramp(route: &Route, options: &Options, plan: &Plan) -> io::Result<Report> {
    let mut best: Option<Report> = None;
    let mut clients = options.clients;
    let mut step = None;
    loop {
        let report = route.measure(options, plan, clients)?;
        let is_carried = report.is_good();
        let missed = match report.pings.missed {
            _ if is_carried => "nothing missed".to_owned(),
            missed => format!("{missed} missed"),
        };
        let progress =
            format!("{clients} clients: {missed}, p99.9 {:.3} ms", report.deviation_ms.p99_9);
        logging::complain(Level::INFO, &progress);
        if is_carried {
            best = Some(report);
        }
        let carried = best.as_ref().map_or(0, |report| report.clients);
        step = match step {
            None if is_carried && clients < MOST_CLIENTS => None,
            None if is_carried => break,
            None => Some((clients - carried) / 2),
            Some(step) => Some(step / 2),
        };
        clients = match step {
            None => clients.saturating_mul(2).min(MOST_CLIENTS),
            Some(step) if step > carried / RAMP_PRECISION => carried + step,
            Some(_) => break,
        };
    }
    best.ok_or_else(|| io::Error::other("not even one client was pinged without a miss"))
}

/// Prints the figures, unless the reader has closed the pipe.
fn print(text: impl Display) -> io::Result<()> {
    match output::print(format_args!("{text}\n")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
