//! SIGTERM and SIGINT stop the daemon, and a second one ends it at once. SIGHUP makes it read its files
//! again. The signals that other daemons use as commands do nothing.
//!
//! The main thread blocks them before any other thread exists, and one thread waits for them. So they work
//! from the first moment, however long the start takes, and also for PID 1 of a container, to which the
//! kernel delivers no signal that is neither blocked nor caught.

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

/// Their default action stays: faults, aborts with a core dump, and Ctrl+Z at a terminal.
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

/// A shell passes the SIGHUP of a closing terminal on, and ends only after that. So the terminal may still
/// be there when the signal arrives.
const HANGUP_GRACE: Duration = Duration::from_millis(200);

/// Blocks all signals that the daemon handles or ignores. Threads that are started later inherit this.
///
/// Nothing ever takes the ignored ones, such as SIGUSR1, so they stay pending. With SIGXFSZ blocked, a
/// snapshot beyond a limit on file sizes fails with an error, and with SIGTTOU blocked, a log line does not
/// stop a background job.
///
/// # Panics
/// If the kernel refuses, which it never does for a valid mask.
#[must_use]
pub fn block() -> Blocked {
    let mut blocked = SigSet::all();
    let mut awaited = SigSet::empty();
    for signal in LEFT_ALONE {
        blocked.remove(signal);
    }
    awaited.extend([Signal::SIGTERM, Signal::SIGINT]);
    if Machine::new("/").ignores_signal("proc/self", Signal::SIGHUP as u32) {
        // `nohup` did that.
        blocked.remove(Signal::SIGHUP);
    } else {
        awaited.add(Signal::SIGHUP);
    }
    blocked.thread_block().expect("a thread may block signals");
    Blocked { awaited }
}

/// Proves that the signals are blocked.
#[derive(Debug)]
pub struct Blocked {
    awaited: SigSet,
}

impl Blocked {
    /// Handles the signals from now on. Until [`Signals::hand_over`] the first one that asks for a stop ends
    /// the process.
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

/// What to do about a signal that asks for a stop.
#[derive(Debug)]
enum Phase {
    /// There is nothing to clean up.
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
    /// From now on the daemon stops by itself. Returns the first request to stop, and the requests to reload,
    /// also one that came during the start.
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
    /// Whether the process had a controlling terminal when it started.
    has_terminal: bool,
    phase: Arc<Mutex<Phase>>,
    reload: mpsc::Sender<()>,
}

impl Watcher {
    fn run(&self) {
        loop {
            match self.awaited.wait() {
                Ok(Signal::SIGHUP) if self.has_lost_its_terminal() => self.hang_up(),
                // One request that waits is enough.
                Ok(Signal::SIGHUP) => drop(self.reload.try_send(())),
                Ok(signal) => self.stop(signal),
                // A debugger interrupted the call.
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

    /// A shell and the kernel may both send SIGHUP, so a second one does not end the process at once.
    fn hang_up(&self) {
        let is_stopping =
            matches!(*self.phase.lock().unwrap_or_else(PoisonError::into_inner), Phase::Stopping);
        if !is_stopping {
            self.stop(Signal::SIGHUP);
        }
    }

    fn stop(&self, signal: Signal) {
        // It stays locked until the process ends, if it does.
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *phase, Phase::Stopping) {
            Phase::Starting => {
                info!(signal = signal.as_str(), "stopping before the start is complete");
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

/// Makes the kernel kill this process when the thread that started it ends, or at once if `parent`
/// is not that process any more.
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
