//! Why the daemon fails to start, or ends.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use thiserror::Error;

use super::detection::{detection, remedy as detection_remedy};
use crate::catalogue::{Occurrence, log, machine};
use crate::config::{ConfigError, EXIT_CONFIG, Misspelt};
use crate::machine::Detection;
use crate::memory::TooSmall;
use crate::supervisor::WrongSocket;

/// Why the daemon did not start. Each message includes the remedy.
#[derive(Debug, Error)]
pub enum StartError {
    /// `HOST` is a name that does not resolve to an address.
    #[error("{}", machine::HOST_UNRESOLVED.with(&[("host", .host), ("error", .error)]))]
    Unresolved {
        /// The value of `HOST`.
        host: String,
        /// The error of the resolver.
        error: io::Error,
    },
    /// Another process holds the port.
    #[error("{}", in_use(*.0))]
    InUse(SocketAddr),
    /// Binding the port needs a privilege.
    #[error("{}", privileged(*.0))]
    NotPermitted(SocketAddr),
    /// This machine does not have the address.
    #[error("{}", machine::HOST_UNAVAILABLE.with(&[("ip", &.0.ip()), ("error", &"it is not an address of this machine")]))]
    NotLocal(SocketAddr),
    /// Duplicate address detection failed or timed out.
    #[error("cannot bind {ip}. {remedy}.", ip = .address.ip(), remedy = detection_remedy(*.detection))]
    Detection {
        /// The address to bind.
        address: SocketAddr,
        /// The state of the detection.
        detection: Detection,
    },
    /// The listener's runtime cannot be created.
    #[error("cannot start the listener: {0}")]
    Runtime(io::Error),
    /// The system does not support the address family.
    #[error("this system does not support {}",
        if .0.is_ipv6() { "IPv6. Set HOST to an IPv4 address, such as 0.0.0.0." }
        else { "IPv4. Set HOST to an IPv6 address, such as ::." })]
    NoSuchFamily(SocketAddr),
    /// A memory limit is too small.
    #[error(transparent)]
    Memory(#[from] TooSmall),
    /// The HTTP endpoint cannot be bound.
    #[error("cannot bind TCP {address} for metrics and the status page ({error}). {remedy}, or set HTTP_ADDR=none to run without them.",
        remedy = http_remedy(*address, error))]
    Http {
        /// The value of `HTTP_ADDR`.
        address: SocketAddr,
        /// The error of the failed call.
        error: io::Error,
    },
    /// A thread cannot be started.
    #[error(transparent)]
    Thread(io::Error),
    /// The handed-over socket cannot be used.
    #[error(
        "cannot serve the socket that the service manager handed over: {0}. Correct wakeupd.socket."
    )]
    HandedOver(io::Error),
    /// Any other error while binding.
    #[error("cannot bind UDP {address}: {error}")]
    Bind {
        /// The address to bind.
        address: SocketAddr,
        /// The error of the failed call.
        error: io::Error,
    },
}

/// Why a running daemon ended: one of its tasks failed, and without that task the daemon would run but not
/// serve its clients.
#[derive(Debug, Error)]
pub enum TaskEnded {
    /// The socket is broken and cannot receive any more.
    #[error(
        "the daemon cannot receive any more and exits, because its UDP socket no longer works: {0}"
    )]
    Listener(io::Error),
    /// A worker's socket is broken, so its clients would get no more pings.
    #[error(
        "the daemon cannot send to some clients any more and exits, because a sending socket no longer works: {0}"
    )]
    Worker(io::Error),
    /// The HTTP thread cannot be started.
    #[error("cannot start the HTTP endpoint: {0}")]
    Http(io::Error),
    /// A thread of the daemon cannot be started.
    #[error(transparent)]
    Thread(io::Error),
    /// The thread with this name panicked.
    #[error("the thread {0} panicked, so the daemon exits")]
    Panicked(String),
}

/// Why `--check-config` fails although each value is valid.
#[derive(Debug, Error)]
pub enum CheckError {
    /// An unknown variable resembles a setting.
    #[error("{0}")]
    Misspelt(Misspelt),
    /// The daemon would not start.
    #[error(transparent)]
    Start(StartError),
}

impl CheckError {
    /// The exit code of the check.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        EXIT_CONFIG
    }
}

/// Why the daemon process fails.
#[derive(Debug, Error)]
pub enum Failure {
    /// A setting or the env file is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The service manager handed over a socket of the wrong type.
    #[error(transparent)]
    WrongSocket(#[from] WrongSocket),
    /// The daemon did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The running daemon lost one of its tasks.
    #[error(transparent)]
    Ended(#[from] TaskEnded),
    /// The system refuses to start a thread or the runtime.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Failure {
    /// The exit code of the process: [`EXIT_CONFIG`] if its settings, its unit or its memory limit are wrong,
    /// otherwise 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::WrongSocket(_) | Self::Start(StartError::Memory(_)) => EXIT_CONFIG,
            _ => 1,
        }
    }
}

/// Names a UDP port in a message, such as "UDP port 7561 of 0.0.0.0". The doctor uses the same wording.
fn name(address: SocketAddr) -> String {
    format!("UDP port {} of {}", address.port(), address.ip())
}

fn in_use(address: SocketAddr) -> Occurrence {
    log::PORT_IN_USE.with(&[
        ("port", &name(address)),
        ("holders", &"another process"),
        ("number", &address.port()),
        ("variable", &"PORT"),
    ])
}

fn privileged(address: SocketAddr) -> Occurrence {
    let error = io::Error::from(Errno::EACCES);
    machine::PORT_PRIVILEGED.with(&[
        ("port", &name(address)),
        ("error", &error),
        ("variable", &"PORT"),
    ])
}

fn http_remedy(address: SocketAddr, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => format!(
            "Find the process with `sudo ss -ltnp 'sport = :{}'` and stop it, set another HTTP_ADDR",
            address.port()
        ),
        Some(Errno::EACCES) => {
            "A port below 1024 needs CAP_NET_BIND_SERVICE. Set HTTP_ADDR to port 1024 or above"
                .to_owned()
        }
        Some(Errno::EADDRNOTAVAIL) => detection(address.ip()).map_or_else(
            || {
                format!(
                    "{} is not an address of this machine. Set HTTP_ADDR to an address that `ip address` shows",
                    address.ip()
                )
            },
            |detection| detection_remedy(detection).to_owned(),
        ),
        _ => "Set another HTTP_ADDR".to_owned(),
    }
}

/// The error of a UDP socket that cannot be bound to `address`.
pub(super) fn bind_error(address: SocketAddr, error: io::Error) -> StartError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => StartError::InUse(address),
        Some(Errno::EACCES) if address.port() < 1024 => StartError::NotPermitted(address),
        Some(Errno::EADDRNOTAVAIL) => match detection(address.ip()) {
            Some(detection) => StartError::Detection { address, detection },
            None => StartError::NotLocal(address),
        },
        Some(Errno::EAFNOSUPPORT) => StartError::NoSuchFamily(address),
        _ => StartError::Bind { address, error },
    }
}
