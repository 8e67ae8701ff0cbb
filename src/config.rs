//! From the environment to a [`Config`]: every mistake is told at once, each by its variable's name.

mod misspelt;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::registry::SHARDS;

pub use misspelt::Misspelt;

/// An environment variable of the daemon.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value where it is unset or empty.
    pub default: &'static str,
    /// What it may be, as the end of a sentence that begins with "must be".
    pub allowed: &'static str,
    /// What it is for.
    pub about: &'static str,
}

const HOST: Variable = Variable {
    name: "HOST",
    default: "0.0.0.0",
    allowed: "an IP address of this machine or a name that resolves to one, without brackets or port",
    about: "Local address or name to bind; :: is IPv6 and IPv4",
};
const PORT: Variable = Variable {
    name: "PORT",
    default: "7561",
    allowed: "a whole number from 0 to 65535",
    about: "Local UDP port; 0 lets the system choose one",
};
const LOG_LEVEL: Variable = Variable {
    name: "LOG_LEVEL",
    default: "INFO",
    allowed: "one of DEBUG, INFO, WARNING (WARN), ERROR, CRITICAL (FATAL), NOTSET, or 10, 20, 30, 40, 50, 0",
    about: "Minimum severity to log; NOTSET logs every datagram",
};
const LOG_FORMAT: Variable = Variable {
    name: "LOG_FORMAT",
    default: "text",
    allowed: "text or json",
    about: "Form of a log line: text or json",
};
const WORKER_POOL_SIZE: Variable = Variable {
    name: "WORKER_POOL_SIZE",
    default: "10",
    allowed: "a whole number from 1 to 256 (the number of shards)",
    about: "Number of workers that share the clients",
};
const CLIENT_EXPIRATION_SECONDS: Variable = Variable {
    name: "CLIENT_EXPIRATION_SECONDS",
    default: "120",
    allowed: "a whole number from 1 to 86400",
    about: "Seconds a client is pinged after its last heartbeat",
};

/// Every variable of the daemon, in the order in which they are shown.
pub const VARIABLES: [&Variable; 6] =
    [&HOST, &PORT, &CLIENT_EXPIRATION_SECONDS, &WORKER_POOL_SIZE, &LOG_LEVEL, &LOG_FORMAT];

/// The settings of a daemon, all of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `HOST`: an address, or a name yet to be resolved.
    pub host: String,
    /// `PORT`.
    pub port: u16,
    /// `CLIENT_EXPIRATION_SECONDS`.
    pub client_expiration: Duration,
    /// `WORKER_POOL_SIZE`.
    pub worker_pool_size: usize,
    /// `LOG_LEVEL`.
    pub log_level: LogLevel,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
}

/// Severities by the names and numbers that Python gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, each datagram included.
    NotSet,
    /// Clients that come and go as well.
    Debug,
    /// What an operator wants to read.
    Info,
    /// What an operator should look into.
    Warning,
    /// What stops the daemon from doing its work.
    Error,
    /// As [`LogLevel::Error`]: nothing here is graver.
    Critical,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for LogLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_uppercase().as_str() {
            "NOTSET" | "0" => Ok(Self::NotSet),
            "DEBUG" | "10" => Ok(Self::Debug),
            "INFO" | "20" => Ok(Self::Info),
            "WARNING" | "WARN" | "30" => Ok(Self::Warning),
            "ERROR" | "40" => Ok(Self::Error),
            "CRITICAL" | "FATAL" | "50" => Ok(Self::Critical),
            _ => Err(()),
        }
    }
}

impl Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSet => "NOTSET",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        })
    }
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A variable with a value it must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    name: &'static str,
    value: String,
    allowed: &'static str,
    default: &'static str,
}

/// Every variable that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong, so nothing was started:")?;
        for Mistake { name, value, allowed, default } in &self.0 {
            write!(f, "\n  {name}={value} must be {allowed} (default: {default})")?;
        }
        Ok(())
    }
}

