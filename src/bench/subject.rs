//! The daemon that is measured.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::operator::Operator;
use super::processes::{self, Usage};

/// How long the daemon may take to start, and how long to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program other than ours may say anything.
const MOST_WARNINGS: usize = 10;

/// A daemon of ours, or another's.
#[derive(Debug)]
pub(super) enum Subject {
    Own(Daemon),
    Other(SocketAddr),
}

/// A child process, which is stopped when this is dropped and which the kernel ends with us.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    address: SocketAddr,
    idle: Usage,
    operator: Option<Operator>,
    log: Option<JoinHandle<Log>>,
}

/// What the daemon said of itself.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// What it warned of, each kind once.
    pub(super) warnings: Vec<String>,
    /// The clients at the end.
    pub(super) clients: u64,
    pub(super) heartbeats: u64,
    pub(super) pings: u64,
    pub(super) failed_sends: u64,
    pub(super) skipped_slots: u64,
    pub(super) worst_lateness_ms: f64,
    /// How often its endpoint answered.
    pub(super) http_answers: u64,
}

impl Subject {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Own(daemon) => daemon.address,
            Self::Other(address) => *address,
        }
    }

    /// What it has used so far, if that can be known.
    pub(super) fn usage(&self) -> io::Result<Option<Usage>> {
        match self {
            Self::Own(daemon) => processes::usage(daemon.child.id()).map(Some),
            Self::Other(_) => Ok(None),
        }
    }

    /// How many heartbeats the kernel dropped at its full buffer, if that can be known.
    pub(super) fn drops(&self) -> io::Result<Option<u64>> {
        match self {
            Self::Own(daemon) => {
                processes::drops(Some(daemon.child.id()), &[daemon.address.port()]).map(Some)
            }
            Self::Other(_) => Ok(None),
        }
    }

    /// Whether it is still there.
    pub(super) fn check(&mut self) -> io::Result<()> {
        match self {
            Self::Own(daemon) => daemon.check(),
            Self::Other(_) => Ok(()),
        }
    }
}

impl Daemon {
    /// Starts a program as a daemon on a port of the system's choice of `host`. Its other settings
    /// are those of our environment. If `is_scraped`, it has an endpoint, which is asked all the while.
    pub(super) fn start(program: &Path, host: &str, is_scraped: bool) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(["--ends-with", &std::process::id().to_string()])
            .envs([("HOST", host), ("PORT", "0"), ("LOG_FORMAT", "json"), ("LOG_LEVEL", "INFO")])
            .env("MAX_CLIENTS", "100000000")
            .env("HTTP_ADDR", if is_scraped { "127.0.0.1:0" } else { "" })
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
            let http = is_scraped.then(|| listening(&lines, "listening for HTTP"));
            Ok((address, http.transpose()?))
        });
        let (address, http) = addresses.inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let idle = processes::usage(child.id())?;
        let operator = http.map(Operator::look_at);
        Ok(Self { child, address, idle, operator, log: Some(log) })
    }

    /// What it used before the first client came.
    pub(super) fn idle(&self) -> Usage {
        self.idle
    }

    /// Stops it as an operator would, and returns what it said.
    pub(super) fn stop(mut self) -> io::Result<Log> {
        let http_answers = self.operator.take().map(Operator::stop).transpose()?.unwrap_or(0);
        self.end(Signal::SIGTERM);
        let log = self.log.take().and_then(|log| log.join().ok());
        let log = log.ok_or_else(|| io::Error::other("the daemon's log cannot be read"))?;
        Ok(Log { http_answers, ..log })
    }

    fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("the daemon ended: {status}"))),
        }
    }

    fn end(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let deadline = Instant::now() + PATIENCE;
        if self.check().is_ok() {
            let _ = kill(pid, signal);
        }
        while self.check().is_ok() {
            if Instant::now() > deadline {
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// Waits until the daemon says, with this message, where it listens.
fn listening(lines: &Receiver<String>, message: &str) -> io::Result<SocketAddr> {
    let mut said = String::new();
    let deadline = Instant::now() + PATIENCE;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(address) = listening_at(&line, message) {
            return Ok(address);
        }
        said = said + "\n  " + &line;
    }
    if said.is_empty() {
        said.push_str(" nothing");
    }
    Err(io::Error::other(format!("the daemon does not start; it says:{said}")))
}

fn listening_at(line: &str, message: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == message).then(|| line["address"].as_str()?.parse().ok())?
}

impl Log {
    /// Reads to the end, and passes the lines on as long as somebody wants them.
    fn read(stderr: ChildStderr, says: &Sender<String>) -> Self {
        let mut log = Self::default();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            log.add(&line);
            let _ = says.send(line);
        }
        log
    }

    fn add(&mut self, text: &str) {
        let line: Value = serde_json::from_str(text).unwrap_or_default();
        if line["message"] == "summary" {
            let count = |name: &str| line[name].as_u64().unwrap_or_default();
            self.clients = count("clients");
            self.heartbeats += count("heartbeats");
            self.pings += count("pings");
            self.failed_sends += count("failed_sends");
            self.skipped_slots += count("skipped_slots");
            let lateness = line["worst_lateness_ms"].as_f64().unwrap_or_default();
            self.worst_lateness_ms = self.worst_lateness_ms.max(lateness);
        } else if line["level"] != "INFO" {
            let message = line["message"].as_str().unwrap_or(text);
            let warning = match line["reason"].as_str() {
                Some(reason) => format!("{message}: {reason}"),
                None => message.to_owned(),
            };
            if !self.warnings.contains(&warning) && self.warnings.len() < MOST_WARNINGS {
                self.warnings.push(warning);
            }
        }
    }
}
