//! `wakeupd bench`: a crowd of clients that times every ping.
//!
//! It speaks to the daemon as strangers do. Linux only: one socket is many clients where a whole
//! network is local, and the kernel tells when each ping came.

mod baseline;
mod crowd;
mod heartbeats;
mod operator;
mod pings;
mod processes;
mod report;
mod run;
mod socket;
mod subject;
mod wire;

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::error::ErrorKind;

use crate::args::{self, Family, Target};
use baseline::Baseline;
use crowd::Crowd;
use report::Report;
use run::Plan;
use subject::{Daemon, Subject};
use wire::Wire;

/// As many as one network of loopback addresses has room for.
const MOST_CLIENTS: u32 = 10_000_000;

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

    /// Find the largest number of clients that misses nothing: double it, then halve the step
    #[arg(long, conflicts_with_all = ["target", "halve_after"])]
    ramp: bool,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Measures. The exit code is 0 if nobody missed a ping, else 1.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    if let Err(mistake) = options.check() {
        // Printed as all mistakes in the arguments are.
        let command = Options::augment_args(clap::Command::new("wakeupd bench"));
        clap::Error::raw(ErrorKind::ValueValidation, mistake + "\n").with_cmd(&command).exit();
    }
    match bench(options) {
        Ok(report) if report.is_complete() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wakeupd bench: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    /// Whether the times go together.
    fn check(&self) -> Result<(), String> {
        let longest = self.heartbeat_every.mul_f64(1.0 - heartbeats::JITTER);
        if self.register_in > longest {
            return Err(format!(
                "--register-in must be at most {longest:?}, 0.8 times --heartbeat-every: all clients register before the first heartbeats again"
            ));
        }
        if self.halve_after.is_some_and(|time| time >= self.length) {
            return Err("--halve-after must be less than --for".to_owned());
        }
        Ok(())
    }
}

fn bench(options: &Options) -> io::Result<Report> {
    let route = Route::choose(options)?;
    let report = if options.ramp {
        ramp(&route, options)?
    } else {
        route.measure(options, options.clients)?
    };
    if options.json {
        print(serde_json::to_string_pretty(&report)?)?;
    } else {
        print(report.to_string().trim_end())?;
    }
    Ok(report)
}

/// Finds the largest crowd that misses nothing.
fn ramp(route: &Route, options: &Options) -> io::Result<Report> {
    let mut best: Option<Report> = None;
    let mut clients = options.clients;
    let mut step = None;
    loop {
        let report = route.measure(options, clients)?;
        let is_carried = report.is_complete();
        eprintln!(
            "{clients} clients: {}, p99.9 {:.3} ms",
            if is_carried {
                "nothing missed".to_owned()
            } else {
                format!("{} missed", report.pings.missed)
            },
            report.deviation_ms.p99_9
        );
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

/// How the crowd reaches the daemon.
enum Route {
    Loopback,
    Wire(Wire),
    Target(SocketAddr),
}

impl Route {
    fn choose(options: &Options) -> io::Result<Self> {
        if options.wire {
            let family = if options.ipv6 { wire::Family::Ipv6 } else { wire::Family::Ipv4 };
            return Wire::put_up(family).map(Self::Wire);
        }
        let Some(target) = &options.target else {
            return Ok(Self::Loopback);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let address = runtime.block_on(target.resolve(Family::Any))?.address;
        if !address.ip().is_loopback() && !options.yes {
            return Err(io::Error::other(format!(
                "{address} is another machine: add --yes if it is yours and may get the heartbeats of {} clients",
                options.clients
            )));
        }
        Ok(Self::Target(address))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Wire(_) => "wire",
            Self::Target(_) => "target",
        }
    }

    /// Measures once, with a daemon and a crowd for this measurement alone.
    fn measure(&self, options: &Options, clients: u32) -> io::Result<Report> {
        let plan = Plan {
            heartbeat_every: options.heartbeat_every,
            register_in: options.register_in,
            length: Duration::from_secs(options.length.as_secs()),
            halve_after: options.halve_after,
        };
        let (mut subject, crowd) = self.prepare(options, clients)?;
        let measured = run::run(&crowd, &plan, &mut subject);
        let daemon = match subject {
            Subject::Own(daemon) => Some((daemon.idle(), daemon.stop()?)),
            Subject::Other(_) => None,
        };
        let measured = measured.map_err(|error| match &daemon {
            Some((_, log)) if !log.warnings.is_empty() => io::Error::other(format!(
                "{error}; the daemon said:\n  {}",
                log.warnings.join("\n  ")
            )),
            _ => error,
        })?;
        let baseline = options.baseline.then(|| self.baseline(&crowd)).transpose()?;
        Ok(Report::new(self.name(), &crowd, &plan, &measured, daemon, baseline))
    }

    fn prepare(&self, options: &Options, clients: u32) -> io::Result<(Subject, Crowd)> {
        let start = |host| Daemon::start(&options.program, host, options.scrape);
        match self {
            Self::Loopback => {
                let subject = Subject::Own(start("127.0.0.1")?);
                let crowd = Crowd::in_network(clients, crowd::LOOPBACK, subject.address(), false)?;
                Ok((subject, crowd))
            }
            Self::Wire(wire) => {
                let daemon = wire.far(|| start(wire.family.any()))?;
                let subject = Subject::Own(daemon);
                let server = SocketAddr::new(wire.family.server(), subject.address().port());
                let crowd = Crowd::in_network(clients, wire.family.first_client(), server, true)?;
                Ok((subject, crowd))
            }
            Self::Target(server) => {
                let crowd = if server.ip().is_loopback() && server.is_ipv4() {
                    Crowd::in_network(clients, crowd::LOOPBACK, *server, false)?
                } else {
                    Crowd::of_sockets(clients, *server)?
                };
                Ok((Subject::Other(*server), crowd))
            }
        }
    }

    /// Takes the place of the daemon, which has stopped.
    fn baseline(&self, crowd: &Crowd) -> io::Result<Baseline> {
        let bind = || UdpSocket::bind((crowd.server.ip(), 0));
        let socket = match self {
            Self::Wire(wire) => wire.far(bind)?,
            Self::Loopback | Self::Target(_) => bind()?,
        };
        baseline::measure(crowd, &socket)
    }
}

/// Prints the figures, unless nobody reads them any more.
fn print(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write: {error}"))),
        Ok(()) => Ok(()),
    }
}
