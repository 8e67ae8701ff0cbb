//! Parses the command line. Help and version go through [`crate::output`], and an argument that resembles a
//! setting yields a tip with the variable to set.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use tracing::Level;

use super::Cli;
use crate::config::{Misspelt, Setting};
use crate::{logging, output};

/// Flags of other daemons, with the corresponding variables.
const OTHER_FLAGS: [(&str, &str); 7] = [
    ("-H", "HOST"),
    ("-b", "HOST"),
    ("--bind", "HOST"),
    ("--listen", "HOST"),
    ("-p", "PORT"),
    ("-v", "LOG_LEVEL"),
    ("--verbose", "LOG_LEVEL"),
];

/// Subcommands that start other daemons. Some of these words resemble a subcommand of wakeupd.
const STARTING: [&str; 5] = ["daemon", "listen", "run", "serve", "start"];

/// Parses the arguments. The first one is the program's name.
///
/// # Errors
/// If the program should exit: the help was printed or an argument is invalid. The error is the exit code.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    Cli::try_parse_from(&arguments).map_err(|error| report(&with_tip(error, &arguments)))
}

fn report(error: &clap::Error) -> ExitCode {
    let text = error.render();
    let code = u8::try_from(error.exit_code()).unwrap_or(1).into();
    if error.use_stderr() {
        let is_coloured = logging::may_colour(&io::stderr());
        let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
        logging::complain(Level::ERROR, &text);
        return code;
    }
    let is_coloured = logging::may_colour(&io::stdout());
    let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
    output::end("wakeupd", code, output::print(text))
}

fn with_tip(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let given =
        match error.get(ContextKind::InvalidArg).or(error.get(ContextKind::InvalidSubcommand)) {
            Some(ContextValue::String(given)) => given.clone(),
            _ => return error,
        };
    if is_of_subcommand(&given, arguments) {
        return error;
    }
    let tip = match error.kind() {
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            tip_for_flag(&given, value_of(&given, arguments))
        }
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument => tip_for_word(&given, &error),
        _ => None,
    };
    if let Some(tip) = tip {
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// Whether an argument follows a subcommand, so that the error concerns the subcommand.
fn is_of_subcommand(given: &str, arguments: &[OsString]) -> bool {
    let command = Cli::command();
    let is_subcommand = |argument: &&OsString| {
        let name = argument.to_str();
        name.is_some_and(|name| command.get_subcommands().any(|it| it.get_name() == name))
    };
    let is_given = |argument: &&OsString| {
        argument.to_str().is_some_and(|argument| argument.starts_with(given))
    };
    arguments.iter().skip(1).take_while(|argument| !is_given(argument)).any(|it| is_subcommand(&it))
}

/// Returns a tip for a word in place of a subcommand: `PORT=7000`, or a subcommand that starts other daemons.
fn tip_for_word(word: &str, error: &clap::Error) -> Option<String> {
    if let Some((name, _)) = word.split_once('=')
        && Setting::named(name).is_some()
    {
        return Some(format!("set the variable before the command: {word} wakeupd"));
    }
    // For a word that resembles a subcommand, clap already has a suggestion.
    let is_suggested = error.get(ContextKind::SuggestedSubcommand).is_some();
    let tip =
        "to serve, run wakeupd without a subcommand; environment variables configure the daemon";
    (STARTING.contains(&word) || !is_suggested).then(|| tip.to_owned())
}

/// Returns a tip for a flag that corresponds to a setting.
fn tip_for_flag(flag: &str, value: Option<&str>) -> Option<String> {
    let other = OTHER_FLAGS.iter().find(|(name, _)| *name == flag).map(|(_, variable)| *variable);
    let variable = other.or_else(|| {
        let name = flag.strip_prefix("--")?.replace('-', "_").to_uppercase();
        let exact = Setting::named(&name);
        exact.map(|variable| variable.name).or_else(|| Some(Misspelt::find(name)?.meant))
    })?;
    let is_verbose = variable == "LOG_LEVEL" && other.is_some();
    let default = Setting::named(variable).map(|setting| setting.default);
    let value = if is_verbose { Some("DEBUG") } else { value.or(default) };
    let value = output::printable(&output::shell_word(value.unwrap_or_default()));
    Some(format!("environment variables configure the daemon: {variable}={value} wakeupd"))
}

/// Returns the value given to a flag, as in `--port=7000`, `--port 7000` or `-p7000`.
fn value_of<'a>(flag: &str, arguments: &'a [OsString]) -> Option<&'a str> {
    let position =
        arguments.iter().position(|it| it.to_str().is_some_and(|it| it.starts_with(flag)))?;
    let rest = arguments[position].to_str()?.strip_prefix(flag)?;
    let value = if rest.is_empty() { arguments.get(position + 1)?.to_str()? } else { rest };
    let value = value.strip_prefix('=').unwrap_or(value);
    (!value.is_empty() && !value.starts_with('-')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn error(arguments: &str) -> String {
        let arguments: Vec<_> = arguments.split(' ').map(OsString::from).collect();
        let error = Cli::try_parse_from(&arguments).unwrap_err();
        with_tip(error, &arguments).render().to_string()
    }

    #[test]
    fn a_flag_for_a_setting_suggests_the_variable() {
        for (arguments, tip) in [
            ("wakeupd --port 7000", "PORT=7000 wakeupd"),
            ("wakeupd --port=7000", "PORT=7000 wakeupd"),
            ("wakeupd -p 7000", "PORT=7000 wakeupd"),
            ("wakeupd -p7000", "PORT=7000 wakeupd"),
            ("wakeupd -p", "PORT=7561 wakeupd"),
            ("wakeupd --host :: --port 7000", "HOST=:: wakeupd"),
            ("wakeupd --bind 192.0.2.1", "HOST=192.0.2.1 wakeupd"),
            ("wakeupd --log-level debug", "LOG_LEVEL=debug wakeupd"),
            ("wakeupd --loglevel --x", "LOG_LEVEL=INFO wakeupd"),
            ("wakeupd -v", "LOG_LEVEL=DEBUG wakeupd"),
            ("wakeupd --max-clients 5", "MAX_CLIENTS=5 wakeupd"),
            ("wakeupd --worker-pool 5", "WORKER_POOL_SIZE=5 wakeupd"),
            ("wakeupd PORT=7000", "set the variable before the command: PORT=7000 wakeupd"),
            ("wakeupd serve", "to serve, run wakeupd without a subcommand"),
            ("wakeupd start --port 1", "to serve, run wakeupd without a subcommand"),
        ] {
            let error = error(arguments);
            assert_eq!(error.matches("tip: ").count(), 1, "{arguments}: {error}");
            assert!(error.contains(tip), "{arguments}: {error}");
        }
        for variable in SETTINGS {
            let flag = variable.name.to_lowercase().replace('_', "-");
            let error = error(&format!("wakeupd --{flag} 1"));
            assert!(error.contains(&format!(": {}=1 wakeupd", variable.name)), "{error}");
        }
    }

    #[test]
    fn other_errors_suggest_no_variable() {
        for arguments in ["wakeupd probe --port 7000 x", "wakeupd status --port 1", "wakeupd --x"] {
            let error = error(arguments);
            assert!(!error.contains("environment variables configure"), "{arguments}: {error}");
        }
        assert!(error("wakeupd statis").contains("'status'"));
    }
}
