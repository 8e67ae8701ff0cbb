//! The threads of a daemon.

use std::sync::Arc;
use std::thread::Thread;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::deny_file::DenyFileReader;
use super::error::TaskEnded;
use crate::sampler::Sampler;
use crate::threads;
use crate::worker::WorkerThreads;

/// The threads of the daemon other than the main thread, and the handles to end them.
#[derive(Debug)]
pub(super) struct Threads {
    pub(super) sampler: Sampler,
    pub(super) deny_file_reader: Option<DenyFileReader>,
    pub(super) tasks: Tasks,
    pub(super) workers: Arc<WorkerThreads>,
    /// Ends the listener when it is dropped.
    pub(super) end_listener: oneshot::Sender<()>,
}

/// The essential threads. If a thread of these ends, the daemon ends, because it would run but not serve its
/// clients.
#[derive(Debug, Default)]
pub(super) struct Tasks(JoinSet<Result<(), TaskEnded>>);

impl Tasks {
    pub(super) fn start(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<(), TaskEnded> + Send + 'static,
    ) -> Result<Thread, TaskEnded> {
        let (says, ended) = oneshot::channel();
        let started = threads::start(name, move || drop(says.send(run())));
        let thread = started.map_err(TaskEnded::Thread)?;
        // A thread that panics drops its sender without a result.
        let panicked = TaskEnded::Panicked(name.to_owned());
        self.0.spawn(async { ended.await.unwrap_or(Err(panicked)) });
        Ok(thread.thread().clone())
    }

    /// Waits for the next thread to end. Returns `None` if all threads have ended.
    pub(super) async fn next(&mut self) -> Option<Result<(), TaskEnded>> {
        Some(self.0.join_next().await?.expect("waiting for a thread neither panics nor is aborted"))
    }

    /// Waits for all threads to end.
    pub(super) async fn all(&mut self) {
        while self.next().await.is_some() {}
    }
}
