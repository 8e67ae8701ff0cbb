//! SIGTERM and SIGINT stop the daemon, and a second one ends it at once. SIGHUP makes it reload `DENY_FILE`
//! (`Daemon::serve`).
//! Signals that other daemons use as commands are ignored.
//!
//! The main thread blocks the signals before any other thread starts, and one thread waits for them. So they
//! take effect from the first moment, however long the start takes. They also work for PID 1 of a container, to
//! which the kernel delivers no signal that is neither blocked nor caught.

use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use crate::logging;
use crate::machine::Machine;
use crate::threads;

/// Signals that keep their default action: faults, aborts with a core dump, and Ctrl+Z at a terminal.
const LEFT_ALONE: [Signal; 11] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGQUIT,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGXCPU,
];

/// How long to wait for the terminal to disappear after SIGHUP. A shell forwards the SIGHUP of a closing
/// terminal before it exits, so the terminal may still exist when the signal arrives.
const HANGUP_GRACE: Duration = Duration::from_millis(200);

/// Blocks all signals that the daemon handles or ignores. Threads started later inherit the mask.
///
/// Ignored signals, such as SIGUSR1, stay pending forever. Blocking SIGXFSZ turns a snapshot beyond the file
/// size limit into a write error, and blocking SIGTTOU lets a background job write to the terminal.
///
/// # Panics
/// If the kernel rejects the mask, which never happens for a valid one.
#[must_use]
pub fn block() -> Blocked {
    let mut blocked = SigSet::all();
    let mut awaited = SigSet::empty();
    for signal in LEFT_ALONE {
        blocked.remove(signal);
    }
    awaited.extend([Signal::SIGTERM, Signal::SIGINT]);
    if Machine::new("/").ignores_signal("proc/self", Signal::SIGHUP as u32) {
        // The process runs under `nohup` or the like.
        blocked.remove(Signal::SIGHUP);
    } else {
        awaited.add(Signal::SIGHUP);
    }
    blocked.thread_block().expect("a thread can block signals");
    Blocked { awaited }
}

/// Proof that the signals are blocked.
#[derive(Debug)]
pub struct Blocked {
    awaited: SigSet,
}

impl Blocked {
    /// Starts handling the signals. Until [`Signals::hand_over`], the first stop signal ends the process.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn watch(self) -> io::Result<Signals> {
        let phase = Arc::new(Mutex::new(Phase::Starting));
        let (reload, reloads) = mpsc::channel(1);
        let watcher = Watcher {
            awaited: self.awaited,
            has_terminal: has_terminal(),
            phase: phase.clone(),
            reload,
        };
        threads::start("signals", move || watcher.run())?;
        Ok(Signals { phase, reloads })
    }
}

/// The state of the daemon, which determines the effect of a stop signal.
#[derive(Debug)]
enum Phase {
    /// The daemon has nothing to clean up yet, so a stop signal makes the process exit at once.
    Starting,
    Serving(oneshot::Sender<()>),
    Stopping,
}

/// The signals of a daemon that is starting.
#[derive(Debug)]
pub struct Signals {
    phase: Arc<Mutex<Phase>>,
    reloads: mpsc::Receiver<()>,
}

impl Signals {
    /// Switches to a graceful stop. Returns receivers for the first stop request and for reload requests,
    /// including one that arrived during the start.
    #[must_use]
    pub fn hand_over(self) -> (oneshot::Receiver<()>, mpsc::Receiver<()>) {
        let (stop, stopped) = oneshot::channel();
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Serving(stop);
        (stopped, self.reloads)
    }
}

#[derive(Debug)]
struct Watcher {
    awaited: SigSet,
    /// Whether the process had a controlling terminal at startup.
    has_terminal: bool,
    phase: Arc<Mutex<Phase>>,
    reload: mpsc::Sender<()>,
}

impl Watcher {
    fn run(&self) {
        loop {
            match self.awaited.wait() {
                Ok(Signal::SIGHUP) if self.has_lost_its_terminal() => self.hang_up(),
                // `Daemon::serve` has `DENY_FILE` read again. One pending request is enough.
                Ok(Signal::SIGHUP) => drop(self.reload.try_send(())),
                Ok(signal) => self.stop(signal),
                // Interrupted by a debugger.
                Err(_) => {}
            }
        }
    }

    fn has_lost_its_terminal(&self) -> bool {
        if !self.has_terminal {
            return false;
        }
        thread::sleep(HANGUP_GRACE);
        !has_terminal()
    }

    /// Stops after the terminal has closed. Both a shell and the kernel can send SIGHUP then, so a second
    /// SIGHUP does not end the process at once.
    fn hang_up(&self) {
        let is_stopping =
            matches!(*self.phase.lock().unwrap_or_else(PoisonError::into_inner), Phase::Stopping);
        if !is_stopping {
            self.stop(Signal::SIGHUP);
        }
    }

    fn stop(&self, signal: Signal) {
        // The lock is held until this function returns or the process exits.
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *phase, Phase::Stopping) {
            Phase::Starting => {
                info!(signal = signal.as_str(), "stopping during startup");
                logging::finish(false);
                process::exit(0);
            }
            Phase::Serving(stop) => {
                info!(signal = signal.as_str(), "stopping");
                let _ = stop.send(());
            }
            Phase::Stopping => process::exit(128 + signal as i32),
        }
    }
}

fn has_terminal() -> bool {
    Machine::new("/").has_terminal("proc/self")
}

/// Makes the kernel kill this process when the parent thread exits, or at once if `parent` is no longer the
/// parent process.
#[cfg(target_os = "linux")]
pub fn end_with(parent: i32) {
    use nix::sys::prctl::set_pdeathsig;
    use nix::sys::signal::raise;
    use nix::unistd::getppid;

    let asked = set_pdeathsig(Signal::SIGKILL);
    if asked.is_err() || getppid().as_raw() != parent {
        let _ = raise(Signal::SIGKILL);
    }
}