/// The variables' texts, trimmed and without quotes; `None` where unset or empty.
#[derive(Debug, Deserialize)]
struct Texts {
    host: Option<String>,
    port: Option<String>,
    client_expiration_seconds: Option<String>,
    worker_pool_size: Option<String>,
    log_level: Option<String>,
    log_format: Option<String>,
}

impl Config {
    /// Reads the settings from variables such as [`std::env::vars_os`] gives, and tells which other
    /// variables look like misspelt ones.
    ///
    /// # Errors
    /// With every variable whose value is wrong.
    ///
    /// # Panics
    /// Never: what envy is given are texts that become texts.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<Misspelt>), Mistakes> {
        let mut mistakes = Vec::new();
        let mut texts = HashMap::new();
        let mut misspelt = Vec::new();
        for (name, value) in vars {
            let Ok(name) = name.into_string() else {
                continue;
            };
            let Some(variable) = VARIABLES.into_iter().find(|variable| variable.name == name)
            else {
                misspelt.extend(Misspelt::find(name));
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    let value = unquoted(&value);
                    if !value.is_empty() {
                        texts.insert(name, value.to_owned());
                    }
                }
                Err(value) => mistakes.push(variable.mistake(value.display())),
            }
        }
        let texts: Texts = envy::from_iter(texts).expect("a text becomes a text");

        let mut read = Reader { mistakes };
        let host = read.value(&HOST, texts.host.as_ref(), host);
        let port = read.value(&PORT, texts.port.as_ref(), |text| text.parse().ok());
        let expiration = read.value(
            &CLIENT_EXPIRATION_SECONDS,
            texts.client_expiration_seconds.as_ref(),
            |text| text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)),
        );
        let workers = read.value(&WORKER_POOL_SIZE, texts.worker_pool_size.as_ref(), |text| {
            text.parse().ok().filter(|workers| (1..=SHARDS).contains(workers))
        });
        let log_level = read.value(&LOG_LEVEL, texts.log_level.as_ref(), |text| text.parse().ok());
        let log_format =
            read.value(&LOG_FORMAT, texts.log_format.as_ref(), |text| text.parse().ok());

        match (host, port, expiration, workers, log_level, log_format, read.mistakes.is_empty()) {
            (
                Some(host),
                Some(port),
                Some(expiration),
                Some(worker_pool_size),
                Some(log_level),
                Some(log_format),
                true,
            ) => {
                let client_expiration = Duration::from_secs(expiration);
                let config =
                    Self { host, port, client_expiration, worker_pool_size, log_level, log_format };
                Ok((config, misspelt))
            }
            _ => Err(Mistakes(read.mistakes)),
        }
    }

    /// Each variable's name with its effective value.
    #[must_use]
    pub fn values(&self) -> [(&'static str, String); VARIABLES.len()] {
        [
            (HOST.name, self.host.clone()),
            (PORT.name, self.port.to_string()),
            (CLIENT_EXPIRATION_SECONDS.name, self.client_expiration.as_secs().to_string()),
            (WORKER_POOL_SIZE.name, self.worker_pool_size.to_string()),
            (LOG_LEVEL.name, self.log_level.to_string()),
            (LOG_FORMAT.name, self.log_format.to_string()),
        ]
    }
}

/// The settings in the form of an `.env` file.
impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values().iter().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

/// The end of `--help`: every variable with its default.
#[must_use]
pub fn help() -> String {
    let lines = VARIABLES.map(|Variable { name, default, about, .. }| {
        format!("  {name:<26} {about} [default: {default}]\n")
    });
    format!("Environment variables of the daemon:\n{}", lines.concat())
}

impl Variable {
    fn mistake(&self, value: impl Display) -> Mistake {
        let Self { name, default, allowed, .. } = *self;
        // Quoted, and with nothing in it that could move the cursor of a terminal.
        let value = format!("\"{}\"", value.to_string().escape_debug());
        Mistake { name, value, allowed, default }
    }
}

struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn value<T>(
        &mut self,
        variable: &Variable,
        text: Option<&String>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = text.map_or(variable.default, String::as_str);
        let value = parse(text);
        if value.is_none() {
            self.mistakes.push(variable.mistake(text));
        }
        value
    }
}

/// The text without white space around it, nor the quotes that `docker run --env-file` leaves.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
        .trim()
}

fn host(text: &str) -> Option<String> {
    let is_plausible = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    // An IPv6 address has two colons at least, so a single one is that of a port.
    let has_port = text.matches(':').count() == 1;
    (text.chars().all(is_plausible) && !has_port).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DEFAULT_PORT;

    fn read(vars: &[(&str, &str)]) -> Result<(Config, Vec<Misspelt>), Mistakes> {
        Config::from_vars(vars.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn config(vars: &[(&str, &str)]) -> Config {
        read(vars).unwrap().0
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let expected = Config {
            host: "0.0.0.0".into(),
            port: DEFAULT_PORT,
            client_expiration: Duration::from_secs(120),
            worker_pool_size: 10,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
        };
        assert_eq!(config(&[]), expected);
        assert_eq!(config(&[("PORT", ""), ("HOST", "  "), ("LOG_LEVEL", "\"\"")]), expected);
    }

    #[test]
    fn the_values_are_named_in_the_order_of_the_variables() {
        let values = config(&[]).values();
        for (variable, (name, value)) in VARIABLES.into_iter().zip(values) {
            assert_eq!((variable.name, variable.default), (name, value.as_str()));
        }
    }

    #[test]
    fn quotes_and_spaces_around_a_value_do_no_harm() {
        for value in ["7000", " 7000 ", "\"7000\"", "'7000'", " \" 7000 \" ", "\t7000\n"] {
            assert_eq!(config(&[("PORT", value)]).port, 7000, "{value:?}");
        }
        for value in ["\"7000", "7000'", "\"7000'", "''7000''", "70 00"] {
            assert!(read(&[("PORT", value)]).is_err(), "{value:?}");
        }
    }

    #[test]
    fn log_levels_are_spelt_as_in_python() {
        let spellings = [
            (LogLevel::NotSet, "NOTSET", "0"),
            (LogLevel::Debug, "DEBUG", "10"),
            (LogLevel::Info, "INFO", "20"),
            (LogLevel::Warning, "WARNING", "30"),
            (LogLevel::Warning, "WARN", "30"),
            (LogLevel::Error, "ERROR", "40"),
            (LogLevel::Critical, "CRITICAL", "50"),
            (LogLevel::Critical, "FATAL", "50"),
        ];
        for (level, name, number) in spellings {
            for text in [name, number, &name.to_lowercase()] {
                assert_eq!(config(&[("LOG_LEVEL", text)]).log_level, level, "{text}");
            }
        }
    }

    #[test]
    fn the_worker_pool_is_no_larger_than_the_registry() {
        assert!(WORKER_POOL_SIZE.allowed.contains(&SHARDS.to_string()));
        assert_eq!(config(&[("WORKER_POOL_SIZE", "256")]).worker_pool_size, SHARDS);
        assert!(read(&[("WORKER_POOL_SIZE", "257")]).is_err());
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for host in ["127.0.0.1", "::", "fe80::1%eth0", "localhost", "my-host_1.example"] {
            assert_eq!(config(&[("HOST", host)]).host, host);
        }
        for host in ["two words", "[::]", "http://example", "a,b", "127.0.0.1/8", "localhost:7561"]
        {
            assert!(read(&[("HOST", host)]).is_err(), "{host}");
        }
    }

    #[test]
    fn a_mistake_cannot_write_to_the_terminal() {
        let mistakes = read(&[("PORT", "\u{1b}[2J\n")]).unwrap_err().to_string();
        assert!(mistakes.contains(r#"PORT="\u{1b}[2J""#), "{mistakes}");
    }
}
