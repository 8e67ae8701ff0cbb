//! `wakeupd status` and `wakeupd healthcheck`: query the HTTP endpoint of a running daemon.

mod heartbeat;
mod request;
mod screen;
mod table;

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tracing::Level;

pub use self::request::{Answer, get};
use self::screen::Screen;
use self::table::Table;
use crate::cli::options::{EndpointOptions, HealthcheckOptions, StatusOptions};
use crate::config::{Config, ConfigError, EXIT_CONFIG, ReadSettings};
use crate::logging::complain;
use crate::output::{self, printable};
use crate::status::{Finding, Severity, Status};

/// `EX_UNAVAILABLE` of sysexits.h: the endpoint did not answer.
const EXIT_UNAVAILABLE: u8 = 69;

/// The time between two queries.
const INTERVAL: Duration = Duration::from_secs(1);

const STATUS: &str = "wakeupd status";
const HEALTHCHECK: &str = "wakeupd healthcheck";

/// Why the status of the daemon cannot be shown.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(
        "HTTP_ADDR is none, so the daemon has no HTTP endpoint. Set HTTP_ADDR or use --http-addr."
    )]
    NoEndpoint,
    #[error(
        "http://{address} does not answer: {}. Start the daemon, or set HTTP_ADDR to the daemon's value.",
        printable(&.error.to_string())
    )]
    Unreachable { address: SocketAddr, error: Box<dyn Error + Send + Sync> },
    #[error("http://{address} answered {status}: {said}")]
    Unexpected { address: SocketAddr, status: StatusCode, said: String },
}

impl NoAnswer {
    fn unexpected(address: SocketAddr, answer: &Answer) -> Self {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said =
            json["error"].as_str().unwrap_or("the response is not from this version of wakeupd");
        Self::Unexpected { address, status: answer.status, said: printable(said) }
    }
}

/// Shows the status of the daemon. The exit code is 0 if no finding is critical, 1 if a finding is critical,
/// 69 if the endpoint gives no valid answer, and 78 if `HTTP_ADDR` is needed and invalid.
#[must_use]
pub fn status(options: &StatusOptions, settings: ReadSettings) -> ExitCode {
    let address = match endpoint(&options.endpoint, settings) {
        Ok(Some(address)) => address,
        Ok(None) => return unanswered(&NoAnswer::NoEndpoint),
        Err(error) => return wrong(&error),
    };
    let mut complaint = None;
    loop {
        let status = match read_status(address) {
            Ok(status) => status,
            Err(error) if options.watch => {
                let said = Some(error.to_string());
                if complaint != said {
                    complain(Level::ERROR, &format!("{STATUS}: {error}"));
                    complaint = said;
                }
                thread::sleep(INTERVAL);
                continue;
            }
            Err(error) => return unanswered(&error),
        };
        complaint = None;
        let is_critical = |finding: &Finding| finding.severity == Severity::Critical;
        let code = ExitCode::from(u8::from(status.findings.iter().any(is_critical)));
        let shown = show(options, &status);
        if shown.is_err() || !options.watch {
            return output::end(STATUS, code, shown);
        }
        thread::sleep(INTERVAL);
    }
}

fn read_status(address: SocketAddr) -> Result<Status, NoAnswer> {
    let answer = ask(address, "/status")?;
    serde_json::from_slice(&answer.body).map_err(|_| NoAnswer::unexpected(address, &answer))
}

fn unanswered(error: &NoAnswer) -> ExitCode {
    let _ = output::fail(STATUS, error);
    EXIT_UNAVAILABLE.into()
}

fn wrong(error: &ConfigError) -> ExitCode {
    let _ = output::fail("wakeupd", error);
    EXIT_CONFIG.into()
}

fn show(options: &StatusOptions, status: &Status) -> io::Result<()> {
    if options.json {
        return output::print(format_args!("{}\n", output::json(status, false)?));
    }
    let table = Table { status }.to_string();
    if !options.watch {
        return output::print(table);
    }
    match Screen::of_stdout() {
        Some(screen) => output::print(screen.frame(&table)),
        None => output::print(format_args!("{table}\n")),
    }
}

/// Checks that every task of the daemon is alive or, without an endpoint, that the daemon answers a heartbeat
/// with a ping. The exit code is 0 if the check succeeds or if nothing can be checked, 78 if a needed
/// variable is invalid, else 1.
#[must_use]
pub fn health(options: &HealthcheckOptions, settings: ReadSettings) -> ExitCode {
    match endpoint(&options.endpoint, settings) {
        Ok(Some(address)) => health_of_endpoint(address),
        Ok(None) => match settings(&["HOST", "PORT"]) {
            Ok(config) => health_on_the_wire(&config),
            Err(error) => wrong(&error),
        },
        Err(error) => wrong(&error),
    }
}

fn health_of_endpoint(address: SocketAddr) -> ExitCode {
    let answer = match ask(address, "/healthz") {
        Ok(answer) => answer,
        Err(error) => return output::fail(HEALTHCHECK, error),
    };
    let health: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, health["stuck"].as_array()) {
        (StatusCode::OK, Some(_)) => say(ExitCode::SUCCESS, "healthy"),
        (StatusCode::SERVICE_UNAVAILABLE, Some(stuck)) => {
            let stuck: Vec<_> = stuck.iter().filter_map(Value::as_str).map(printable).collect();
            let stuck = stuck.join(", ");
            say(ExitCode::FAILURE, format_args!("unhealthy: stuck tasks: {stuck}"))
        }
        _ => output::fail(HEALTHCHECK, NoAnswer::unexpected(address, &answer)),
    }
}

fn health_on_the_wire(config: &Config) -> ExitCode {
    if config.port == 0 {
        let unknown = "unknown: HTTP_ADDR is none and PORT is 0, so the check has no address to query. Set HTTP_ADDR or PORT, or use --http-addr.";
        return say(ExitCode::SUCCESS, unknown);
    }
    match heartbeat::answered(&config.host, config.port) {
        Ok(()) => say(
            ExitCode::SUCCESS,
            "healthy: HTTP_ADDR is none, so the check sent a heartbeat, and a ping arrived",
        ),
        Err(error) => output::fail(
            HEALTHCHECK,
            format_args!("HTTP_ADDR is none, so the check sent a heartbeat: {error}"),
        ),
    }
}

fn say(code: ExitCode, text: impl Display) -> ExitCode {
    output::end(HEALTHCHECK, code, output::print(format_args!("{text}\n")))
}

/// The endpoint to query. `None` if the daemon has no endpoint. `HTTP_ADDR` is read only if no option names
/// an endpoint.
fn endpoint(
    options: &EndpointOptions,
    settings: ReadSettings,
) -> Result<Option<SocketAddr>, ConfigError> {
    match options.http_addr {
        Some(address) => Ok(Some(address)),
        None => Ok(settings(&["HTTP_ADDR"])?.http_addr),
    }
}

fn ask(address: SocketAddr, path: &str) -> Result<Answer, NoAnswer> {
    get(address, path, None).map_err(|error| NoAnswer::Unreachable { address, error })
}
