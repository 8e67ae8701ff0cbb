//! `wakeupd status` and `wakeupd healthcheck`: ask the endpoint of a running daemon how it is.

mod client;
mod table;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use hyper::StatusCode;
use serde_json::Value;

pub use self::client::{Answer, get};
use self::table::Table;
use crate::config::Config;
use crate::status::{Severity, Status};

/// There was no answer (`EX_UNAVAILABLE` of sysexits.h).
const EXIT_UNAVAILABLE: u8 = 69;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor of a terminal home and clears what is below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Whom to ask.
#[derive(Args, Debug)]
pub struct Whom {
    /// The endpoint of the daemon, if that is not the `HTTP_ADDR` of the environment
    #[arg(long, value_name = "IP:PORT")]
    http_addr: Option<SocketAddr>,
}

/// How to show the status.
#[derive(Args, Debug)]
pub struct StatusOptions {
    #[command(flatten)]
    whom: Whom,

    /// Print JSON, each answer on a line
    #[arg(long)]
    json: bool,

    /// Ask again every second
    #[arg(long)]
    watch: bool,
}

/// How to check the health.
#[derive(Args, Debug)]
pub struct HealthOptions {
    #[command(flatten)]
    whom: Whom,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("HTTP_ADDR is none, so the daemon has no endpoint to ask: set it, or use --http-addr")]
    NoEndpoint,
    #[error(
        "http://{address} does not answer: {error}; is the daemon running, with the same HTTP_ADDR, and not full of connections?"
    )]
    Unreachable { address: SocketAddr, error: Box<dyn Error + Send + Sync> },
    #[error("http://{address} answers {status}: {said}")]
    Unexpected { address: SocketAddr, status: StatusCode, said: String },
}

impl NoAnswer {
    fn unexpected(address: SocketAddr, answer: &Answer) -> Self {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = json["error"].as_str().unwrap_or("nothing that a wakeupd of this version says");
        Self::Unexpected { address, status: answer.status, said: said.escape_debug().to_string() }
    }
}

/// Shows how the daemon is. The exit code is 0 if nothing is critical, 1 if something is, and 69 if there
/// is no answer.
#[must_use]
pub fn status(options: &StatusOptions, config: &Config) -> ExitCode {
    loop {
        let shown = ask(&options.whom, config, "/status").and_then(|(address, answer)| {
            let status = serde_json::from_slice::<Status>(&answer.body).ok();
            status.ok_or_else(|| NoAnswer::unexpected(address, &answer))
        });
        let status = match shown {
            Ok(status) => status,
            Err(error) => {
                eprintln!("wakeupd status: {error}");
                if options.watch && !matches!(error, NoAnswer::NoEndpoint) {
                    thread::sleep(INTERVAL);
                    continue;
                }
                return ExitCode::from(EXIT_UNAVAILABLE);
            }
        };
        if show(options, &status).is_err() {
            // Whoever was reading has seen enough.
            return ExitCode::SUCCESS;
        }
        if !options.watch {
            let is_critical =
                status.findings.iter().any(|finding| finding.severity == Severity::Critical);
            return ExitCode::from(u8::from(is_critical));
        }
        thread::sleep(INTERVAL);
    }
}

fn show(options: &StatusOptions, status: &Status) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut stdout, status)?;
        writeln!(stdout)?;
    } else {
        let is_terminal = stdout.is_terminal();
        let clear = if options.watch && is_terminal { CLEAR } else { "" };
        write!(stdout, "{clear}{}", Table { status })?;
        if options.watch && !is_terminal {
            writeln!(stdout)?;
        }
    }
    stdout.flush()
}

/// Says whether every task of the daemon is alive. The exit code is 0 if so, else 1. A daemon without an
/// endpoint cannot be asked, and is taken for healthy.
#[must_use]
pub fn health(options: &HealthOptions, config: &Config) -> ExitCode {
    let (address, answer) = match ask(&options.whom, config, "/healthz") {
        Ok(answered) => answered,
        Err(error @ NoAnswer::NoEndpoint) => {
            println!("unknown: {error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("wakeupd healthcheck: {error}");
            return ExitCode::FAILURE;
        }
    };
    let health: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, health["stuck"].as_array()) {
        (StatusCode::OK, Some(_)) => {
            println!("healthy");
            ExitCode::SUCCESS
        }
        (StatusCode::SERVICE_UNAVAILABLE, Some(stuck)) => {
            let stuck: Vec<_> = stuck.iter().filter_map(Value::as_str).collect();
            println!("unhealthy: no sign of life from {}", stuck.join(", "));
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("wakeupd healthcheck: {}", NoAnswer::unexpected(address, &answer));
            ExitCode::FAILURE
        }
    }
}

fn ask(whom: &Whom, config: &Config, path: &str) -> Result<(SocketAddr, Answer), NoAnswer> {
    let address = whom.http_addr.or(config.http_address).ok_or(NoAnswer::NoEndpoint)?;
    match get(address, path, None) {
        Ok(answer) => Ok((address, answer)),
        Err(error) => Err(NoAnswer::Unreachable { address, error }),
    }
}
