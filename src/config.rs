//! Parses the environment into a [`Config`]. All mistakes are reported together, each under its variable's
//! name.

mod deny_file;
mod environment;
mod http;
mod log;
mod misspelt;
mod snapshot;
mod variables;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::engine::guard::{Caps, Rules};
use crate::engine::registry::SHARDS;

pub use deny_file::{DenyFile, DenyFileError, parse as parse_deny_file};
pub use environment::{ConfigError, ENV_FILE, EnvFileError, Environment, ReadSettings};
pub use http::{Hosts, Token};
pub use log::{LogFormat, LogLevel};
pub use misspelt::Misspelt;
use variables::{
    ADMIN_TOKEN, CLIENT_EXPIRATION_SECONDS, DENY_FILE, GUARD_MODE, HOST, HTTP_ADDR, HTTP_HOSTS,
    LOCAL_NETS, LOG_FORMAT, LOG_LEVEL, MAX_CLIENTS, MAX_CLIENTS_PER_ADDRESS,
    MAX_CLIENTS_PER_PREFIX, MAX_ICMP_ERRORS_PER_SECOND, NAT64_PREFIXES, PORT, REFUSE_NETS,
    SNAPSHOT_INTERVAL_SECONDS, SNAPSHOT_PATH, WORKER_POOL_SIZE,
};
pub use variables::{VARIABLES, Variable};

/// The exit code for a wrong configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// The valid range of a cap. The upper bound exceeds the memory of any machine.
const CAPS: RangeInclusive<u32> = 1..=100_000_000;

/// The value that stands for no networks or no path.
const NONE: &str = "none";

/// Stands in for a secret. It is shorter than any valid token.
const HIDDEN: &str = "(hidden)";

/// The daemon's settings, all validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `HOST`: an IP address, or a name that is not resolved yet.
    pub host: String,
    /// `PORT`.
    pub port: u16,
    /// `CLIENT_EXPIRATION_SECONDS`.
    pub client_expiration: Duration,
    /// `WORKER_POOL_SIZE`.
    pub worker_pool_size: usize,
    /// `GUARD_MODE`, `REFUSE_NETS`, `LOCAL_NETS`, `NAT64_PREFIXES`, `MAX_CLIENTS` and the other caps.
    pub guard: Rules,
    /// `MAX_ICMP_ERRORS_PER_SECOND`.
    pub max_icmp_errors: u32,
    /// `DENY_FILE` and its networks.
    pub deny_file: Option<DenyFile>,
    /// `SNAPSHOT_PATH`.
    pub snapshot_path: Option<PathBuf>,
    /// `SNAPSHOT_INTERVAL_SECONDS`.
    pub snapshot_interval: Duration,
    /// `HTTP_ADDR`; `None` if the endpoint is disabled.
    pub http_address: Option<SocketAddr>,
    /// `HTTP_HOSTS`.
    pub http_hosts: Hosts,
    /// `ADMIN_TOKEN`.
    pub admin_token: Option<Token>,
    /// `LOG_LEVEL`.
    pub log_level: LogLevel,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
}

/// A variable with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    name: &'static str,
    value: String,
    allowed: &'static str,
    default: &'static str,
    /// The specific error, if the value alone does not make it obvious.
    detail: Option<String>,
}

/// All variables with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong, so nothing was started:")?;
        for Mistake { name, value, allowed, default, detail } in &self.0 {
            write!(f, "\n  {name}={value} must be {allowed} (default: {default})")?;
            if let Some(detail) = detail {
                write!(f, ": {detail}")?;
            }
        }
        Ok(())
    }
}

/// The values of the variables, trimmed and unquoted; `None` if unset or empty.
#[derive(Debug, Deserialize)]
struct Texts {
    host: Option<String>,
    port: Option<String>,
    client_expiration_seconds: Option<String>,
    worker_pool_size: Option<String>,
    max_clients: Option<String>,
    max_clients_per_address: Option<String>,
    max_clients_per_prefix: Option<String>,
    max_icmp_errors_per_second: Option<String>,
    local_nets: Option<String>,
    nat64_prefixes: Option<String>,
    refuse_nets: Option<String>,
    deny_file: Option<String>,
    guard_mode: Option<String>,
    snapshot_path: Option<String>,
    snapshot_interval_seconds: Option<String>,
    http_addr: Option<String>,
    http_hosts: Option<String>,
    admin_token: Option<String>,
    log_level: Option<String>,
    log_format: Option<String>,
}

