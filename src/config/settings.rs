//! The table of settings. To add one, add it here and use its field of [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tracing::info;

use super::setting::{Group, Secrecy, Setting, Values};
use super::value::{Reader, Value};
use super::{DenyFile, HostName, Hosts, LogFormat, LogLevel, Token};
use crate::engine::guard::{Mode, Nat64Prefixes, Networks};
use crate::engine::registry::SHARDS;

/// The upper bound of a cap on clients. It exceeds the memory of any machine.
const MOST_CLIENTS: u64 = 100_000_000;

const fn number(unit: &'static str, least: u64, most: u64) -> Values {
    Values::Number { unit, least, most }
}

/// Defines [`Config`] with a field for each setting, a constant [`Setting`] for each, and [`SETTINGS`]. A field is
/// named after its variable, and its type determines how the value is parsed and printed (see [`Value`]).
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $NAME:ident = $default:literal, $values:expr => $field:ident: $type:ty, $group:ident, $secrecy:ident;
    )+) => {
        $(
            pub(super) const $NAME: Setting = Setting {
                name: stringify!($NAME),
                about: concat!($($about),+).trim_ascii(),
                default: $default,
                values: $values,
                group: Group::$group,
                secrecy: Secrecy::$secrecy,
            };
        )+

        /// All settings of the daemon, in display order.
        pub static SETTINGS: [&Setting; [$(stringify!($NAME)),+].len()] = [$(&$NAME),+];

        /// The daemon's settings, all validated.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $about])+ pub $field: $type,)+
        }

        /// The values of the variables, trimmed and unquoted; `None` if unset or empty.
        #[derive(Debug, Deserialize)]
        pub(super) struct Texts {
            $($field: Option<String>,)+
        }

        impl Config {
            /// Parses the texts. `reader` collects the invalid values.
            pub(super) fn parse(texts: Texts, reader: &mut Reader) -> Self {
                Self { $($field: reader.read(&$NAME, texts.$field),)+ }
            }

            /// Each setting with its effective value, in display order.
            #[must_use]
            pub fn values(&self) -> [(&'static Setting, String); SETTINGS.len()] {
                [$((&$NAME, self.$field.show())),+]
            }

            /// Logs all settings as fields.
            pub fn log(&self) {
                info!(version = env!("CARGO_PKG_VERSION"), $($field = self.$field.log(),)+ "starting");
            }
        }
    };
}

