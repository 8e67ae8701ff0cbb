//! From the environment to a [`Config`]: every mistake is told at once, each by its variable's name.

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

/// What a cap may be. Beyond that no machine has the memory.
const CAPS: RangeInclusive<u32> = 1..=100_000_000;

/// In the place of networks or of a path: not one.
const NONE: &str = "none";

/// In the place of a secret. No token is as short.
const HIDDEN: &str = "(hidden)";

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
    /// `GUARD_MODE`, `REFUSE_NETS`, `LOCAL_NETS`, `NAT64_PREFIXES`, `MAX_CLIENTS` and its like.
    pub guard: Rules,
    /// `MAX_ICMP_ERRORS_PER_SECOND`.
    pub max_icmp_errors: u32,
    /// `DENY_FILE` and what it held.
    pub deny_file: Option<DenyFile>,
    /// `SNAPSHOT_PATH`.
    pub snapshot_path: Option<PathBuf>,
    /// `SNAPSHOT_INTERVAL_SECONDS`.
    pub snapshot_interval: Duration,
    /// `HTTP_ADDR`; none where there is to be no endpoint.
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

/// A variable with a value it must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    name: &'static str,
    value: String,
    allowed: &'static str,
    default: &'static str,
    /// What exactly is wrong, where that is not plain to see.
    detail: Option<String>,
}

/// Every variable that is wrong.
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

/// The variables' texts, trimmed and without quotes; `None` where unset or empty.
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
                // Two may have the same name.
                if !misspelt.iter().any(|known: &Misspelt| known.name == name) {
                    misspelt.extend(Misspelt::find(name));
                }
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    let value = unquoted(&value);
                    // Empty is the default, except where it is a way to turn something off.
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

    /// Whether `HOST` and `PORT` ask for no other address than this. Their defaults ask for none.
    #[must_use]
    pub fn agrees_with(&self, address: SocketAddr) -> bool {
        let is_host = self.host == HOST.default || self.host.parse() == Ok(address.ip());
        let is_port =
            self.port == 0 || self.port == address.port() || self.port.to_string() == PORT.default;
        is_host && is_port
    }

    /// Each variable's name with its effective value.
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

/// The settings in the form of an `.env` file.
impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values();
        values.iter().try_for_each(|(name, value)| writeln!(f, "{name}={}", quoted(value)))
    }
}

/// A value as an `.env` file holds it.
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

/// The end of `--help`: every variable with its default.
#[must_use]
pub fn help() -> String {
    let all = VARIABLES.into_iter().chain([&ENV_FILE]);
    let entries = all.map(|Variable { name, default, about, .. }| {
        // A line is broken at spaces, and a list may have them.
        let default = default.replace(',', ", ");
        format!("  {name}\n      {about} [default: {default}]\n")
    });
    format!("Environment variables of the daemon:\n{}", entries.collect::<String>())
}

impl Variable {
    fn mistake(&self, value: impl Display, detail: Option<String>) -> Mistake {
        let Self { name, default, allowed, .. } = *self;
        // Quoted, and with nothing in it that could move the cursor of a terminal.
        let value = if name == ADMIN_TOKEN.name { HIDDEN.to_owned() } else { value.to_string() };
        let value = format!("\"{}\"", value.escape_debug());
        Mistake { name, value, allowed, default, detail }
    }
}

struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// The value of a variable, or that of its default if it is wrong.
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

/// The path that the value of a variable names, unless it is none.
pub(crate) fn named_path(value: &str) -> Option<PathBuf> {
    let value = unquoted(value);
    (!value.is_empty() && !value.eq_ignore_ascii_case(NONE)).then(|| value.into())
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

fn plain<T: FromStr>(text: &str) -> Result<T, Option<String>> {
    text.parse().map_err(|_| None)
}

/// Reads what may be none.
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
    // An IPv6 address has two colons at least, so a single one is that of a port.
    let has_port = text.matches(':').count() == 1;
    if text.chars().all(is_plausible) && !has_port { Ok(text.to_owned()) } else { Err(None) }
}

/// Reads a list, which may be empty, with the reason for an error.
fn listed<T>(text: &str) -> Result<T, Option<String>>
where
    T: Default + FromStr<Err: Display>,
{
    if text.eq_ignore_ascii_case(NONE) {
        return Ok(T::default());
    }
    text.parse().map_err(|error: T::Err| Some(error.to_string()))
}

