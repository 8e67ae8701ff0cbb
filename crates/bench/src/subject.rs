//! The daemon under test.

mod folder;
mod log;
mod process;

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::plan::Restart;
use crate::processes::Usage;
pub(crate) use folder::Folder;
pub(crate) use log::Log;
pub(crate) use process::Launch;
use process::Process;

/// A daemon that the bench started, or the daemon of `--target`.
#[derive(Debug)]
pub(crate) enum Subject<'a> {
    Own(Box<Daemon<'a>>),
    Other(SocketAddr),
}

/// A daemon that the bench started. A restart replaces its process.
#[derive(Debug)]
pub(crate) struct Daemon<'a> {
    process: Process,
    launch: Launch<'a>,
    former: Option<Former>,
    idle: Usage,
}

/// The figures of a process that has ended.
#[derive(Debug)]
struct Former {
    cpu: Duration,
    drops: u64,
    log: Log,
}

/// How long a restart took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restarted {
    /// From the signal to the end of the process.
    pub(crate) ended_in: Duration,
    /// From the end of the process, or from SIGKILL, until the new process listens.
    pub(crate) listening_after: Duration,
    /// When the new process was started.
    pub(crate) started_at: Instant,
}

impl Subject<'_> {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Own(daemon) => daemon.process.address(),
            Self::Other(address) => *address,
        }
    }

    /// The daemon's resource usage so far, `None` with `--target`. The processor time includes that of the
    /// process before a restart.
    pub(crate) fn usage(&self) -> io::Result<Option<Usage>> {
        match self {
            Self::Own(daemon) => daemon.usage().map(Some),
            Self::Other(_) => Ok(None),
        }
    }

    /// Heartbeats that the kernel dropped at a full receive buffer, `None` with `--target`.
    pub(crate) fn drops(&self) -> io::Result<Option<u64>> {
        match self {
            Self::Own(daemon) => daemon.drops().map(Some),
            Self::Other(_) => Ok(None),
        }
    }

    /// Fails if the daemon has ended. With `--target` it never fails.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        match self {
            Self::Own(daemon) => daemon.process.check(),
            Self::Other(_) => Ok(()),
        }
    }

    /// Ends the daemon and starts it again at once. Calls `ended` between the two processes.
    pub(crate) fn restart(
        &mut self,
        restart: Restart,
        ended: impl FnOnce(),
    ) -> io::Result<Restarted> {
        match self {
            Self::Own(daemon) => daemon.restart(restart, ended),
            Self::Other(_) => Err(io::Error::other(
                "the bench can restart only a daemon that it started itself, not the daemon of --target",
            )),
        }
    }
}

impl<'a> Daemon<'a> {
    /// Starts a daemon on a port that the kernel chooses.
    pub(crate) fn start(launch: Launch<'a>) -> io::Result<Self> {
        let process = launch.start(0)?;
        let idle = process.usage()?;
        Ok(Self { process, launch, former: None, idle })
    }

    /// The usage before the first client registered.
    pub(crate) fn idle(&self) -> Usage {
        self.idle
    }

    /// Stops the daemon with SIGTERM and returns its log.
    pub(crate) fn stop(self) -> io::Result<Log> {
        let log = self.process.stop()?;
        Ok(match self.former {
            Some(former) => former.log.and(log),
            None => log,
        })
    }

    fn usage(&self) -> io::Result<Usage> {
        let former = self.former.as_ref().map_or(Duration::ZERO, |former| former.cpu);
        let usage = self.process.usage()?;
        Ok(Usage { cpu: former + usage.cpu, ..usage })
    }

    fn drops(&self) -> io::Result<u64> {
        let former = self.former.as_ref().map_or(0, |former| former.drops);
        Ok(former + self.process.drops()?)
    }

    fn restart(&mut self, restart: Restart, ended: impl FnOnce()) -> io::Result<Restarted> {
        self.process.dismiss_operator()?;
        let (cpu, drops) = (self.usage()?.cpu, self.drops()?);
        let signalled_at = Instant::now();
        let status = self.process.end(restart.signal())?;
        let ended_at = Instant::now();
        if restart == Restart::Term && !status.success() {
            return Err(io::Error::other(format!(
                "the daemon did not stop cleanly on SIGTERM: {status}"
            )));
        }
        ended();
        let started_at = Instant::now();
        let process = self.launch.start(self.process.address().port())?;
        let from = if restart == Restart::Term { ended_at } else { signalled_at };
        let listening_after = process.listening_at().saturating_duration_since(from);
        let log = mem::replace(&mut self.process, process).stop()?;
        self.former = Some(Former { cpu, drops, log });
        Ok(Restarted { ended_in: ended_at - signalled_at, listening_after, started_at })
    }
}