settings! {
    /// Local address or name to bind; `::` serves IPv6 and IPv4
    HOST = "0.0.0.0", Values::Text("an IP address of this machine or a name that resolves to one, without brackets or port")
        => host: HostName, Basics, Operator;
    /// Local UDP port; with `0` the system chooses one
    PORT = "7561", number("", 0, 65_535)
        => port: u16, Basics, Public;
    /// Seconds that a client gets pings after its last heartbeat, up to a day
    CLIENT_EXPIRATION_SECONDS = "120", number("seconds", 1, 86_400)
        => client_expiration_seconds: Duration, Basics, Public;
    /// Largest number of worker threads that share the clients, from 1 to 256; one suffices for 16,384 clients
    WORKER_POOL_SIZE = "10", number("workers", 1, SHARDS as u64)
        => worker_pool_size: usize, Basics, Public;

    /// Cap on simultaneous clients
    MAX_CLIENTS = "200000", number("clients", 1, MOST_CLIENTS)
        => max_clients: u32, Guard, Public;
    /// Cap on simultaneous clients per IPv4 address or IPv6 /64
    MAX_CLIENTS_PER_ADDRESS = "1024", number("clients", 1, MOST_CLIENTS)
        => max_clients_per_address: u32, Guard, Public;
    /// Cap on simultaneous clients per IPv4 /24 or IPv6 /56
    MAX_CLIENTS_PER_PREFIX = "4096", number("clients", 1, MOST_CLIENTS)
        => max_clients_per_prefix: u32, Guard, Public;
    /// Rate limit for ICMP errors, up to 10000. Above it the daemon ignores ICMP errors for a minute, so it mutes
    /// no clients with a closed port. Raise it if many of your own clients stop at once
    MAX_ICMP_ERRORS_PER_SECOND = "500", number("ICMP errors a second", 1, 10_000)
        => max_icmp_errors_per_second: u32, Guard, Public;
    /// Networks exempt from the caps per address and per prefix, because many clients may share one gateway
    /// address there
    LOCAL_NETS = "10.0.0.0/8,127.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1/128,fc00::/7,fe80::/10",
        Values::Text("networks with commas between them, or none")
        => local_nets: Networks, Guard, Operator;
    /// IPv6 prefixes of your NAT64 or SIIT translators, up to 16 of 32, 40, 48, 56, 64 or 96 bits, in addition to
    /// `64:ff9b::/96` and the /96s `64:ff9b:1:X::/96`. Clients behind a translator count under their IPv4
    /// addresses
    NAT64_PREFIXES = "none",
        Values::Text("up to 16 IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits with commas between them, or none")
        => nat64_prefixes: Nat64Prefixes, Guard, Operator;
    /// Comma-separated networks from which the daemon registers no client
    REFUSE_NETS = "none", Values::Text("networks with commas between them, or none")
        => refuse_nets: Networks, Guard, Operator;
    /// File of further networks to refuse, one per line, with `#` before comments. SIGHUP reloads it
    DENY_FILE = "none", Values::Text("the path of a file with a network on each line, or none")
        => deny_file: Option<DenyFile>, Guard, Operator;
    /// Mode of the guard: `enforce` refuses heartbeats that break a rule; `observe` only counts and logs them, but
    /// still refuses sources to which no ping can be sent
    GUARD_MODE = "enforce", Values::Text("enforce or observe")
        => guard_mode: Mode, Guard, Public;

    /// File that stores the clients across a restart. With `none` a restart forgets them
    SNAPSHOT_PATH = "none", Values::Text("the path of a file, which need not exist yet, or none")
        => snapshot_path: Option<PathBuf>, Restart, Operator;
    /// Seconds between snapshots; a crash loses at most this much
    SNAPSHOT_INTERVAL_SECONDS = "5", number("seconds", 1, 3_600)
        => snapshot_interval_seconds: Duration, Restart, Public;

    /// Local address and TCP port for metrics, health and the status page. `none` or an empty value disables the
    /// endpoint
    HTTP_ADDR = "127.0.0.1:7561",
        Values::Text("an IP address of this machine and a TCP port, like 127.0.0.1:7561 or [::1]:7561, or none")
        => http_addr: Option<SocketAddr>, Http, Operator;
    /// Host names that a browser may use for the status page, besides `localhost` and IP addresses
    HTTP_HOSTS = "none", Values::Text("host names with commas between them, without ports, or none")
        => http_hosts: Hosts, Http, Operator;
    /// Secret of at least 16 characters. If `HTTP_ADDR` is not a loopback address, a request for client addresses
    /// must present it
    ADMIN_TOKEN = "none", Values::Text("at least 16 printable ASCII characters without spaces, or none")
        => admin_token: Option<Token>, Http, Secret;

    /// Minimum severity to log: `DEBUG` (each registration and removal), `INFO`, `WARNING`, `ERROR`, `CRITICAL`,
    /// or `NOTSET` (each datagram). Python's numeric levels work too
    LOG_LEVEL = "INFO",
        Values::Text("one of DEBUG, INFO, WARNING (WARN), ERROR, CRITICAL (FATAL), NOTSET, or 10, 20, 30, 40, 50, 0")
        => log_level: LogLevel, Logging, Public;
    /// Format of log lines: `text` or `json`
    LOG_FORMAT = "text", Values::Text("text or json")
        => log_format: LogFormat, Logging, Public;
}

/// Names the env file. It is not a setting of the daemon, so an env file cannot contain it.
pub const ENV_FILE: Setting = Setting {
    name: "ENV_FILE",
    about: "File of further variables; `none` reads no file. By default `.env` in the working directory, if it exists and no service manager started the program",
    default: ".env",
    values: Values::Text("the path of a file with NAME=value lines, or none"),
    group: Group::Logging,
    secrecy: Secrecy::Operator,
};
