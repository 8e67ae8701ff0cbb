//! The definitions of all environment variables.

/// An environment variable of the daemon.
#[derive(Debug)]
pub struct Variable {
    /// The name, in upper case.
    pub name: &'static str,
    /// The value if the variable is unset or empty.
    pub default: &'static str,
    /// The valid values, completing the sentence "It must be ...".
    pub allowed: &'static str,
    /// The description in `--help` and the manual page.
    pub about: &'static str,
}

pub(super) const HOST: Variable = Variable {
    name: "HOST",
    default: "0.0.0.0",
    allowed: "an IP address of this machine or a name that resolves to one, without brackets or port",
    about: "Local address or name to bind; :: is IPv6 and IPv4",
};
pub(super) const PORT: Variable = Variable {
    name: "PORT",
    default: "7561",
    allowed: "a whole number from 0 to 65535",
    about: "Local UDP port; 0 lets the system choose one",
};
pub(super) const LOG_LEVEL: Variable = Variable {
    name: "LOG_LEVEL",
    default: "INFO",
    allowed: "one of DEBUG, INFO, WARNING (WARN), ERROR, CRITICAL (FATAL), NOTSET, or 10, 20, 30, 40, 50, 0",
    about: "Minimum severity to log; NOTSET logs every datagram",
};
pub(super) const LOG_FORMAT: Variable = Variable {
    name: "LOG_FORMAT",
    default: "text",
    allowed: "text or json",
    about: "Form of a log line: text or json",
};
pub(super) const WORKER_POOL_SIZE: Variable = Variable {
    name: "WORKER_POOL_SIZE",
    default: "10",
    allowed: "a whole number from 1 to 256 (the number of shards)",
    about: "Number of workers that share the clients",
};
pub(super) const CLIENT_EXPIRATION_SECONDS: Variable = Variable {
    name: "CLIENT_EXPIRATION_SECONDS",
    default: "120",
    allowed: "a whole number from 1 to 86400",
    about: "Seconds a client is pinged after its last heartbeat",
};

pub(super) const GUARD_MODE: Variable = Variable {
    name: "GUARD_MODE",
    default: "enforce",
    allowed: "enforce or observe",
    about: "What the guard does: enforce its rules, or observe, which only counts and logs what it would refuse",
};
pub(super) const MAX_CLIENTS: Variable = Variable {
    name: "MAX_CLIENTS",
    default: "200000",
    allowed: "a whole number from 1 to 100000000",
    about: "Most clients at a time",
};
pub(super) const MAX_CLIENTS_PER_ADDRESS: Variable = Variable {
    name: "MAX_CLIENTS_PER_ADDRESS",
    default: "1024",
    allowed: "a whole number from 1 to 100000000",
    about: "Most clients at a time of one IPv4 address or IPv6 /64",
};
pub(super) const MAX_CLIENTS_PER_PREFIX: Variable = Variable {
    name: "MAX_CLIENTS_PER_PREFIX",
    default: "4096",
    allowed: "a whole number from 1 to 100000000",
    about: "Most clients at a time of one IPv4 /24 or IPv6 /56",
};
pub(super) const MAX_ICMP_ERRORS_PER_SECOND: Variable = Variable {
    name: "MAX_ICMP_ERRORS_PER_SECOND",
    default: "500",
    allowed: "a whole number from 1 to 10000",
    about: "ICMP errors a second beyond which clients with a closed port are not muted for a minute",
};
pub(super) const LOCAL_NETS: Variable = Variable {
    name: "LOCAL_NETS",
    default: "10.0.0.0/8,127.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1/128,fc00::/7,fe80::/10",
    allowed: "networks with commas between them, or none",
    about: "Networks to which the caps per address and prefix do not apply, or none",
};
pub(super) const NAT64_PREFIXES: Variable = Variable {
    name: "NAT64_PREFIXES",
    default: "none",
    allowed: "up to 16 IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits with commas between them, or none",
    about: "IPv6 prefixes of translators besides 64:ff9b::/96, behind which clients count by their IPv4 addresses, or none",
};
pub(super) const REFUSE_NETS: Variable = Variable {
    name: "REFUSE_NETS",
    default: "none",
    allowed: "networks with commas between them, or none",
    about: "Networks from which the daemon registers no client, or none",
};
pub(super) const DENY_FILE: Variable = Variable {
    name: "DENY_FILE",
    default: "none",
    allowed: "the path of a file with a network on each line, or none",
    about: "File of more such networks, read again at SIGHUP, or none",
};

pub(super) const SNAPSHOT_PATH: Variable = Variable {
    name: "SNAPSHOT_PATH",
    default: "none",
    allowed: "the path of a file, which need not be there yet, or none",
    about: "File that keeps the clients over a restart, or none",
};
pub(super) const SNAPSHOT_INTERVAL_SECONDS: Variable = Variable {
    name: "SNAPSHOT_INTERVAL_SECONDS",
    default: "5",
    allowed: "a whole number from 1 to 3600",
    about: "Seconds between snapshots; a crash loses at most this much",
};

pub(super) const HTTP_ADDR: Variable = Variable {
    name: "HTTP_ADDR",
    default: "127.0.0.1:7561",
    allowed: "an IP address of this machine and a TCP port, like 127.0.0.1:7561 or [::1]:7561, or none",
    about: "Local address and TCP port of metrics, health and the status page; none (or empty) for neither",
};
pub(super) const HTTP_HOSTS: Variable = Variable {
    name: "HTTP_HOSTS",
    default: "none",
    allowed: "names of hosts with commas between them, without ports, or none",
    about: "Names by which a browser may call the status page, besides localhost and addresses, or none",
};
pub(super) const ADMIN_TOKEN: Variable = Variable {
    name: "ADMIN_TOKEN",
    default: "none",
    allowed: "at least 16 printable ASCII characters without spaces, or none",
    about: "Secret to show for clients' addresses where HTTP_ADDR is not a loopback address, or none",
};

/// All settings of the daemon, in display order.
pub const VARIABLES: [&Variable; 20] = [
    &HOST,
    &PORT,
    &CLIENT_EXPIRATION_SECONDS,
    &WORKER_POOL_SIZE,
    &MAX_CLIENTS,
    &MAX_CLIENTS_PER_ADDRESS,
    &MAX_CLIENTS_PER_PREFIX,
    &MAX_ICMP_ERRORS_PER_SECOND,
    &LOCAL_NETS,
    &NAT64_PREFIXES,
    &REFUSE_NETS,
    &DENY_FILE,
    &GUARD_MODE,
    &SNAPSHOT_PATH,
    &SNAPSHOT_INTERVAL_SECONDS,
    &HTTP_ADDR,
    &HTTP_HOSTS,
    &ADMIN_TOKEN,
    &LOG_LEVEL,
    &LOG_FORMAT,
];
