//! Detects tasks whose loops are stuck.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Time;

/// A task that has not ticked for longer than this is stuck. Each task ticks at least every two seconds, unless it
/// sleeps until a wake-up.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// The last tick of each task, and whether the daemon is ready.
#[derive(Debug)]
pub struct Watchdog {
    /// The listener's last tick.
    pub listener: Beat,
    /// The last tick of each worker.
    pub workers: Vec<Beat>,
    /// The sampler's last tick.
    pub sampler: Beat,
    is_ready: AtomicBool,
}

/// The time of a task's last tick, or of the tick that ends its sleep.
#[derive(Debug)]
pub struct Beat(AtomicU64);

impl Beat {
    /// Records that the task is alive.
    pub fn tick(&self, now: Time) {
        self.0.store(now.as_nanos(), Relaxed);
    }

    /// Records that the task sleeps until `deadline`, unless it is woken.
    pub fn sleep(&self, deadline: Time) {
        self.tick(deadline);
    }

    /// Records that a sleeping task is woken at `now`.
    pub fn wake(&self, now: Time) {
        self.0.fetch_min(now.as_nanos(), Relaxed);
    }

    fn is_stuck(&self, now: Time) -> bool {
        now.since(Time::from_nanos(self.0.load(Relaxed))) > TIMEOUT
    }
}

impl Watchdog {
    /// Creates a watchdog for a listener, `workers` workers and a sampler, with `now` as the time of their
    /// last ticks.
    #[must_use]
    pub fn new(workers: usize, now: Time) -> Self {
        let beat = || Beat(now.as_nanos().into());
        Self {
            listener: beat(),
            workers: (0..workers).map(|_| beat()).collect(),
            sampler: beat(),
            is_ready: AtomicBool::new(false),
        }
    }

    /// Sets whether the daemon is ready: it receives heartbeats and is not stopping.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Relaxed);
    }

    /// Whether the daemon receives heartbeats and is not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// The names of the tasks that have not ticked for longer than [`TIMEOUT`]. After a stop of the process,
    /// all tasks can be listed for a moment, so a caller should check twice, a second apart.
    #[must_use]
    pub fn stuck(&self, now: Time) -> Vec<String> {
        let workers = self.workers.iter().enumerate();
        let listener = self.listener.is_stuck(now).then(|| "listener".to_owned());
        let stuck = workers.filter(|(_, beat)| beat.is_stuck(now));
        let sampler = self.sampler.is_stuck(now).then(|| "sampler".to_owned());
        let stuck = stuck.map(|(number, _)| format!("worker {number}"));
        listener.into_iter().chain(stuck).chain(sampler).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_without_a_tick_for_three_seconds_is_stuck() {
        let start = Time::from_nanos(1 << 40);
        let watchdog = Watchdog::new(3, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(watchdog.stuck(at(3)).is_empty());
        watchdog.workers[1].tick(at(3));
        assert_eq!(watchdog.stuck(at(4)), ["listener", "worker 0", "worker 2", "sampler"]);
        watchdog.listener.tick(at(4));
        watchdog.sampler.tick(at(4));
        assert_eq!(watchdog.stuck(at(7)), ["worker 0", "worker 1", "worker 2"]);
        assert!(watchdog.stuck(start).is_empty());
    }

    #[test]
    fn a_sleeping_task_is_stuck_three_seconds_after_its_deadline_or_wake_up() {
        let start = Time::from_nanos(1 << 40);
        let at = |seconds| start + Duration::from_secs(seconds);
        let watchdog = Watchdog::new(3, start);
        watchdog.listener.sleep(at(1_000));
        watchdog.sampler.sleep(at(1_000));
        let [limited, unlimited, woken] = &watchdog.workers[..] else { panic!("three workers") };
        limited.sleep(at(10));
        for beat in [unlimited, woken] {
            beat.sleep(Time::from_nanos(u64::MAX));
        }
        assert!(watchdog.stuck(at(13)).is_empty());
        assert_eq!(watchdog.stuck(at(14)), ["worker 0"]);
        limited.sleep(at(1_000));
        woken.wake(at(20));
        assert!(watchdog.stuck(at(23)).is_empty());
        assert_eq!(watchdog.stuck(at(24)), ["worker 2"]);
    }
}
