//! The service manager that started this process, in the way of systemd: the socket that it hands over,
//! and what it wants to be told.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::UdpSocket;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use listenfd::ListenFd;
use thiserror::Error;
use tracing::warn;

/// How long it may take to tell something.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What was handed over cannot be served.
#[derive(Debug, Error)]
pub enum WrongSocket {
    /// There are more than one.
    #[error(
        "{0} sockets were handed over, but one is served: leave wakeupd.socket one ListenDatagram= (in a drop-in an empty one clears those before it)"
    )]
    Several(usize),
    /// It is something else.
    #[error(
        "what was handed over is no UDP socket ({0}): give wakeupd.socket a ListenDatagram= with a port, and no other Listen...="
    )]
    NotUdp(io::Error),
}

/// Takes the socket that was handed over, if one was (`LISTEN_FDS`, see `sd_listen_fds(3)`).
///
/// It changes the environment, so it must be called before any thread is started.
///
/// # Errors
/// Where that is anything but one UDP socket.
pub fn take_socket() -> Result<Option<UdpSocket>, WrongSocket> {
    match sockets_handed_over() {
        0 => Ok(None),
        1 => ListenFd::from_env().take_udp_socket(0).map_err(WrongSocket::NotUdp),
        several => Err(WrongSocket::Several(several)),
    }
}

/// How many sockets this process is to take over. Those of an environment that it inherited from another
/// process, which `LISTEN_PID` does not name, are not for it.
fn sockets_handed_over() -> usize {
    let value = |name| env::var(name).ok();
    if value("LISTEN_PID") != Some(process::id().to_string()) {
        return 0;
    }
    value("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Tells the service manager how things are, if it wants to know.
#[derive(Debug)]
pub struct Supervisor {
    /// Connected to where it listens.
    socket: Option<UnixDatagram>,
    is_watching: bool,
}

impl Supervisor {
    /// The service manager that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`; see
    /// `sd_notify(3)`).
    #[must_use]
    pub fn of_this_process() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            let connected = connect(&address);
            connected.inspect_err(|error| warn!(%error, "cannot reach the service manager")).ok()
        });
        let is_meant = |pid: OsString| pid == *process::id().to_string();
        let is_watching = env::var_os("WATCHDOG_USEC").is_some()
            && env::var_os("WATCHDOG_PID").is_none_or(is_meant);
        Self { socket, is_watching }
    }

    /// Heartbeats are taken from now on.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// What there is to know, for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={text}"));
    }

    /// All is well. Whoever watches ends a process that does not say so for a while.
    pub fn alive(&self) {
        if self.is_watching {
            self.tell("WATCHDOG=1");
        }
    }

    /// The end is near.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // It is no reason to end that nobody listens.
            let _ = socket.send(state.as_bytes());
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(LONGEST_WAIT))?;
    Ok(socket)
}