/// Whether a resolver would take `text` for an IPv4 address in hexadecimal, octal or with fewer numbers.
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
mod tests {
    use super::*;
    use crate::engine::guard::{Mode, Nat64Prefixes, Networks};
    use wakeupd_protocol::DEFAULT_PORT;

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
            guard: Rules {
                mode: Mode::Enforce,
                refuse_nets: Networks::default(),
                local_nets: LOCAL_NETS.default.parse().unwrap(),
                nat64_prefixes: Nat64Prefixes::default(),
                caps: Caps { clients: 200_000, per_address: 1_024, per_prefix: 4_096 },
            },
            max_icmp_errors: 500,
            deny_file: None,
            snapshot_path: None,
            snapshot_interval: Duration::from_secs(5),
            http_address: Some(([127, 0, 0, 1], DEFAULT_PORT).into()),
            http_hosts: Hosts::default(),
            admin_token: None,
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
    fn networks_are_read_as_they_are_compared() {
        let networks = "::ffff:203.0.113.0/120,2001:db8::/32";
        let config = config(&[
            ("LOCAL_NETS", networks),
            ("REFUSE_NETS", networks),
            ("NAT64_PREFIXES", "2001:db8:64::/96,2001:db8::/32"),
        ]);
        let plain = "203.0.113.0/24,2001:db8::/32".parse().unwrap();
        assert_eq!((&config.guard.local_nets, &config.guard.refuse_nets), (&plain, &plain));
        let shown = config.to_string();
        assert!(shown.contains("\nNAT64_PREFIXES=2001:db8:64::/96,2001:db8::/32\n"), "{shown}");
        for (name, value, reason) in [
            ("LOCAL_NETS", "010.0.0.0/8", "leading zero"),
            ("REFUSE_NETS", "::ffff:0:0/90", "0.0.0.0/0 for all of IPv4"),
            ("NAT64_PREFIXES", "2001:db8::/33", "32, 40, 48, 56, 64 or 96"),
        ] {
            let mistakes = read(&[(name, value)]).unwrap_err().to_string();
            assert!(mistakes.contains(name) && mistakes.contains(reason), "{mistakes}");
        }
    }

    #[test]
    fn an_empty_http_address_is_none() {
        for text in ["", " ", "\"\"", "none", "NONE"] {
            assert_eq!(config(&[("HTTP_ADDR", text)]).http_address, None, "{text:?}");
        }
        for (text, address) in [
            ("[::1]:80", "[::1]:80"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ] {
            assert_eq!(config(&[("HTTP_ADDR", text)]).http_address, address.parse().ok(), "{text}");
        }
        for text in ["7561", "localhost:7561", "127.0.0.1", "::1:80", "127.0.0.01:80"] {
            assert!(read(&[("HTTP_ADDR", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_snapshot_has_the_path_of_a_file() {
        assert_eq!(config(&[("SNAPSHOT_PATH", "NONE")]).snapshot_path, None);
        let path = "/nowhere/as yet";
        assert_eq!(config(&[("SNAPSHOT_PATH", path)]).snapshot_path, Some(path.into()));
        for path in ["/", "/dev/null", "''a''", "a\tb"] {
            assert!(read(&[("SNAPSHOT_PATH", path)]).is_err(), "{path}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let config = config(&[("ADMIN_TOKEN", "correct-horse-battery")]);
        let mistakes = read(&[("ADMIN_TOKEN", "too-short")]).unwrap_err();
        for shown in [config.to_string(), format!("{config:?}"), mistakes.to_string()] {
            assert!(!shown.contains("horse") && !shown.contains("too-short"), "{shown}");
        }
        assert!(config.to_string().contains("ADMIN_TOKEN=(hidden)"));
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
        for host in ["010.0.0.1", "127.0.0.01", "127.1", "2130706433", "0x7f.0.0.1", "0x7F000001"] {
            let mistakes = read(&[("HOST", host)]).unwrap_err().to_string();
            assert!(mistakes.contains("four decimal numbers"), "{mistakes}");
        }
    }

    #[test]
    fn a_mistake_cannot_write_to_the_terminal() {
        let mistakes = read(&[("PORT", "\u{1b}[2J\n")]).unwrap_err().to_string();
        assert!(mistakes.contains(r#"PORT="\u{1b}[2J""#), "{mistakes}");
    }
}