impl Config {
    /// Reads the settings from variables such as those of [`std::env::vars_os`], and also returns the unknown
    /// variables that look like misspelt ones.
    ///
    /// # Errors
    /// If a value is invalid. The error lists every such variable.
    ///
    /// # Panics
    /// Never: envy deserializes strings into strings, which cannot fail.
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
                    let turns_off = value.is_empty() && name == HTTP_ADDR.name;
                    let value = if turns_off { NONE } else { value };
                    if !value.is_empty() {
                        texts.insert(name, value.to_owned());
                    }
                }
                Err(value) => mistakes.push(variable.mistake(value.display(), None)),
            }
        }
        let texts: Texts = envy::from_iter(texts).expect("a text becomes a text");

        let mut read = Reader { mistakes };
        let config = Self {
            host: read.value(&HOST, texts.host, host),
            port: read.number(&PORT, texts.port, 0..=u16::MAX),
            client_expiration: Duration::from_secs(read.number(
                &CLIENT_EXPIRATION_SECONDS,
                texts.client_expiration_seconds,
                1..=86_400,
            )),
            worker_pool_size: read.number(&WORKER_POOL_SIZE, texts.worker_pool_size, 1..=SHARDS),
            guard: Rules {
                mode: read.value(&GUARD_MODE, texts.guard_mode, plain),
                refuse_nets: read.value(&REFUSE_NETS, texts.refuse_nets, listed),
                local_nets: read.value(&LOCAL_NETS, texts.local_nets, listed),
                nat64_prefixes: read.value(&NAT64_PREFIXES, texts.nat64_prefixes, listed),
                caps: Caps {
                    clients: read.number(&MAX_CLIENTS, texts.max_clients, CAPS),
                    per_address: read.number(
                        &MAX_CLIENTS_PER_ADDRESS,
                        texts.max_clients_per_address,
                        CAPS,
                    ),
                    per_prefix: read.number(
                        &MAX_CLIENTS_PER_PREFIX,
                        texts.max_clients_per_prefix,
                        CAPS,
                    ),
                },
            },
            max_icmp_errors: read.number(
                &MAX_ICMP_ERRORS_PER_SECOND,
                texts.max_icmp_errors_per_second,
                1..=10_000,
            ),
            deny_file: read.value(&DENY_FILE, texts.deny_file, optional(deny_file)),
            snapshot_path: read.value(
                &SNAPSHOT_PATH,
                texts.snapshot_path,
                optional(snapshot::path),
            ),
            snapshot_interval: Duration::from_secs(read.number(
                &SNAPSHOT_INTERVAL_SECONDS,
                texts.snapshot_interval_seconds,
                1..=3_600,
            )),
            http_address: read.value(&HTTP_ADDR, texts.http_addr, optional(http::address)),
            http_hosts: read.value(&HTTP_HOSTS, texts.http_hosts, http::hosts),
            admin_token: read.value(&ADMIN_TOKEN, texts.admin_token, optional(http::token)),
            log_level: read.value(&LOG_LEVEL, texts.log_level, plain),
            log_format: read.value(&LOG_FORMAT, texts.log_format, plain),
        };
        if read.mistakes.is_empty() { Ok((config, misspelt)) } else { Err(Mistakes(read.mistakes)) }
    }

    /// Whether `HOST` and `PORT` allow `address`. Their default values allow any.
    #[must_use]
    pub fn agrees_with(&self, address: SocketAddr) -> bool {
        let is_host = self.host == HOST.default || self.host.parse() == Ok(address.ip());
        let is_port =
            self.port == 0 || self.port == address.port() || self.port.to_string() == PORT.default;
        is_host && is_port
    }

    /// The name and the effective value of each variable.
    #[must_use]
    pub fn values(&self) -> [(&'static str, String); VARIABLES.len()] {
        [
            (HOST.name, self.host.clone()),
            (PORT.name, self.port.to_string()),
            (CLIENT_EXPIRATION_SECONDS.name, self.client_expiration.as_secs().to_string()),
            (WORKER_POOL_SIZE.name, self.worker_pool_size.to_string()),
            (MAX_CLIENTS.name, self.guard.caps.clients.to_string()),
            (MAX_CLIENTS_PER_ADDRESS.name, self.guard.caps.per_address.to_string()),
            (MAX_CLIENTS_PER_PREFIX.name, self.guard.caps.per_prefix.to_string()),
            (MAX_ICMP_ERRORS_PER_SECOND.name, self.max_icmp_errors.to_string()),
            (LOCAL_NETS.name, or_none(&self.guard.local_nets)),
            (NAT64_PREFIXES.name, or_none(&self.guard.nat64_prefixes)),
            (REFUSE_NETS.name, or_none(&self.guard.refuse_nets)),
            (DENY_FILE.name, self.deny_file.as_ref().map_or(NONE.to_owned(), DenyFile::path)),
            (GUARD_MODE.name, self.guard.mode.to_string()),
            (
                SNAPSHOT_PATH.name,
                self.snapshot_path
                    .as_ref()
                    .map_or(NONE.to_owned(), |path| path.display().to_string()),
            ),
            (SNAPSHOT_INTERVAL_SECONDS.name, self.snapshot_interval.as_secs().to_string()),
            (
                HTTP_ADDR.name,
                self.http_address.map_or(NONE.to_owned(), |address| address.to_string()),
            ),
            (HTTP_HOSTS.name, self.http_hosts.to_string()),
            (ADMIN_TOKEN.name, self.admin_token.as_ref().map_or(NONE, |_| HIDDEN).to_owned()),
            (LOG_LEVEL.name, self.log_level.to_string()),
            (LOG_FORMAT.name, self.log_format.to_string()),
        ]
    }
}

