//! Dispatches the subcommands, and runs the daemon.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::UdpSocket;
use std::process::ExitCode;

use tokio::runtime::Builder;
use tracing::{Level, error, info, warn};
use wakeupd::cli::{self, Cli, Command};
use wakeupd::config::{Config, ConfigError, Environment, Loaded};
use wakeupd::daemon::{self, Daemon, Failure};
#[cfg(target_os = "linux")]
use wakeupd::doctor;
use wakeupd::signals::{self, Blocked, Signals};
use wakeupd::supervisor::{self, Supervisor};
use wakeupd::{client, logging, output, probe, snapshot};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(cli) => run_command(&cli),
        Err(code) => code,
    }
}

fn run_command(cli: &Cli) -> ExitCode {
    match &cli.command {
        Some(Command::Status(options)) => client::status(options, settings),
        Some(Command::Healthcheck(options)) => client::health(options, settings),
        Some(Command::Probe(options)) => probe::run(options),
        #[cfg(target_os = "linux")]
        Some(Command::Doctor(options)) => configured(|loaded| doctor::run(options, loaded)),
        Some(Command::Snapshot(command)) => snapshot::run(command),
        Some(Command::Completions { shell }) => print(&cli::completions(*shell)),
        Some(Command::Man) => print(&cli::manual()),
        None => {
            #[cfg(target_os = "linux")]
            if let Some(parent) = cli.ends_with {
                signals::end_with(parent);
            }
            match (cli.check_config, cli.print_config) {
                (true, _) => configured(check),
                (_, true) => configured(show),
                _ => serve(),
            }
        }
    }
}

/// Reads only the named settings.
fn settings(names: &[&str]) -> Result<Config, ConfigError> {
    Environment::some(std::env::vars_os(), names)
}

/// Calls `act` with all settings. Reports invalid settings instead.
fn configured(act: impl FnOnce(&Loaded) -> ExitCode) -> ExitCode {
    match Environment::load(std::env::vars_os()) {
        Ok(loaded) => act(&loaded),
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Prints an error to standard error, before logging has started or after it has ended. Returns the exit
/// code.
fn fail(error: &dyn Display, exit_code: u8) -> ExitCode {
    logging::complain(Level::ERROR, &format!("wakeupd: {error}"));
    exit_code.into()
}

fn show(Loaded { config, misspelt, .. }: &Loaded) -> ExitCode {
    for misspelt in misspelt {
        logging::complain(Level::WARN, &format!("wakeupd: {misspelt}"));
    }
    print(&config.to_string())
}

/// Checks everything that needs no socket. The variables have already been validated.
fn check(Loaded { config, misspelt, .. }: &Loaded) -> ExitCode {
    if config.deny_file.as_ref().is_some_and(|file| file.networks().is_none()) {
        let unchecked = "wakeupd: the disk of DENY_FILE does not answer, so the file was not checked. Check the disk.";
        logging::complain(Level::WARN, unchecked);
    }
    // The checks may log warnings about valid but questionable settings.
    if let Err(error) = logging::start(config.log_level, config.log_format).map_err(Failure::from) {
        return fail(&error, error.exit_code());
    }
    let errors = daemon::check(config, misspelt);
    logging::finish(!errors.is_empty());
    let mut code = None;
    for error in &errors {
        code = Some(fail(error, error.exit_code()));
    }
    code.unwrap_or_else(|| print("the configuration is valid\n"))
}

fn serve() -> ExitCode {
    // No other thread may run yet: it would not inherit the mask, and taking the socket changes the
    // environment.
    let blocked = signals::block();
    let variables: Vec<_> = std::env::vars_os().collect();
    let handed_over = supervisor::take_socket();
    match prepare(blocked, variables) {
        Ok((config, signals)) => {
            let served =
                handed_over.map_err(Into::into).and_then(|socket| run(&config, socket, signals));
            let code = match &served {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    error!("{error}");
                    error.exit_code().into()
                }
            };
            logging::finish(served.is_err());
            code
        }
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Watches the signals, reads the settings and starts the log.
fn prepare(
    blocked: Blocked,
    variables: Vec<(OsString, OsString)>,
) -> Result<(Config, Signals), Failure> {
    let signals = blocked.watch()?;
    let Loaded { config, misspelt, file } = Environment::load(variables)?;
    logging::start(config.log_level, config.log_format)?;
    if let Some(path) = file {
        info!(path = %path.display(), "read variables from the env file");
    }
    for misspelt in misspelt {
        warn!("{misspelt}");
    }
    config.log();
    Ok((config, signals))
}

fn run(config: &Config, handed_over: Option<UdpSocket>, signals: Signals) -> Result<(), Failure> {
    // A single-threaded runtime starts no threads. A multi-threaded one panics or degrades if the system
    // refuses to start them.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let daemon = Daemon::bind(config, handed_over)?;
    let (stop, reload) = signals.hand_over();
    let mut supervisor = Supervisor::of_this_process();
    Ok(daemon.run(&runtime, stop, reload, &mut supervisor)?)
}

fn print(text: &str) -> ExitCode {
    output::end("wakeupd", ExitCode::SUCCESS, output::print(text))
}
