//! The workers' threads, which sleep between slots.

use std::sync::OnceLock;
use std::thread::Thread;

/// Handles to wake the workers.
#[derive(Debug)]
pub struct WorkerThreads(Vec<OnceLock<Thread>>);

impl WorkerThreads {
    /// Creates the handles for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| OnceLock::new()).collect())
    }

    /// Sets the thread of a worker. Call this before the worker can need a wake-up, because [`Self::wake`]
    /// does nothing without the thread.
    pub fn set(&self, worker: usize, thread: Thread) {
        let _ = self.0[worker].set(thread);
    }

    /// Wakes workers 0 to `workers` − 1, except those without a thread.
    pub fn wake(&self, workers: usize) {
        self.0[..workers].iter().filter_map(OnceLock::get).for_each(Thread::unpark);
    }

    /// Wakes all workers.
    pub fn wake_all(&self) {
        self.wake(self.0.len());
    }
}
