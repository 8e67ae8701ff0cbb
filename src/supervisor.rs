//! The interface to the service manager, as defined by systemd: socket activation and status notifications.

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

/// Why the handed-over sockets cannot be served.
#[derive(Debug, Error)]
pub enum WrongSocket {
    /// There is more than one socket.
    #[error(
        "{0} sockets were handed over, but the daemon serves only one. Keep one ListenDatagram= in wakeupd.socket (in a drop-in, an empty ListenDatagram= clears the earlier ones)."
    )]
    Several(usize),
    /// The file descriptor is not a UDP socket.
    #[error(
        "the file descriptor that was handed over is not a UDP socket ({0}). In wakeupd.socket, set ListenDatagram= with a port, and no other Listen*= option."
    )]
    NotUdp(io::Error),
}

/// Takes the handed-over socket, if there is one (`LISTEN_FDS`, see `sd_listen_fds(3)`).
///
/// This changes the environment, so call it before starting any thread.
///
/// # Errors
/// If there is more than one socket, or one that is not a UDP socket.
pub fn take_socket() -> Result<Option<UdpSocket>, WrongSocket> {
    match sockets_handed_over() {
        0 => Ok(None),
        1 => ListenFd::from_env().take_udp_socket(0).map_err(WrongSocket::NotUdp),
        several => Err(WrongSocket::Several(several)),
    }
}

/// Returns the number of sockets handed over to this process. If `LISTEN_PID` names another process, the
/// environment is inherited and the sockets belong to that process.
fn sockets_handed_over() -> usize {
    let value = |name| env::var(name).ok();
    if value("LISTEN_PID") != Some(process::id().to_string()) {
        return 0;
    }
    value("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Reports to the service manager, if there is one. Sending never blocks, even if the manager's queue is full.
#[derive(Debug)]
pub struct Supervisor {
    /// Connected to the manager's socket.
    socket: Option<UnixDatagram>,
    is_watching: bool,
    /// The readiness report of [`Self::ready`], until it is delivered.
    undelivered: Option<String>,
}

impl Supervisor {
    /// Connects to the service manager in the environment (`NOTIFY_SOCKET`, `WATCHDOG_USEC`; see
    /// `sd_notify(3)`).
    #[must_use]
    pub fn of_this_process() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            let connected = connect(&address);
            connected.inspect_err(|error| warn!(%error, "cannot reach the service manager at NOTIFY_SOCKET, so the daemon reports neither its start nor its health")).ok()
        });
        let is_meant = |pid: OsString| pid == *process::id().to_string();
        let is_watching = env::var_os("WATCHDOG_USEC").is_some()
            && env::var_os("WATCHDOG_PID").is_none_or(is_meant);
        Self { socket, is_watching, undelivered: None }
    }

    /// Reports that the daemon receives heartbeats. Without this report, the service manager treats the start
    /// as failed, so [`Self::retry`] repeats the report until it is delivered.
    pub fn ready(&mut self, status: &str) {
        self.undelivered = Some(format!("READY=1\nSTATUS={status}"));
        self.retry();
    }

    /// Repeats the readiness report if it could not be delivered.
    pub fn retry(&mut self) {
        self.undelivered = self.undelivered.take().filter(|report| !self.report(report));
    }

    /// Sets the text that `systemctl status` shows. If the manager's queue is full, the text is dropped.
    pub fn status(&self, text: &str) {
        self.report(&format!("STATUS={text}"));
    }

    /// Feeds the watchdog. The service manager kills a process that stops feeding it.
    pub fn alive(&self) {
        if self.is_watching {
            self.report("WATCHDOG=1");
        }
    }

    /// Reports that the daemon is stopping.
    pub fn stopping(&self) {
        self.report("STOPPING=1");
    }

    /// Sends a report. Returns whether it was delivered or there is no manager.
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
