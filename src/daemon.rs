//! The daemon from start to end: binds, restores the clients, starts the threads, serves, and stops.

mod bind;
mod deny_file;
mod detection;
mod error;
mod restore;
mod summary;
mod tasks;

use std::collections::BTreeMap;
use std::mem;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, error, info, warn};

use self::bind::Bound;
pub use self::bind::check;
use self::deny_file::{DenyFileReader, next_read};
pub use self::error::{CheckError, Failure, StartError, TaskEnded};
use self::restore::Restored;
use self::summary::Summary;
use self::tasks::{Tasks, Threads};
use crate::catalogue::Severity;
use crate::catalogue::daemon::STUCK;
use crate::catalogue::log::{INTERFACE_LOST, SOCKET_OPTION_REFUSED};
use crate::clock::{self, Time};
use crate::config::{Config, DenyFile, DenyFileError};
use crate::disk;
use crate::engine::Engine;
use crate::engine::registry::Removal;
use crate::http::Server;
use crate::listener::Listener;
use crate::metrics::FailedRead;
use crate::net::{self, Buffers, Sender, Socket};
use crate::sampler::{self, Sampler};
use crate::shared::Shared;
use crate::snapshot::Keeper;
use crate::status::{SocketBuffer, deny_file_unread};
use crate::supervisor::Supervisor;
use crate::worker::{Warnings, Worker, WorkerThreads};

/// The time from announcing the workers' end until that end, so that every worker learns of the end in time.
const SHUTDOWN_LEAD: Duration = Duration::from_millis(2);

/// The deadline for the threads to end. A thread that hangs must not prevent the final snapshot.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A daemon that is bound to its port.
#[derive(Debug)]
pub struct Daemon {
    socket: Arc<Socket>,
    /// The listener's runtime, which watches the socket.
    runtime: Option<Runtime>,
    /// One sender for each worker.
    senders: Vec<Sender>,
    http: Option<Server>,
    deny_file: Option<DenyFile>,
    /// The effective settings that `/status` shows.
    settings: BTreeMap<String, String>,
    keeper: Option<Keeper>,
    shared: Arc<Shared>,
    /// The workers start at the slots due from this time on.
    from: Time,
    /// The number of slots in a second of the previous daemon.
    slots: Option<u16>,
}

