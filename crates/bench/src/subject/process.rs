//! The daemon's process.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::folder::Folder;
use super::log::{Line, Log};
use crate::operator::Operator;
use crate::processes::{self, Usage};
use crate::wire::Wire;

/// The time limit for the start of the daemon, and for its stop.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How to start the daemon. All other settings come from the bench's environment.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: PathBuf,
    /// `CLIENT_EXPIRATION_SECONDS`.
    pub(crate) expiration: Option<Duration>,
    pub(crate) host: &'static str,
    /// Set if the daemon runs at the other end of a wire.
    pub(crate) wire: Option<&'a Wire>,
    /// True if the daemon has an HTTP endpoint and the bench queries it.
    pub(crate) is_scraped: bool,
    pub(crate) max_clients: u32,
    /// The folder for the snapshots. `None` if the daemon writes no snapshots.
    pub(crate) folder: Option<Folder>,
}

/// The child process. Dropping this value kills the process. The process also ends if the bench ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    listening_at: Instant,
    operator: Option<Operator>,
    http_answers: u64,
    log: Option<JoinHandle<Log>>,
}

impl Launch<'_> {
    /// Starts the daemon on this port. If the port is 0, the kernel chooses a port.
    pub(crate) fn start(&self, port: u16) -> io::Result<Process> {
        match self.wire {
            Some(wire) => wire.far(|| self.start_here(port)),
            None => self.start_here(port),
        }
    }

    fn start_here(&self, port: u16) -> io::Result<Process> {
        let program = &self.program;
        let snapshot = self.folder.as_ref().map(|folder| folder.path().join("snapshot"));
        let mut child = Command::new(program)
            .args(["--ends-with", &std::process::id().to_string()])
            .envs([("HOST", self.host), ("LOG_FORMAT", "json"), ("LOG_LEVEL", "INFO")])
            .env("PORT", port.to_string())
            .envs(
                self.expiration
                    .map(|time| ("CLIENT_EXPIRATION_SECONDS", time.as_secs().to_string())),
            )
            .env("MAX_CLIENTS", self.max_clients.to_string())
            .env("HTTP_ADDR", if self.is_scraped { "127.0.0.1:0" } else { "" })
            .env("SNAPSHOT_PATH", snapshot.unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display()))
            })?;
        let Some(stderr) = child.stderr.take() else {
            return Err(io::Error::other("the daemon has no standard error"));
        };
        let (says, lines) = mpsc::channel();
        let log = thread::spawn(move || Log::read(stderr, &says));
        let addresses = listening(&lines, "listening").and_then(|address| {
            let http = self.is_scraped.then(|| listening(&lines, "listening for HTTP"));
            Ok((address, http.transpose()?))
        });
        let ((listening_at, address), http) = addresses.inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let operator = http.map(|(_, address)| Operator::look_at(address));
        Ok(Process { child, address, listening_at, operator, http_answers: 0, log: Some(log) })
    }
}

impl Process {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn listening_at(&self) -> Instant {
        self.listening_at
    }

    pub(crate) fn usage(&self) -> io::Result<Usage> {
        processes::usage(self.child.id())
    }

    /// Heartbeats that the kernel dropped at a full receive buffer.
    pub(crate) fn drops(&self) -> io::Result<u64> {
        processes::drops(Some(self.child.id()), &[self.address.port()])
    }

    /// Fails if the process has ended.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("the daemon exited: {status}"))),
        }
    }

    /// Stops the queries of the HTTP endpoint and adds up their responses.
    pub(crate) fn dismiss_operator(&mut self) -> io::Result<()> {
        self.http_answers += self.operator.take().map(Operator::stop).transpose()?.unwrap_or(0);
        Ok(())
    }

    /// Stops the process with SIGTERM, unless the process has already ended, and returns its log.
    pub(crate) fn stop(mut self) -> io::Result<Log> {
        self.dismiss_operator()?;
        self.end(Signal::SIGTERM)?;
        let log = self.log.take().and_then(|log| log.join().ok());
        let log = log.ok_or_else(|| io::Error::other("the daemon's log cannot be read"))?;
        Ok(Log { http_answers: self.http_answers, ..log })
    }

    /// Ends the process by a signal. After [`TIMEOUT`], kills the process with SIGKILL.
    pub(crate) fn end(&mut self, signal: Signal) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let deadline = Instant::now() + TIMEOUT;
        let mut is_told = false;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if !is_told {
                let _ = kill(pid, signal);
                is_told = true;
            } else if Instant::now() > deadline {
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end(Signal::SIGKILL);
    }
}

/// Waits for the log line with this message and returns its address.
fn listening(lines: &Receiver<Line>, message: &str) -> io::Result<(Instant, SocketAddr)> {
    let mut said = String::new();
    let deadline = Instant::now() + TIMEOUT;
    while let Ok((at, line)) =
        lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        if let Some(address) = listening_at(&line, message) {
            return Ok((at, address));
        }
        said = said + "\n  " + &line;
    }
    if said.is_empty() {
        said.push_str(" nothing");
    }
    Err(io::Error::other(format!("the daemon did not start. It logged:{said}")))
}

fn listening_at(line: &str, message: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == message).then(|| line["address"].as_str()?.parse().ok())?
}
