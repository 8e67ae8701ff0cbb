//! How the crowd reaches the daemon.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use wakeupd::cli::values::Family;

use crate::baseline::{self, Baseline};
use crate::crowd::{self, Crowd};
use crate::measurement;
use crate::options::Options;
use crate::plan::Plan;
use crate::report::Report;
use crate::subject::{Daemon, Folder, Launch, Subject};
use crate::wire::Wire;

/// The network between the crowd and the daemon.
pub(crate) enum Route {
    Loopback,
    Wire(Wire),
    Target(SocketAddr),
}

impl Route {
    pub(crate) fn choose(options: &Options) -> io::Result<Self> {
        if options.wire {
            return Wire::put_up(options.family()).map(Self::Wire);
        }
        let Some(target) = &options.target else {
            return Ok(Self::Loopback);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let address = runtime.block_on(target.resolve(Family::Any))?.address;
        if !address.ip().is_loopback() && !options.yes {
            return Err(io::Error::other(format!(
                "{address} is another machine. Add --yes only if the machine is yours and can receive the heartbeats of {} clients.",
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

    /// Measures once, with a new crowd and, without `--target`, a new daemon.
    pub(crate) fn measure(
        &self,
        options: &Options,
        plan: &Plan,
        clients: u32,
    ) -> io::Result<Report> {
        let (mut subject, crowd) = self.prepare(options, plan, clients)?;
        let measured = measurement::run(&crowd, plan, &mut subject);
        let daemon = match subject {
            Subject::Own(daemon) => Some((daemon.idle(), daemon.stop()?)),
            Subject::Other(_) => None,
        };
        let measured = measured.map_err(|error| match &daemon {
            Some((_, log)) if !log.warnings.is_empty() => io::Error::other(format!(
                "{error}; the daemon logged:\n  {}",
                log.warnings.join("\n  ")
            )),
            _ => error,
        })?;
        let baseline = options.baseline.then(|| self.baseline(&crowd)).transpose()?;
        Ok(Report::new(self.name(), &crowd, plan, &measured, daemon, baseline))
    }

    fn prepare<'a>(
        &'a self,
        options: &'a Options,
        plan: &Plan,
        clients: u32,
    ) -> io::Result<(Subject<'a>, Crowd)> {
        let keeps = options.snapshots || plan.restart.is_some();
        let start = |host, wire| {
            Daemon::start(Launch {
                program: options.program()?,
                expiration: options.given_expiration(),
                host,
                wire,
                is_scraped: options.scrape,
                max_clients: max_clients(plan, clients),
                folder: keeps.then(Folder::for_this_process).transpose()?,
            })
        };
        match self {
            Self::Loopback => {
                let subject = Subject::Own(start("127.0.0.1", None)?.into());
                let crowd = Crowd::in_network(clients, crowd::LOOPBACK, subject.address(), false)?;
                Ok((subject, crowd))
            }
            Self::Wire(wire) => {
                let subject = Subject::Own(start(wire.family.any(), Some(wire))?.into());
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

    /// Measures the baseline with a socket in the daemon's place. The daemon must have stopped.
    fn baseline(&self, crowd: &Crowd) -> io::Result<Baseline> {
        let bind = || UdpSocket::bind((crowd.server.ip(), 0));
        let socket = match self {
            Self::Wire(wire) => wire.far(bind)?,
            Self::Loopback | Self::Target(_) => bind()?,
        };
        baseline::measure(crowd, &socket)
    }
}

/// The daemon's `MAX_CLIENTS`: one and a half times the clients that the crowd needs, because above three
/// quarters of `MAX_CLIENTS` the daemon evicts clients that have sent only one heartbeat.
fn max_clients(plan: &Plan, clients: u32) -> u32 {
    /// The largest value that `MAX_CLIENTS` accepts.
    const MOST: u32 = 100_000_000;
    let clients = plan.churn.map_or(clients, |churn| churn.most_clients(clients));
    clients.saturating_add(clients / 2).saturating_add(1).min(MOST)
}
