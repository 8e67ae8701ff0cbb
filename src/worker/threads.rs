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

    /// Wakes a worker, if its thread is set.
    pub fn wake(&self, worker: usize) {
        if let Some(thread) = self.0[worker].get() {
            thread.unpark();
        }
    }

    /// Wakes all workers.
    pub fn wake_all(&self) {
        (0..self.0.len()).for_each(|worker| self.wake(worker));
    }
}
