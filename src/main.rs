//! Picks what to do, starts logging, and turns an error into an exit code.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing::{Level, error, info, warn};
use wakeupd::cli::{Cli, Command};
use wakeupd::config::Config;
use wakeupd::daemon::Daemon;
use wakeupd::{logging, probe, signals};

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Probe(options)) = cli.command {
        return probe::run(&options);
    }
    let (config, misspelt) = match Config::from_vars(std::env::vars_os()) {
        Ok(read) => read,
        Err(mistakes) => {
            logging::complain(Level::ERROR, &format!("wakeupd: {mistakes}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if cli.check_config || cli.print_config {
        for misspelt in misspelt {
            logging::complain(Level::WARN, &format!("wakeupd: {misspelt}"));
        }
        let text = if cli.print_config {
            config.to_string()
        } else {
            "the configuration is valid\n".into()
        };
        return exit_code(io::stdout().write_all(text.as_bytes()).map_err(Into::into));
    }
    let _flush_at_end = logging::start(config.log_level, config.log_format);
    for misspelt in misspelt {
        warn!("{misspelt}");
    }
    exit_code(serve(&config))
}

fn serve(config: &Config) -> Result<(), Box<dyn Error>> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        host = config.host,
        port = config.port,
        client_expiration_seconds = config.client_expiration.as_secs(),
        worker_pool_size = config.worker_pool_size,
        log_level = %config.log_level,
        log_format = %config.log_format,
        "starting"
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let served = runtime.block_on(async {
        let mut stop = signals::stop()?;
        let daemon = tokio::select! {
            daemon = Daemon::bind(config) => daemon?,
            _ = &mut stop => return Ok(()),
        };
        daemon.run(stop).await?;
        Ok(())
    });
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    served
}

fn exit_code(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}
