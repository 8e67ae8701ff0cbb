//! Dispatches the subcommands, starts logging, and maps errors to exit codes.

use std::fmt::Display;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Builder;
use tracing::{Level, error, info, warn};
use wakeupd::cli::{self, Cli, Command};
use wakeupd::config::{
    Config, ConfigError, DenyFile, EXIT_CONFIG, EnvFileError, Environment, Misspelt,
};
use wakeupd::daemon::{self, Daemon, Failure};
#[cfg(target_os = "linux")]
use wakeupd::doctor;
use wakeupd::signals::{self, Signals};
use wakeupd::supervisor::{self, Supervisor, WrongSocket};
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
        Some(Command::Doctor(options)) => configured(|config, misspelt, file| {
            doctor::run(options, &doctor::Given { config, misspelt, file })
        }),
        Some(Command::Snapshot(command)) => snapshot::run(command),
        Some(Command::Completions { shell }) => print(&cli::completions(*shell)),
        Some(Command::Man) => print(&cli::manual()),
        None => {
            #[cfg(target_os = "linux")]
            if let Some(parent) = cli.ends_with {
                signals::end_with(parent);
            }
            match (cli.check_config, cli.print_config) {
                (true, _) => configured(|config, misspelt, _| check(config, misspelt)),
                (_, true) => configured(|config, misspelt, _| show(config, misspelt)),
                _ => serve(),
            }
        }
    }
}

/// Reads only the named settings.
fn settings(names: &[&str]) -> Result<Config, ConfigError> {
    Environment::some(std::env::vars_os(), names)
}

/// Calls `act` with all settings, the misspelt variables and the path of the env file. Reports invalid settings
/// instead.
fn configured(act: impl FnOnce(&Config, &[Misspelt], Option<&Path>) -> ExitCode) -> ExitCode {
    with_settings(Environment::read(std::env::vars_os()), act)
}

fn with_settings(
    environment: Result<Environment, EnvFileError>,
    act: impl FnOnce(&Config, &[Misspelt], Option<&Path>) -> ExitCode,
) -> ExitCode {
    let environment = match environment {
        Ok(environment) => environment,
        Err(error) => return wrong(&error),
    };
    match environment.config() {
        Ok((config, misspelt)) => act(&config, &misspelt, environment.file()),
        Err(mistakes) => wrong(&mistakes),
    }
}

/// Reports why the program cannot start with this configuration, and returns the exit code.
fn wrong(error: &dyn Display) -> ExitCode {
    logging::complain(Level::ERROR, &format!("wakeupd: {error}"));
    EXIT_CONFIG.into()
}

fn show(config: &Config, misspelt: &[Misspelt]) -> ExitCode {
    for misspelt in misspelt {
        logging::complain(Level::WARN, &format!("wakeupd: {misspelt}"));
    }
    print(&config.to_string())
}

/// Checks everything that needs no socket. The variables have already been validated.
fn check(config: &Config, misspelt: &[Misspelt]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for misspelt in misspelt {
        code = wrong(misspelt);
    }
    if config.deny_file.as_ref().is_some_and(|file| file.networks().is_none()) {
        let unchecked =
            "wakeupd: the disk of DENY_FILE does not answer, so the file was not checked";
        logging::complain(Level::WARN, unchecked);
    }
    // The checks may log warnings about valid but questionable settings.
    if let Err(error) = logging::start(config.log_level, config.log_format) {
        return fail(&error);
    }
    let checked = daemon::check(config);
    logging::finish(checked.is_err());
    if let Err(error) = checked {
        code = wrong(&error);
    }
    if code == ExitCode::SUCCESS { print("the configuration is valid\n") } else { code }
}

fn serve() -> ExitCode {
    // No other thread may run yet: it would not inherit the mask, and taking the socket changes the
    // environment.
    let blocked = signals::block();
    let variables: Vec<_> = std::env::vars_os().collect();
    let handed_over = supervisor::take_socket();
    let signals = match blocked.watch() {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    with_settings(Environment::read(variables), |config, misspelt, env_file| {
        start(config, misspelt, env_file, handed_over, signals)
    })
}

fn fail(error: &io::Error) -> ExitCode {
    logging::complain(Level::ERROR, &format!("wakeupd: {error}"));
    ExitCode::FAILURE
}

fn start(
    config: &Config,
    misspelt: &[Misspelt],
    env_file: Option<&Path>,
    handed_over: Result<Option<UdpSocket>, WrongSocket>,
    signals: Signals,
) -> ExitCode {
    if let Err(error) = logging::start(config.log_level, config.log_format) {
        return fail(&error);
    }
    if let Some(path) = env_file {
        info!(path = %path.display(), "read variables from the env file");
    }
    for misspelt in misspelt {
        warn!("{misspelt}");
    }
    announce(config);
    let served = handed_over.map_err(Into::into).and_then(|socket| run(config, socket, signals));
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

fn announce(config: &Config) {
    let caps = &config.guard.caps;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        host = config.host,
        port = config.port,
        client_expiration_seconds = config.client_expiration.as_secs(),
        worker_pool_size = config.worker_pool_size,
        max_clients = caps.clients,
        max_clients_per_address = caps.per_address,
        max_clients_per_prefix = caps.per_prefix,
        max_icmp_errors_per_second = config.max_icmp_errors,
        local_nets = %config.guard.local_nets,
        nat64_prefixes = %config.guard.nat64_prefixes,
        refuse_nets = %config.guard.refuse_nets,
        deny_file = config.deny_file.as_ref().map(DenyFile::path),
        guard_mode = %config.guard.mode,
        snapshot_path = config.snapshot_path.as_ref().map(|path| tracing::field::display(path.display())),
        snapshot_interval_seconds = config.snapshot_interval.as_secs(),
        http_addr = config.http_address.map(tracing::field::display),
        http_hosts = %config.http_hosts,
        has_admin_token = config.admin_token.is_some(),
        log_level = %config.log_level,
        log_format = %config.log_format,
        "starting"
    );
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