/// Formats the settings as an `.env` file.
impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values();
        values.iter().try_for_each(|(name, value)| writeln!(f, "{name}={}", quoted(value)))
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
    let all = VARIABLES.into_iter().chain([&ENV_FILE]);
    let entries = all.map(|Variable { name, default, about, .. }| {
        // Lines break at spaces, so a list needs some.
        let default = default.replace(',', ", ");
        format!("  {name}\n      {about} [default: {default}]\n")
    });
    format!("Environment variables of the daemon:\n{}", entries.collect::<String>())
}

impl Variable {
    fn mistake(&self, value: impl Display, detail: Option<String>) -> Mistake {
        let Self { name, default, allowed, .. } = *self;
        // Quoted and escaped, so that no control character reaches the terminal.
        let value = if name == ADMIN_TOKEN.name { HIDDEN.to_owned() } else { value.to_string() };
        let value = format!("\"{}\"", value.escape_debug());
        Mistake { name, value, allowed, default, detail }
    }
}

struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Parses the value of a variable. If it is invalid, records the mistake and returns the default.
    fn value<T>(
        &mut self,
        variable: &Variable,
        text: Option<String>,
        parse: impl Fn(&str) -> Result<T, Option<String>>,
    ) -> T {
        let default = || parse(variable.default).expect("a default is right");
        let Some(text) = text else { return default() };
        parse(&text).unwrap_or_else(|detail| {
            self.mistakes.push(variable.mistake(text, detail));
            default()
        })
    }

    fn number<T: FromStr + PartialOrd>(
        &mut self,
        variable: &Variable,
        text: Option<String>,
        allowed: RangeInclusive<T>,
    ) -> T {
        self.value(variable, text, |text| {
            text.parse().ok().filter(|number| allowed.contains(number)).ok_or(None)
        })
    }
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

fn plain<T: FromStr>(text: &str) -> Result<T, Option<String>> {
    text.parse().map_err(|_| None)
}

/// Extends a parser to accept `none`.
fn optional<T>(
    parse: impl Fn(&str) -> Result<T, Option<String>>,
) -> impl Fn(&str) -> Result<Option<T>, Option<String>> {
    move |text| {
        if text.eq_ignore_ascii_case(NONE) { Ok(None) } else { parse(text).map(Some) }
    }
}

fn host(text: &str) -> Result<String, Option<String>> {
    if is_odd_number(text) {
        return Err(Some(
            "write an IPv4 address as four decimal numbers without leading zeros, because systems read other forms differently"
                .to_owned(),
        ));
    }
    let is_plausible = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    // An IPv6 address has at least two colons, so a single one precedes a port.
    let has_port = text.matches(':').count() == 1;
    if text.chars().all(is_plausible) && !has_port { Ok(text.to_owned()) } else { Err(None) }
}

/// Parses a list, which may be empty. The error carries the cause.
fn listed<T>(text: &str) -> Result<T, Option<String>>
where
    T: Default + FromStr<Err: Display>,
{
    if text.eq_ignore_ascii_case(NONE) {
        return Ok(T::default());
    }
    text.parse().map_err(|error: T::Err| Some(error.to_string()))
}

/// Whether a resolver would read `text` as an IPv4 address in hexadecimal, in octal or with fewer than four
/// numbers.
fn is_odd_number(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = match hexadecimal {
        Some(digits) => digits.bytes().all(|c| c.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|c| c.is_ascii_digit()),
    };
    is_number && text.parse::<Ipv4Addr>().is_err()
}

fn deny_file(text: &str) -> Result<DenyFile, Option<String>> {
    DenyFile::find(text.into()).map_err(|error| Some(error.to_string()))
}

fn or_none(list: &impl Display) -> String {
    let text = list.to_string();
    if text.is_empty() { NONE.to_owned() } else { text }
}

#[cfg(test)]
mod tests;
