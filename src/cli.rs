//! The command line, and the completions and the manual page that its definition yields.

mod manual;
pub mod options;
mod parse;
pub mod values;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use self::parse::parse;
use crate::config;

/// UDP wake-up ping daemon
///
/// Without a subcommand, wakeupd runs the daemon. A client sends heartbeats, UDP datagrams of any
/// kind, and gets a 2-byte ping every second until its heartbeats stop. Environment variables
/// configure the daemon.
#[derive(Debug, Parser)]
#[command(version, after_help = config::help(), args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Check the configuration without opening a socket, and exit
    ///
    /// Checks each variable, looks for misspelt names, resolves `HOST` and compares `MAX_CLIENTS` with the
    /// memory limits. The exit code is 0 if the configuration is valid and 78 if not. `wakeupd doctor` also
    /// checks the machine.
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,

    /// Print the effective settings in the form of an .env file and exit
    #[arg(long)]
    pub print_config: bool,

    /// Exit when the parent process with this PID exits
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "PID", hide = true)]
    pub ends_with: Option<i32>,

    /// Subcommand to run instead of the daemon
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands, which run instead of the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the state of the local daemon
    ///
    /// Queries the daemon's HTTP endpoint. The exit code is 0 if no finding is critical, 1 if a finding is
    /// critical, 69 if the daemon does not answer, and 78 if `HTTP_ADDR` is needed and invalid.
    Status(options::StatusOptions),

    /// Exit 0 if the local daemon is healthy
    ///
    /// Queries the daemon's HTTP endpoint. If `HTTP_ADDR` is none, the check sends a heartbeat to `HOST` and
    /// `PORT` and waits up to 3 s for a ping, so it becomes a client for a moment.
    ///
    /// The exit code is 0 if every task of the daemon is alive or a ping arrived, 78 if a variable that the
    /// check needs is invalid, and otherwise 1. If `HTTP_ADDR` is none and `PORT` is 0, nothing can be checked,
    /// and the exit code is 0.
    Healthcheck(options::HealthcheckOptions),

    /// Act as a client: send heartbeats to a daemon and print its pings
    ///
    /// The exit code is 0 if a ping arrived, otherwise 1.
    Probe(options::ProbeOptions),

    /// Check this machine for causes of failure, and suggest remedies
    ///
    /// Run it with the daemon's environment variables. It changes nothing. Run it as root to check everything:
    /// a check without access reports "unknown", which is not a finding.
    ///
    /// If a wakeupd holds the port, the doctor checks the limits of that process, otherwise the limits of a
    /// daemon started from here. If the port is free, the doctor binds it for a moment. It tries
    /// `SNAPSHOT_PATH` and `DENY_FILE` with the permissions of the running daemon's user. If no daemon runs, it
    /// uses the owner of the snapshot's folder or, if that is root, the calling user.
    ///
    /// The exit code is 0 without a finding, 1 with a finding, and 78 if a variable is invalid.
    #[cfg(target_os = "linux")]
    Doctor(options::DoctorOptions),

    /// Inspect a snapshot of the clients
    #[command(subcommand)]
    Snapshot(options::SnapshotCommand),

    /// Print a shell completion script
    ///
    /// `source <(wakeupd completions bash)` enables completion in the current shell. To install it, write the
    /// script to a file such as `/etc/bash_completion.d/wakeupd`,
    /// `/usr/local/share/zsh/site-functions/_wakeupd` or `/etc/fish/completions/wakeupd.fish`.
    Completions {
        /// Shell that reads the script
        shell: Shell,
    },

    /// Print the manual page
    ///
    /// `wakeupd man | man -l -` displays it. To install it, write it to
    /// `/usr/local/share/man/man8/wakeupd.8`.
    Man,
}

/// The completion script for `shell`.
///
/// # Panics
/// Never: the script is UTF-8.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let whole = Cli::command();
    // Hidden arguments would be offered too.
    let shown = whole.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut command = clap::Command::new("wakeupd")
        .version(env!("CARGO_PKG_VERSION"))
        .args(shown)
        .subcommands(whole.get_subcommands());
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "wakeupd", &mut script);
    String::from_utf8(script).expect("clap generates UTF-8")
}

/// The manual page, in the language of roff(7).
#[must_use]
pub fn manual() -> String {
    manual::of(Cli::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
