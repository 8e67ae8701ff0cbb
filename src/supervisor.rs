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

use listenfd::ListenFd;
use thiserror::Error;
use tracing::warn;

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

/// Reports to the service manager, if there is one. No report ever waits: the manager's queue may be full.
#[derive(Debug)]
pub struct Supervisor {
    /// Connected to where it listens.
    socket: Option<UnixDatagram>,
    is_watching: bool,
    /// What [`Self::ready`] could not deliver yet.
    undelivered: Option<String>,
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
        Self { socket, is_watching, undelivered: None }
    }

    /// Reports that heartbeats are received from now on. Without this report a start counts as failed, so
    /// [`Self::retry`] repeats it until it is delivered.
    pub fn ready(&mut self, status: &str) {
        self.undelivered = Some(format!("READY=1\nSTATUS={status}"));
        self.retry();
    }

    /// Repeats the report that could not be delivered, if there is one.
    pub fn retry(&mut self) {
        self.undelivered = self.undelivered.take().filter(|report| !self.report(report));
    }

    /// Sets the text that `systemctl status` shows. It is dropped if the manager's queue is full.
    pub fn status(&self, text: &str) {
        self.report(&format!("STATUS={text}"));
    }

    /// Feeds the watchdog. The manager ends a process that does not do so for a while.
    pub fn alive(&self) {
        if self.is_watching {
            self.report("WATCHDOG=1");
        }
    }

    /// Reports that the daemon stops.
    pub fn stopping(&self) {
        self.report("STOPPING=1");
    }

    /// Whether the report needs no repetition.
    fn report(&self, text: &str) -> bool {
        self.socket.as_ref().is_none_or(|socket| socket.send(text.as_bytes()).is_ok())
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
    socket.set_nonblocking(true)?;
    Ok(socket)
}
