//! Whether every task still turns its loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Time;

/// How long a task may go without a tick. Each ticks twice a second or more, however little there is
/// to do.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// When each task ticked last, and whether the daemon serves.
#[derive(Debug)]
pub struct Watchdog {
    /// Of the listener.
    pub listener: Beat,
    /// Of each worker.
    pub workers: Vec<Beat>,
    /// Of the monitor.
    pub monitor: Beat,
    is_ready: AtomicBool,
}

/// When a task ticked last.
#[derive(Debug)]
pub struct Beat(AtomicU64);

impl Beat {
    /// Says that the task is there.
    pub fn tick(&self, now: Time) {
        self.0.store(now.as_nanos(), Relaxed);
    }

    fn is_stuck(&self, now: Time) -> bool {
        now.since(Time::from_nanos(self.0.load(Relaxed))) > TIMEOUT
    }
}

impl Watchdog {
    /// For a listener, so many workers and a sampler, all of which tick `now`.
    #[must_use]
    pub fn new(workers: usize, now: Time) -> Self {
        let beat = || Beat(now.as_nanos().into());
        Self {
            listener: beat(),
            workers: (0..workers).map(|_| beat()).collect(),
            monitor: beat(),
            is_ready: AtomicBool::new(false),
        }
    }

    /// Says whether heartbeats are received and the daemon is not stopping.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Relaxed);
    }

    /// Whether heartbeats are received and the daemon is not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// The tasks that have not ticked for longer than [`TIMEOUT`], by name. After a stop of the process
    /// that may be all of them for a moment, so it takes two looks, a second apart, to be sure.
    #[must_use]
    pub fn stuck(&self, now: Time) -> Vec<String> {
        let workers = self.workers.iter().enumerate();
        let listener = self.listener.is_stuck(now).then(|| "listener".to_owned());
        let stuck = workers.filter(|(_, beat)| beat.is_stuck(now));
        let monitor = self.monitor.is_stuck(now).then(|| "monitor".to_owned());
        let stuck = stuck.map(|(number, _)| format!("worker {number}"));
        listener.into_iter().chain(stuck).chain(monitor).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_ticked_for_three_seconds_is_stuck() {
        let start = Time::from_nanos(1 << 40);
        let watchdog = Watchdog::new(3, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(watchdog.stuck(at(3)).is_empty());
        watchdog.workers[1].tick(at(3));
        assert_eq!(watchdog.stuck(at(4)), ["listener", "worker 0", "worker 2", "monitor"]);
        watchdog.listener.tick(at(4));
        watchdog.monitor.tick(at(4));
        assert_eq!(watchdog.stuck(at(7)), ["worker 0", "worker 1", "worker 2"]);
        assert!(watchdog.stuck(start).is_empty());
    }
}
