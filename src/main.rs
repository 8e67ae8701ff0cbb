//! Picks what to do, starts logging, and turns an error into an exit code.

use std::error::Error;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tracing::{Level, error, info, warn};
use wakeupd::cli::{self, Cli, Command};
use wakeupd::config::{Config, DenyFile, Misspelt};
use wakeupd::daemon::{Daemon, StartError};
use wakeupd::supervisor::{self, Supervisor, WrongSocket};
use wakeupd::{ask, logging, memory, probe, signals, snapshot};
#[cfg(target_os = "linux")]
use wakeupd::{bench, doctor};

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Status(options)) => configured(|config, _| ask::status(options, config)),
        Some(Command::Healthcheck(options)) => configured(|config, _| ask::health(options, config)),
        Some(Command::Probe(options)) => probe::run(options),
        #[cfg(target_os = "linux")]
        Some(Command::Bench(options)) => bench::run(options, std::env::vars_os()),
        #[cfg(target_os = "linux")]
        Some(Command::Doctor(options)) => {
            configured(|config, misspelt| doctor::run(options, config, misspelt))
        }
        Some(Command::Snapshot(command)) => snapshot::run(command),
        Some(Command::Completions { shell }) => print(&cli::completions(*shell)),
        Some(Command::Man) => print(&cli::manual()),
        None => {
            #[cfg(target_os = "linux")]
            if let Some(parent) = cli.ends_with {
                signals::end_with(parent);
            }
            configured(|config, misspelt| {
                if cli.check_config || cli.print_config {
                    show(config, misspelt, cli.print_config)
                } else {
                    serve(config, misspelt)
                }
            })
        }
    }
}

/// Does something with the settings of the environment, if they are right.
fn configured(act: impl FnOnce(&Config, &[Misspelt]) -> ExitCode) -> ExitCode {
    match Config::from_vars(std::env::vars_os()) {
        Ok((config, misspelt)) => act(&config, &misspelt),
        Err(mistakes) => {
            logging::complain(Level::ERROR, &format!("wakeupd: {mistakes}"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn show(config: &Config, misspelt: &[Misspelt], prints: bool) -> ExitCode {
    for misspelt in misspelt {
        logging::complain(Level::WARN, &format!("wakeupd: {misspelt}"));
    }
    if config.deny_file.as_ref().is_some_and(|file| file.networks().is_none()) {
        let unchecked =
            "wakeupd: the disk of DENY_FILE does not answer, so the file is not checked";
        logging::complain(Level::WARN, unchecked);
    }
    if prints { print(&config.to_string()) } else { print("the configuration is valid\n") }
}

fn serve(config: &Config, misspelt: &[Misspelt]) -> ExitCode {
    // Logging has a thread.
    let handed_over = supervisor::take_socket();
    let logging = logging::start(config.log_level, config.log_format);
    for misspelt in misspelt {
        warn!("{misspelt}");
    }
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
        local_nets = %config.guard.local_nets,
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
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(config.worker_pool_size + memory::SPARE_THREADS)
        .thread_name("wakeupd")
        .build();
    let served = match (&runtime, handed_over) {
        (Ok(runtime), Ok(socket)) => runtime.block_on(run(config, socket)),
        (_, Err(wrong)) => Err(wrong.into()),
        (Err(error), _) => Err(format!("cannot start threads: {error}").into()),
    };
    let failed = served.is_err();
    let code = match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            // These are matters of a unit's configuration.
            let is_too_small = matches!(error.downcast_ref(), Some(StartError::Memory(_)));
            if is_too_small || error.is::<WrongSocket>() {
                EXIT_CONFIG.into()
            } else {
                ExitCode::FAILURE
            }
        }
    };
    // The runtime lasts until the end, and with it the handler of a second signal.
    logging.finish(failed);
    if let Ok(runtime) = runtime {
        // A name that is still being resolved must not hold up the end.
        runtime.shutdown_background();
    }
    code
}

async fn run(config: &Config, handed_over: Option<UdpSocket>) -> Result<(), Box<dyn Error>> {
    let mut stop = signals::stop()?;
    let hangup = signals::hangup()?;
    let daemon = tokio::select! {
        daemon = Daemon::bind(config, handed_over) => daemon?,
        _ = &mut stop => return Ok(()),
    };
    daemon.run(stop, hangup, &Supervisor::of_this_process()).await?;
    Ok(())
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            logging::complain(Level::ERROR, &format!("wakeupd: cannot write: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
