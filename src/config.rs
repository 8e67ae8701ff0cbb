//! Parses the environment into a [`Config`]. All mistakes are reported together, each under its variable's
//! name.

mod deny_file;
mod environment;
mod error;
mod http;
mod log;
mod misspelt;
mod setting;
mod settings;
mod snapshot;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::engine::guard::{Caps, Rules};

pub use deny_file::{DenyFile, DenyFileError, parse as parse_deny_file};
pub use environment::{Environment, Loaded, ReadSettings};
pub use error::{ConfigError, EXIT_CONFIG, EnvFileError, Mistakes};
pub use http::{Hosts, Token};
pub use log::{LogFormat, LogLevel};
pub use misspelt::Misspelt;
pub use setting::{Group, Secrecy, Setting, Values};
pub use settings::{Config, ENV_FILE, SETTINGS};
pub use value::HostName;

use error::Mistake;
use settings::{HOST, HTTP_ADDR, PORT};
use value::Reader;

/// The text with which an operator leaves an optional setting or a list empty.
const NONE: &str = "none";

/// The text that is shown in place of a secret. It is shorter than any valid token, so the daemon rejects it
/// as a value.
const HIDDEN: &str = "(hidden)";

impl Config {
    /// Reads the settings from variables such as those of [`std::env::vars_os`], and also returns the unknown
    /// variables that look like misspelt settings.
    ///
    /// # Errors
    /// If a value is invalid. The error lists every such variable.
    ///
    /// # Panics
    /// Never: envy deserializes strings into strings, which cannot fail.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<Misspelt>), Mistakes> {
        let mut reader = Reader::default();
        let mut texts = HashMap::new();
        let mut misspelt = Vec::new();
        for (name, value) in vars {
            let Ok(name) = name.into_string() else {
                continue;
            };
            let Some(setting) = Setting::named(&name) else {
                // The environment may hold a name twice.
                if !misspelt.iter().any(|known: &Misspelt| known.name == name) {
                    misspelt.extend(Misspelt::find(name));
                }
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    let value = unquoted(&value);
                    // An empty value means the default, except where it disables a feature.
                    let disables = value.is_empty() && name == HTTP_ADDR.name;
                    let value = if disables { NONE } else { value };
                    if !value.is_empty() {
                        texts.insert(name, value.to_owned());
                    }
                }
                Err(value) => {
                    reader.mistakes.push(Mistake::new(setting, value.display(), None));
                }
            }
        }
        let texts = envy::from_iter(texts).expect("a text becomes a text");
        let config = Self::parse(texts, &mut reader);
        let mistakes = reader.mistakes;
        if mistakes.is_empty() { Ok((config, misspelt)) } else { Err(Mistakes(mistakes)) }
    }

    /// Whether a socket bound to `address` agrees with `HOST` and `PORT`. The default value of `HOST` agrees
    /// with every IP address. The default value of `PORT` and the value 0 agree with every port.
    #[must_use]
    pub fn agrees_with(&self, address: SocketAddr) -> bool {
        let is_host = *self.host == *HOST.default || self.host.parse() == Ok(address.ip());
        let is_port =
            self.port == 0 || self.port == address.port() || self.port.to_string() == PORT.default;
        is_host && is_port
    }

    /// The effective settings that `/status` shows.
    #[must_use]
    pub fn public(&self) -> BTreeMap<String, String> {
        let values = self.values().into_iter();
        let public = values.filter(|(setting, _)| setting.secrecy == Secrecy::Public);
        public.map(|(setting, value)| (setting.name.to_owned(), value)).collect()
    }

    /// The rules of the guard.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            mode: self.guard_mode,
            refuse_nets: self.refuse_nets.clone(),
            local_nets: self.local_nets.clone(),
            nat64_prefixes: self.nat64_prefixes.clone(),
            caps: Caps {
                clients: self.max_clients,
                per_address: self.max_clients_per_address,
                per_prefix: self.max_clients_per_prefix,
            },
        }
    }
}

/// Formats the settings as an `.env` file.
impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values();
        values
            .iter()
            .try_for_each(|(setting, value)| writeln!(f, "{}={}", setting.name, quoted(value)))
    }
}

/// Quotes a value for an `.env` file, if necessary.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !"#$'\"\\`".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    if !value.contains('\'') {
        return format!("'{value}'");
    }
    let escaped = |c: char| if "$\"\\".contains(c) { format!("\\{c}") } else { c.to_string() };
    format!("\"{}\"", value.chars().map(escaped).collect::<String>())
}

/// The end of the `--help` text, which lists every variable with its default.
#[must_use]
pub fn help() -> String {
    let all = SETTINGS.into_iter().chain([&ENV_FILE]);
    let entries = all.map(|setting| {
        let (about, default) = (setting.plain_about(), setting.prose_default());
        format!("  {}\n      {about} [default: {default}]\n", setting.name)
    });
    format!("Environment variables of the daemon:\n{}", entries.collect::<String>())
}

/// The path in the value of a variable, unless the value is empty or `none`.
pub(crate) fn named_path(value: &str) -> Option<PathBuf> {
    let value = unquoted(value);
    (!value.is_empty() && !value.eq_ignore_ascii_case(NONE)).then(|| value.into())
}

/// Strips surrounding white space and the quotes that `docker run --env-file` leaves in place.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
        .trim()
}

#[cfg(test)]
mod tests;
