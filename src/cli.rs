//! The command line, and what is made of its definition: completions and the manual page.

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
/// Without a subcommand it serves: a client that sends a UDP datagram of any kind to it gets a
/// 2-byte ping every second, until its heartbeats stop. It is configured by the environment
/// alone.
#[derive(Debug, Parser)]
#[command(version, after_help = config::help(), args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Check all that needs no socket: each variable, misspelt names, `HOST` and the limits on memory
    ///
    /// It starts nothing. The exit code is 0 if all is well and 78 if not. `wakeupd doctor` tries the rest.
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,

    /// Print the effective settings in the form of an .env file and exit
    #[arg(long)]
    pub print_config: bool,

    /// Serve until this process, which started it, ends
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "PID", hide = true)]
    pub ends_with: Option<i32>,

    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how the daemon that runs here is
    ///
    /// It asks the endpoint of the daemon. The exit code is 0 if nothing is critical, 1 if something is, and
    /// 69 if there is no answer.
    Status(options::StatusOptions),

    /// Tell by the exit code whether the daemon that runs here is healthy
    ///
    /// It asks the endpoint of the daemon. If `HTTP_ADDR` is none, it sends a heartbeat to `HOST` and
    /// `PORT` and waits up to 3 s for a ping, which makes it a client for a moment. The exit code is 0 if every
    /// task of the daemon is alive, or a ping came, or `PORT` is 0 too, so that there is nothing to ask; 78 if
    /// a variable that it needs is wrong, else 1.
    Healthcheck(options::HealthcheckOptions),

    /// Act as a client: send heartbeats to a daemon and show the pings that come back
    Probe(options::ProbeOptions),

    /// Look at what makes such a daemon fail on this machine, and say what to do about it
    ///
    /// It reads the same environment as the daemon, so run it with that. If a wakeupd holds the port
    /// already, its limits are looked at, else those of a daemon started from here. It changes nothing.
    /// Run it as root to see everything; what it cannot see is "unknown" and no finding.
    ///
    /// A port that is free is bound for a moment, and `SNAPSHOT_PATH` and `DENY_FILE` are tried as the
    /// user of the running daemon, else as the owner of the snapshot's folder, unless that is root, else as the caller.
    ///
    /// The exit code is 1 if anything was found, 0 if not, and 78 if the environment is wrong.
    #[cfg(target_os = "linux")]
    Doctor(options::DoctorOptions),

    /// Look into the file that keeps the clients over a restart
    #[command(subcommand)]
    Snapshot(options::SnapshotCommand),

    /// Print what makes a shell complete the arguments
    ///
    /// `source <(wakeupd completions bash)` is for once. For good it is kept in a file, such as
    /// `/etc/bash_completion.d/wakeupd`, `/usr/local/share/zsh/site-functions/_wakeupd` or
    /// `/etc/fish/completions/wakeupd.fish`.
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the manual page
    ///
    /// `wakeupd man | man -l -` shows it. In `/usr/local/share/man/man8/wakeupd.8` man(1) finds it.
    Man,
}

/// What makes `shell` complete the arguments.
///
/// # Panics
/// Never: memory takes all that is written to it.
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
    String::from_utf8(script).expect("made of texts")
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
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
