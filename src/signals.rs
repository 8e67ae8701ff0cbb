//! SIGTERM and SIGINT: the first asks the process to stop, the second ends it. SIGHUP: it is to read
//! again what it read.

use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

/// Catches the signals from now on, also as the first process of a container, for which the kernel
/// drops uncaught ones. What is returned is ready at the first signal.
///
/// # Errors
/// Where the system refuses to register a handler.
pub fn stop() -> io::Result<oneshot::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = interrupt.recv() => ("SIGINT", 2),
            }
        };
        let (name, _) = next().await;
        info!(signal = name, "stopping");
        let _ = stop.send(());
        let (_, number) = next().await;
        process::exit(128 + number);
    });
    Ok(stopped)
}

/// Catches SIGHUP from now on.
///
/// # Errors
/// Where the system refuses to register a handler.
pub fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Makes the kernel kill this process when the thread that started it ends, or at once if `parent`
/// is not that process any more.
#[cfg(target_os = "linux")]
pub fn end_with(parent: i32) {
    use nix::sys::prctl::set_pdeathsig;
    use nix::sys::signal::{Signal, raise};
    use nix::unistd::getppid;

    let asked = set_pdeathsig(Signal::SIGKILL);
    if asked.is_err() || getppid().as_raw() != parent {
        let _ = raise(Signal::SIGKILL);
    }
}