impl Daemon {
    /// Binds the sockets, or adopts the handed-over one, and restores the clients of the snapshot. Heartbeats
    /// wait in the receive buffer until [`Self::run`].
    ///
    /// # Errors
    /// If an address cannot be bound, a socket or a thread cannot be created, or the memory limit is too
    /// small. The message includes the remedy.
    pub fn bind(config: &Config, handed_over: Option<UdpSocket>) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Runtime)?;
        let bound = bind::bind(config, handed_over, &runtime)?;
        let restored = runtime.block_on(restore::restore(config, &bound))?;
        let Bound { socket, senders, http, .. } = bound;
        let Restored { keeper, shared, from, slots } = restored;
        Ok(Self {
            socket: Arc::new(socket),
            runtime: Some(runtime),
            senders,
            http,
            deny_file: config.deny_file.clone(),
            settings: config.public(),
            keeper,
            shared: Arc::new(shared),
            from,
            slots,
        })
    }

    /// Serves until `stop` is ready, and reports the health to `supervisor`. Reloads `DENY_FILE` at each
    /// message on `reload`.
    ///
    /// # Errors
    /// If a task ends before `stop` is ready.
    pub fn run(
        mut self,
        runtime: &Runtime,
        stop: oneshot::Receiver<()>,
        reload: mpsc::Receiver<()>,
        supervisor: &mut Supervisor,
    ) -> Result<(), TaskEnded> {
        self.announce();
        let within = runtime.enter();
        let threads = self.start_threads()?;
        drop(within);
        runtime.block_on(self.serve(threads, stop, reload, supervisor))
    }

    /// Starts all threads now, so a limit on threads fails the start and not a later step.
    fn start_threads(&mut self) -> Result<Threads, TaskEnded> {
        let deny_file_reader = self.start_deny_file_reader()?;
        let settings = mem::take(&mut self.settings);
        let sampler = Sampler::new(self.shared.clone(), self.socket.clone(), settings);
        if let Some(keeper) = &self.keeper {
            keeper.keep(self.shared.clone());
        }
        let mut tasks = Tasks::default();
        let workers = self.start_workers(&mut tasks)?;
        let end_listener = self.start_listener(&workers, &mut tasks)?;
        self.shared.watchdog.set_ready(true);
        if let Some(http) = self.http.take() {
            http.start(self.shared.clone(), sampler.board()).map_err(TaskEnded::Http)?;
        }
        Ok(Threads { sampler, deny_file_reader, tasks, workers, end_listener })
    }

    async fn serve(
        self,
        threads: Threads,
        stop: oneshot::Receiver<()>,
        mut reload: mpsc::Receiver<()>,
        supervisor: &mut Supervisor,
    ) -> Result<(), TaskEnded> {
        let Threads { mut sampler, mut deny_file_reader, mut tasks, workers, end_listener } =
            threads;
        supervisor.ready(&format!("listening on {}", self.socket.address()));
        let (mut stuck, mut is_interface_lost) = (Vec::new(), false);
        let mut second = tokio::time::interval(sampler::INTERVAL);
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut summary = Summary::default();
        tokio::pin!(stop);
        let ended = loop {
            tokio::select! {
                _ = &mut stop => break Ok(()),
                Some(Err(ended)) = tasks.next() => break Err(ended),
                Some(()) = reload.recv() => reload_deny_file(deny_file_reader.as_mut()),
                read = next_read(&mut deny_file_reader) => self.apply(read),
                _ = second.tick() => {
                    supervisor.retry();
                    self.restore_interface(&mut is_interface_lost);
                    let (worst_lateness, now_stuck) = sampler.look();
                    report_health(&stuck, &now_stuck, supervisor);
                    stuck = now_stuck;
                    update_broadcasts(&self.shared.engine);
                    if summary.add(worst_lateness) {
                        supervisor.status(&summary.tell(&self.shared));
                    }
                }
            }
        };
        self.shared.watchdog.set_ready(false);
        supervisor.stopping();
        let end = clock::now() + SHUTDOWN_LEAD;
        self.shared.engine.end(end);
        workers.wake_all();
        drop(end_listener);
        let have_ended = timeout(SHUTDOWN_TIMEOUT, tasks.all()).await.is_ok();
        if !have_ended {
            warn!(
                "some threads did not end within {SHUTDOWN_TIMEOUT:?}, so the daemon exits without waiting for them"
            );
        }
        if let Some(keeper) = self.keeper {
            keeper.end((have_ended && ended.is_ok()).then_some(end)).await;
        }
        summary.add(sampler.look().0);
        summary.tell(&self.shared);
        if ended.is_ok() {
            info!("stopped");
        }
        ended
    }

    fn announce(&self) {
        let address = self.socket.address();
        let serves = match address.ip() {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(ip) if ip.is_unspecified() => "IPv4 and IPv6",
            IpAddr::V6(_) => "IPv6",
        };
        let Buffers { receive, send } = self.socket.buffers();
        info!(%address, serves, receive_buffer = receive, send_buffer = send, "listening");
        for (buffer, granted, wanted) in [
            (SocketBuffer::RECEIVE, receive, net::BUFFERS.receive),
            (SocketBuffer::SEND, send, net::BUFFERS.send),
        ] {
            if let Some(problem) = buffer.problem(granted, wanted) {
                warn!(granted, wanted, "{problem}");
            }
        }
        for (option, error) in self.socket.missing().iter() {
            let (option, cost) = (option.name(), option.cost());
            let problem = SOCKET_OPTION_REFUSED.with(&[("option", &option), ("cost", &cost)]);
            warn!(option, %error, "{problem}");
        }
    }

    fn start_workers(&mut self, tasks: &mut Tasks) -> Result<Arc<WorkerThreads>, TaskEnded> {
        let threads = WorkerThreads::new(self.senders.len());
        self.shared.engine.resume(clock::now(), self.from, self.slots);
        let warnings = Arc::new(Warnings::default());
        for (number, sender) in mem::take(&mut self.senders).into_iter().enumerate() {
            let worker = Worker::new(number, sender, self.shared.clone(), warnings.clone());
            let run = || worker.run().map_err(TaskEnded::Worker);
            threads.set(number, tasks.start(&format!("worker-{number}"), run)?);
        }
        Ok(Arc::new(threads))
    }

    /// Starts the listener, which ends when the returned sender is dropped. Heartbeats that arrive afterwards
    /// stay in the socket, which the next daemon may adopt.
    fn start_listener(
        &mut self,
        workers: &Arc<WorkerThreads>,
        tasks: &mut Tasks,
    ) -> Result<oneshot::Sender<()>, TaskEnded> {
        let (socket, shared) = (self.socket.clone(), self.shared.clone());
        let listener = Listener::new(socket, shared, workers.clone());
        let (end, ended) = oneshot::channel::<()>();
        let runtime = self.runtime.take().expect("the listener is started only once");
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    error = listener.run() => Err(TaskEnded::Listener(error)),
                    _ = ended => Ok(()),
                }
            })
        };
        tasks.start("listener", run)?;
        Ok(end)
    }

    /// Starts the reader of `DENY_FILE`, if the file is configured.
    fn start_deny_file_reader(&mut self) -> Result<Option<DenyFileReader>, TaskEnded> {
        let Some(file) = self.deny_file.take() else { return Ok(None) };
        if file.networks().is_some() {
            self.shared.metrics.deny_file.succeed(clock::wall());
        } else {
            self.apply(Err((file.clone(), disk::no_answer().into())));
        }
        DenyFileReader::start(file).map(Some).map_err(TaskEnded::Thread)
    }

    /// Rebinds sockets to their network interface. `is_lost` records whether the last attempt failed.
    fn restore_interface(&self, is_lost: &mut bool) {
        match self.socket.restore_interface() {
            Ok(0) => {}
            Ok(sockets) => {
                *is_lost = false;
                warn!(
                    sockets,
                    "bound the sockets to their network interface again: the interface was recreated, or another program disconnected them (`ss -K`)"
                );
            }
            Err(error) if !std::mem::replace(is_lost, true) => {
                error!(%error, "{}", INTERFACE_LOST.with(&[("error", &error)]));
            }
            Err(_) => {}
        }
    }

    /// Applies the networks read from `DENY_FILE`, or reports the failed read.
    fn apply(&self, read: Result<DenyFile, (DenyFile, DenyFileError)>) {
        let reads = &self.shared.metrics.deny_file;
        match read {
            Ok(file) => {
                reads.succeed(clock::wall());
                let networks = file.networks().cloned().unwrap_or_default();
                let count = networks.len();
                let removed = self.shared.engine.deny(networks);
                for client in &removed {
                    debug!(%client, reason = Removal::Denied.label(), "removed");
                }
                let removed = removed.len();
                info!(path = file.path(), networks = count, removed, "loaded DENY_FILE");
            }
            Err((file, error)) => {
                let (path, reason) = (file.path(), error.without_text());
                let (has_networks, line) = (file.networks().is_some(), error.line());
                if has_networks || reads.last().1.is_none_or(|last| last.reason != reason) {
                    let problem = deny_file_unread(has_networks, &reason, line);
                    match problem.problem.severity {
                        Severity::Critical => error!(path, %error, "{problem}"),
                        Severity::Warning => warn!(path, %error, "{problem}"),
                    }
                }
                reads.fail(FailedRead { wall: clock::wall(), reason, line });
            }
        }
    }
}

fn reload_deny_file(deny_file_reader: Option<&mut DenyFileReader>) {
    if let Some(deny_file_reader) = deny_file_reader {
        deny_file_reader.reload();
    } else {
        info!("received SIGHUP, but DENY_FILE is not set, so the daemon has no file to reload");
    }
}

/// Updates the broadcast addresses, or keeps them if the kernel does not list its interfaces.
fn update_broadcasts(engine: &Engine) {
    if let Some(addresses) = net::broadcasts() {
        engine.set_broadcasts(addresses);
    }
}

/// Notifies the supervisor if no task is stuck. Logs when tasks get stuck or recover.
fn report_health(before: &[String], stuck: &[String], supervisor: &Supervisor) {
    if stuck.is_empty() {
        supervisor.alive();
    }
    match (before.is_empty(), stuck.is_empty()) {
        (true, false) => {
            let tasks = stuck.join(", ");
            error!(tasks, "{}", STUCK.with(&[("tasks", &tasks)]));
        }
        (false, true) => info!("all tasks are running again"),
        _ => {}
    }
}
