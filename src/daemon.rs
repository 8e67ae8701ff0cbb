//! Joins everything: binds, starts the tasks, sums up every minute, stops.

mod denials;

use std::future;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, error, info, warn};

use self::denials::Denials;
use crate::clock::{self, Time};
use crate::config::{Config, DenyFile, DenyFileError};
use crate::disk;
use crate::engine::registry::{Removal, SHARDS, Seed};
use crate::engine::{self, Engine};
use crate::http::Server;
use crate::listener::Listener;
use crate::machine::{Detection, Machine, set_sysctl};
use crate::memory::{Needs, TooSmall};
use crate::metrics::{FailedRead, Totals};
use crate::monitor::{self, Monitor};
use crate::net::{self, Buffers, Sender, Socket, SocketOption};
use crate::output::counted;
use crate::snapshot::{self, Found, Keeper, Moment, Snapshot};
use crate::state::State;
use crate::supervisor::Supervisor;
use crate::threads;
use crate::worker::{Warnings, Worker, WorkerThreads};

/// The workers are told of the end so long before it that each has heard of it by then.
const NOTICE: Duration = Duration::from_millis(2);

/// How long tasks may take to end. One that hangs must not keep the clients from the disk.
const LONGEST_FAREWELL: Duration = Duration::from_secs(1);

/// How long to wait for duplicate address detection, which takes 1 to 2 s unless a link is configured to probe
/// more often.
const LONGEST_DETECTION: Duration = Duration::from_secs(10);

/// Between two attempts to bind while the kernel probes for duplicates.
const DETECTION_INTERVAL: Duration = Duration::from_millis(50);

/// A summary a minute.
const LOOKS_A_SUMMARY: u32 = 60;

/// Why the daemon did not start, and what to do about it.
#[derive(Debug, Error)]
pub enum StartError {
    /// `HOST` is a name without an address.
    #[error(
        "HOST={host} does not resolve to an address ({error}): check its spelling and the name server, or set HOST to an IP address"
    )]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// Somebody else is bound to the port.
    #[error("UDP port {port} of {ip} is in use: see which process holds it with `sudo ss -lunp 'sport = :{port}'`, then stop that process (a second wakeupd cannot share the port) or set another PORT",
        ip = .0.ip(), port = .0.port())]
    InUse(SocketAddr),
    /// The port needs a privilege.
    #[error("no permission to bind UDP port {port}: a port below 1024 needs CAP_NET_BIND_SERVICE (systemd: both AmbientCapabilities= and CapabilityBoundingSet=), so grant it or set a PORT from 1024 up",
        port = .0.port())]
    NotPermitted(SocketAddr),
    /// The address belongs to another machine.
    #[error("{ip} is not an address of this machine: set HOST to one that `ip address` shows, to 0.0.0.0 for every IPv4 address, or to :: for every address",
        ip = .0.ip())]
    NotLocal(SocketAddr),
    /// Duplicate address detection of the address has failed or takes too long.
    #[error("cannot bind {ip}: {remedy}", ip = .address.ip(), remedy = detection_remedy(*.detection))]
    Detection {
        /// What was to be bound.
        address: SocketAddr,
        /// Its state.
        detection: Detection,
    },
    /// There can be no runtime for the listener.
    #[error("cannot start the listener: {0}")]
    Runtime(io::Error),
    /// The system does not speak the address's protocol.
    #[error("this system has no {family}: set HOST to an address of the other family, 0.0.0.0 or ::",
        family = if .0.is_ipv6() { "IPv6" } else { "IPv4" })]
    NoSuchFamily(SocketAddr),
    /// A limit on the memory is too small.
    #[error(transparent)]
    Memory(#[from] TooSmall),
    /// The operator's endpoint cannot be bound.
    #[error("cannot bind TCP {address} for metrics and the status page ({error}): {remedy}, or HTTP_ADDR=none to go without",
        remedy = http_remedy(*address, error))]
    Http {
        /// `HTTP_ADDR`.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A thread cannot be started.
    #[error(transparent)]
    Thread(io::Error),
    /// The service manager handed something else over.
    #[error("cannot serve the socket that was handed over, see wakeupd.socket: {0}")]
    HandedOver(io::Error),
    /// Anything else.
    #[error("cannot bind UDP {address}: {error}")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// Why a running daemon had to end: without one of its tasks it would only seem to be alive.
#[derive(Debug, Error)]
pub enum TaskEnded {
    /// The socket cannot be received from any more.
    #[error("cannot receive any more: {0}")]
    Listener(io::Error),
    /// A worker's socket cannot be sent from any more, so its clients would be silenced.
    #[error("cannot send any more: {0}")]
    Worker(io::Error),
    /// The operator's endpoint has no thread.
    #[error("cannot serve HTTP: {0}")]
    Http(io::Error),
    /// A thread of the daemon cannot be started.
    #[error(transparent)]
    Thread(io::Error),
    /// A thread panicked.
    #[error("a thread panicked")]
    Panicked,
}

/// A daemon that is bound to its port.
#[derive(Debug)]
pub struct Daemon {
    socket: Arc<Socket>,
    /// The listener's: it watches the socket.
    runtime: Option<Runtime>,
    /// One for each worker.
    senders: Vec<Sender>,
    http: Option<Server>,
    deny_file: Option<DenyFile>,
    keeper: Option<Keeper>,
    state: Arc<State>,
    /// The workers begin with the slots that are due from then on.
    from: Time,
    max_icmp_errors: u32,
}

impl Daemon {
    /// Binds the port, or takes over the socket that was handed over in its place, and brings the clients
    /// of the snapshot back. Heartbeats wait in the socket's buffer meanwhile.
    ///
    /// # Errors
    /// With what stands in the way and what to do about it.
    pub fn bind(config: &Config, handed_over: Option<UdpSocket>) -> Result<Self, StartError> {
        // A handed-over socket may hold what came at any time.
        let drained_until = if handed_over.is_some() { clock::MACHINE_START } else { clock::now() };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Runtime)?;
        let mut socket = open_socket(config, handed_over, &runtime)?;
        needs(config, socket.address()).check(&Machine::new("/"))?;
        let senders = open_senders(&mut socket, config.worker_pool_size)
            .map_err(|error| bind_error(socket.address(), error))?;
        let http = bind_http(config)?;
        let port = socket.address().port();
        let begun = Moment::now();
        let (keeper, Found { snapshot, unused }) = runtime.block_on(start_keeper(config, port))?;
        let denied = config.deny_file.as_ref().and_then(DenyFile::networks).cloned();
        let settings = engine::Settings {
            rules: config.guard.clone(),
            denied: denied.unwrap_or_default(),
            port,
            expiration: config.client_expiration,
            shards: SHARDS,
            seed: snapshot.as_ref().map_or_else(Seed::random, Snapshot::seed),
            workers: config.worker_pool_size,
            max_icmp_errors: config.max_icmp_errors,
            receive_capacity: socket.most_waiting(),
            drained_until,
        };
        let engine = Engine::new(settings, begun.now);
        update_broadcasts(&engine);
        let mut state = State::new(engine, config.worker_pool_size);
        state.metrics.snapshots.interval = keeper.as_ref().map(|_| config.snapshot_interval);
        state.metrics.snapshots.unused = unused;
        state.metrics.deny_file.is_set = config.deny_file.is_some();
        let from = snapshot.and_then(|snapshot| restore(&snapshot, &socket, &state, &begun));
        Ok(Self {
            socket: Arc::new(socket),
            runtime: Some(runtime),
            senders,
            http,
            deny_file: config.deny_file.clone(),
            keeper,
            state: Arc::new(state),
            from: from.unwrap_or(begun.now),
            max_icmp_errors: config.max_icmp_errors,
        })
    }

    /// Serves until `stop` is ready, and tells `supervisor` how it is. At each `reload` it reads the file
    /// of those to deny again.
    ///
    /// # Errors
    /// Where a task ended before that.
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

    /// Starts all threads, so that a limit on threads stops the start and nothing later.
    fn start_threads(&mut self) -> Result<Threads, TaskEnded> {
        let denials = self.begin_to_deny()?;
        let monitor = Monitor::new(self.state.clone(), self.socket.clone());
        if let Some(keeper) = &self.keeper {
            keeper.keep(self.state.clone());
        }
        let mut tasks = Tasks::default();
        let workers = self.start_workers(&mut tasks)?;
        let end_listener = self.start_listener(&workers, &mut tasks)?;
        self.state.health.set_ready(true);
        if let Some(http) = self.http.take() {
            http.start(self.state.clone(), monitor.board()).map_err(TaskEnded::Http)?;
        }
        Ok(Threads { monitor, denials, tasks, workers, end_listener })
    }

    async fn serve(
        self,
        threads: Threads,
        stop: oneshot::Receiver<()>,
        mut reload: mpsc::Receiver<()>,
        supervisor: &mut Supervisor,
    ) -> Result<(), TaskEnded> {
        let Threads { mut monitor, mut denials, mut tasks, workers, end_listener } = threads;
        supervisor.ready(&format!("listening on {}", self.socket.address()));
        let (mut stuck, mut is_interface_lost) = (Vec::new(), false);
        let mut second = tokio::time::interval(monitor::INTERVAL);
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut summary = Summary::default();
        tokio::pin!(stop);
        let ended = loop {
            tokio::select! {
                _ = &mut stop => break Ok(()),
                Some(Err(ended)) = tasks.next() => break Err(ended),
                Some(()) = reload.recv() => read_again(denials.as_mut()),
                read = news(&mut denials) => self.apply(read),
                _ = second.tick() => {
                    supervisor.retry();
                    self.restore_interface(&mut is_interface_lost);
                    let (worst_lateness, now_stuck) = monitor.look();
                    report_health(&stuck, &now_stuck, supervisor);
                    stuck = now_stuck;
                    update_broadcasts(&self.state.engine);
                    if summary.add(worst_lateness) {
                        supervisor.status(&summary.tell(&self.state));
                    }
                }
            }
        };
        self.state.health.set_ready(false);
        supervisor.stopping();
        let end = clock::now() + NOTICE;
        self.state.engine.end(end);
        workers.wake_all();
        drop(end_listener);
        let have_ended = timeout(LONGEST_FAREWELL, tasks.all()).await.is_ok();
        if !have_ended {
            warn!("not every task has ended after {LONGEST_FAREWELL:?}, so it is left alone");
        }
        if let Some(keeper) = self.keeper {
            keeper.end((have_ended && ended.is_ok()).then_some(end)).await;
        }
        summary.add(monitor.look().0);
        summary.tell(&self.state);
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
        for (name, granted, wanted, parameter) in [
            ("receive", receive, net::BUFFERS.receive, "net.core.rmem_max"),
            ("send", send, net::BUFFERS.send, "net.core.wmem_max"),
        ] {
            if granted < wanted {
                warn!(
                    granted,
                    wanted,
                    "the {name} buffer is small, so bursts may be lost. Run this on the host and restart: {}",
                    set_sysctl(parameter, wanted)
                );
            }
        }
        for (option, error) in self.socket.missing().iter() {
            let (option, cost) = (option.name(), option.cost());
            warn!(option, %error, "serving without a socket option that the kernel refuses: {cost}");
        }
    }

    fn start_workers(&mut self, tasks: &mut Tasks) -> Result<Arc<WorkerThreads>, TaskEnded> {
        let threads = WorkerThreads::new(self.senders.len());
        self.state.engine.resume(clock::now(), self.from);
        let warnings = Arc::new(Warnings::default());
        for (number, sender) in mem::take(&mut self.senders).into_iter().enumerate() {
            let worker = Worker::new(number, sender, self.state.clone(), warnings.clone());
            let run = || worker.run().map_err(TaskEnded::Worker);
            threads.set(number, tasks.start(&format!("worker-{number}"), run)?);
        }
        Ok(Arc::new(threads))
    }

    /// Starts the listener, which ends when what is returned is dropped. It leaves the heartbeats that come then
    /// in the socket, which the next daemon may take over.
    fn start_listener(
        &mut self,
        workers: &Arc<WorkerThreads>,
        tasks: &mut Tasks,
    ) -> Result<oneshot::Sender<()>, TaskEnded> {
        let (socket, state) = (self.socket.clone(), self.state.clone());
        let listener = Listener::new(socket, state, workers.clone(), self.max_icmp_errors);
        let (end, ended) = oneshot::channel::<()>();
        let runtime = self.runtime.take().expect("there is one listener");
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

    /// Watches over `DENY_FILE`, if there is one.
    fn begin_to_deny(&mut self) -> Result<Option<Denials>, TaskEnded> {
        let Some(file) = self.deny_file.take() else { return Ok(None) };
        if file.networks().is_some() {
            self.state.metrics.deny_file.succeed(clock::wall());
        } else {
            self.apply(Err((file.clone(), disk::no_answer().into())));
        }
        Denials::start(file).map(Some).map_err(TaskEnded::Thread)
    }

    /// Binds sockets to their network interface again. `is_lost` says that this failed the last time.
    fn restore_interface(&self, is_lost: &mut bool) {
        match self.socket.restore_interface() {
            Ok(0) => {}
            Ok(sockets) => {
                *is_lost = false;
                warn!(
                    sockets,
                    "sockets had lost their network interface, because it was deleted and recreated or another program disconnected them (`ss -K`?); bound them to it again"
                );
            }
            Err(error) if !std::mem::replace(is_lost, true) => {
                error!(%error, "cannot bind the sockets to their network interface again, so no client is served: make the interface again, and restart the daemon if it lacks CAP_NET_RAW");
            }
            Err(_) => {}
        }
    }

    /// Applies what was read of `DENY_FILE`, or reports why nothing was.
    fn apply(&self, read: Result<DenyFile, (DenyFile, DenyFileError)>) {
        let reads = &self.state.metrics.deny_file;
        match read {
            Ok(file) => {
                reads.succeed(clock::wall());
                let networks = file.networks().cloned().unwrap_or_default();
                let count = networks.len();
                let removed = self.state.engine.deny(networks);
                for client in &removed {
                    debug!(%client, reason = Removal::Denied.label(), "removed");
                }
                let removed = removed.len();
                info!(path = file.path(), networks = count, removed, "read DENY_FILE again");
            }
            Err((file, error)) => {
                let (path, reason) = (file.path(), error.without_text());
                if file.networks().is_some() {
                    error!(path, %error, "cannot reload DENY_FILE, so the networks that it held before stay denied: correct the file or its disk, then send SIGHUP");
                } else if reads.last().1.is_none_or(|last| last.reason != reason) {
                    error!(path, %error, "cannot read DENY_FILE yet, so none of its networks is denied: check the file and its disk; the daemon keeps trying");
                }
                reads.fail(FailedRead { wall: clock::wall(), reason, line: error.line() });
            }
        }
    }
}

/// What runs beside the main thread, and how to end it.
#[derive(Debug)]
struct Threads {
    monitor: Monitor,
    denials: Option<Denials>,
    tasks: Tasks,
    workers: Arc<WorkerThreads>,
    /// Ends the listener when it is dropped.
    end_listener: oneshot::Sender<()>,
}

/// The threads without which a daemon would only seem to be alive.
#[derive(Debug, Default)]
struct Tasks(JoinSet<Result<(), TaskEnded>>);

impl Tasks {
    fn start(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<(), TaskEnded> + Send + 'static,
    ) -> Result<Thread, TaskEnded> {
        let (says, ended) = oneshot::channel();
        let started = threads::start(name, move || drop(says.send(run())));
        let thread = started.map_err(TaskEnded::Thread)?;
        // A thread that panics says nothing.
        self.0.spawn(async { ended.await.unwrap_or(Err(TaskEnded::Panicked)) });
        Ok(thread.thread().clone())
    }

    /// Waits for the next that ends.
    async fn next(&mut self) -> Option<Result<(), TaskEnded>> {
        Some(self.0.join_next().await?.unwrap_or(Err(TaskEnded::Panicked)))
    }

    /// Waits until all have ended.
    async fn all(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// Starts the thread that keeps the snapshot, if there is to be one, and waits for what it finds.
async fn start_keeper(config: &Config, port: u16) -> Result<(Option<Keeper>, Found), StartError> {
    let Some(path) = config.snapshot_path.clone() else {
        return Ok((None, Found::default()));
    };
    let settings = snapshot::Settings { path, interval: config.snapshot_interval };
    let (keeper, found) = Keeper::start(settings, port).await.map_err(StartError::Thread)?;
    Ok((Some(keeper), found))
}

fn read_again(denials: Option<&mut Denials>) {
    if let Some(denials) = denials {
        denials.read_again();
    } else {
        info!("SIGHUP: DENY_FILE is not set, so there is nothing to read again");
    }
}

/// The outcome of the next read of `DENY_FILE`, and after a failure the file as it was before.
async fn news(denials: &mut Option<Denials>) -> Result<DenyFile, (DenyFile, DenyFileError)> {
    let Some(denials) = denials else { return future::pending().await };
    let read = denials.news().await;
    let before = denials.file().clone();
    read.map_err(|error| (before, error))
}

/// Checks what needs no socket: that `HOST` resolves, and that the limits on memory have room for
/// `MAX_CLIENTS`.
///
/// # Errors
/// If the daemon would not start.
pub fn check(config: &Config) -> Result<(), StartError> {
    let address = resolve(&config.host, config.port)?;
    Ok(needs(config, address).check(&Machine::new("/"))?)
}

fn needs(config: &Config, address: SocketAddr) -> Needs {
    Needs {
        clients: config.guard.caps.clients,
        is_ipv6: address.is_ipv6(),
        has_snapshots: config.snapshot_path.is_some(),
        workers: config.worker_pool_size,
    }
}

/// Updates the broadcast addresses, or leaves them as they are if the kernel does not list its interfaces.
fn update_broadcasts(engine: &Engine) {
    if let Some(addresses) = net::broadcasts() {
        engine.set_broadcasts(addresses);
    }
}

/// Brings the clients of a snapshot back. Returns where the one that wrote it ended.
fn restore(snapshot: &Snapshot, socket: &Socket, state: &State, begun: &Moment) -> Option<Time> {
    let now = Moment::now();
    let served = |client| socket.reaches(client);
    let restored = snapshot.restore(&state.engine, served, &now);
    let age = now.since(&snapshot.header().taken).unwrap_or_default();
    info!(
        clients = restored.clients,
        expired = restored.expired,
        refused = restored.refused,
        age_seconds = (age.as_secs_f64() * 1e3).round() / 1e3,
        took_ms = (clock::now().since(begun.now).as_secs_f64() * 1e3).round(),
        "restored"
    );
    snapshot.pinged_until(&now)
}

/// Tells the supervisor that no task is stuck, or else the log, if that is new.
fn report_health(before: &[String], stuck: &[String], supervisor: &Supervisor) {
    if stuck.is_empty() {
        supervisor.alive();
    }
    match (before.is_empty(), stuck.is_empty()) {
        (true, false) => error!(tasks = stuck.join(", "), "stuck"),
        (false, true) => info!("nothing is stuck any more"),
        _ => {}
    }
}

/// What is logged every minute.
#[derive(Debug, Default)]
struct Summary {
    /// The looks since the last one.
    looks: u32,
    /// What had been counted at the last one.
    last: Totals,
    worst_lateness: Duration,
}

impl Summary {
    /// Adds what a look saw, and says whether it is time to tell.
    fn add(&mut self, worst_lateness: Duration) -> bool {
        self.looks += 1;
        self.worst_lateness = self.worst_lateness.max(worst_lateness);
        self.looks >= LOOKS_A_SUMMARY
    }

    /// Tells what happened since the last time, and begins anew. Returns the same in short.
    fn tell(&mut self, state: &State) -> String {
        let totals = state.totals();
        let recent = totals.since(&self.last);
        info!(
            clients = state.engine.registry().len(),
            heartbeats = recent.heartbeats,
            pings = recent.pings(),
            refused = recent.refused(),
            failed_sends = recent.failed_sends(),
            skipped_slots = recent.skipped_slots,
            short_percent = (recent.short_percent() * 10.0).round() / 10.0,
            worst_lateness_ms = (self.worst_lateness.as_secs_f64() * 1e6).round() / 1e3,
            "summary"
        );
        let short = format!(
            "{}; in the last minute {}, {}, {} refused",
            counted(state.engine.registry().len() as u64, "client", "clients"),
            counted(recent.heartbeats, "heartbeat", "heartbeats"),
            counted(recent.pings(), "ping", "pings"),
            counted(recent.refused(), "datagram", "datagrams")
        );
        *self = Self { last: totals, ..Self::default() };
        short
    }
}

/// Opens a sending socket for each worker, or lets them all send from the receiving one.
fn open_senders(socket: &mut Socket, workers: usize) -> io::Result<Vec<Sender>> {
    socket.senders(workers).or_else(|error| {
        // A refused option is reported with the others.
        if !socket.missing().has(SocketOption::ShareAddress) {
            warn!(
                %error,
                "cannot open sending sockets with the options of the receiving one, so all workers send through that one, which costs up to 15 % of the highest ping rate. Mark=, Priority= above 6 and Transparent= in wakeupd.socket need AmbientCapabilities=CAP_NET_ADMIN in wakeupd.service, BindToDevice= before Linux 5.7 CAP_NET_RAW"
            );
        }
        socket.shared_senders(workers)
    })
}

fn adopt(config: &Config, socket: UdpSocket) -> Result<Socket, StartError> {
    let socket = Socket::adopt(socket).map_err(StartError::HandedOver)?;
    let address = socket.address();
    if config.agrees_with(address) {
        info!(%address, "serving the socket that was handed over");
    } else {
        warn!(%address, "serving the socket that was handed over, so HOST and PORT do not count: set its address with `systemctl edit wakeupd.socket`");
    }
    Ok(socket)
}

/// The socket that was handed over, or else one that is bound to the address of the settings.
fn open_socket(
    config: &Config,
    handed_over: Option<UdpSocket>,
    runtime: &Runtime,
) -> Result<Socket, StartError> {
    let _within = runtime.enter();
    if let Some(socket) = handed_over {
        return adopt(config, socket);
    }
    let address = resolve(&config.host, config.port)?;
    let bound = after_detection(address.ip(), || Socket::bind(address));
    bound.map_err(|error| bind_error(address, error))
}

/// The address to bind. The original served IPv4 alone, so of a name's addresses that goes first.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip.to_canonical(), port));
    }
    let unresolved = |error| StartError::Unresolved { host: host.to_owned(), error };
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
    let first = found.iter().min_by_key(|address| address.is_ipv6());
    let address = *first.ok_or_else(|| unresolved(io::ErrorKind::NotFound.into()))?;
    if found.iter().any(|other| *other != address) {
        info!(%host, ip = %address.ip(), "HOST has several addresses; binding one of them");
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let means_loopback = name == "localhost" || name.ends_with(".localhost");
    if address.ip().to_canonical().is_loopback() && !means_loopback {
        warn!(
            %host,
            ip = %address.ip(),
            "HOST resolves to a loopback address, so no other machine can reach the daemon: /etc/hosts often has such a line for the machine's own name, so set HOST to 0.0.0.0 or to an address that `ip address` shows"
        );
    }
    Ok(address)
}

/// The state of duplicate address detection, if it keeps an address from being bound.
fn detection(ip: IpAddr) -> Option<Detection> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Machine::new("/").detection(ip),
    }
}

/// Binds to an address, and waits for its duplicate address detection.
fn after_detection<T>(ip: IpAddr, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = clock::now() + LONGEST_DETECTION;
    let mut is_told = false;
    loop {
        let bound = bind();
        let is_in_the_way = matches!(&bound, Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable && clock::now() < deadline
                && detection(ip) == Some(Detection::Running));
        if !is_in_the_way {
            return bound;
        }
        if !mem::replace(&mut is_told, true) {
            info!(%ip, "waiting for duplicate address detection, up to {LONGEST_DETECTION:?}");
        }
        thread::sleep(DETECTION_INTERVAL);
    }
}

fn detection_remedy(detection: Detection) -> &'static str {
    match detection {
        Detection::Running => {
            "duplicate address detection takes longer than 10 s, so see the address in `ip -6 address`, or add it with `nodad`"
        }
        Detection::Failed => {
            "another machine on the link has this address (`dadfailed` in `ip -6 address`), so change one of the two"
        }
    }
}

fn bind_http(config: &Config) -> Result<Option<Server>, StartError> {
    let Some(address) = config.http_address else { return Ok(None) };
    let bound = after_detection(address.ip(), || Server::bind(address, config));
    bound.map(Some).map_err(|error| StartError::Http { address, error })
}

fn http_remedy(address: SocketAddr, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => format!(
            "see which process holds it with `sudo ss -ltnp 'sport = :{}'`, and stop that or set another HTTP_ADDR",
            address.port()
        ),
        Some(Errno::EACCES) => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE, so set HTTP_ADDR to one from 1024 up"
                .to_owned()
        }
        Some(Errno::EADDRNOTAVAIL) => detection(address.ip()).map_or_else(
            || {
                format!(
                    "{} is not an address of this machine, so set HTTP_ADDR to one that `ip address` shows",
                    address.ip()
                )
            },
            |detection| detection_remedy(detection).to_owned(),
        ),
        _ => "set another HTTP_ADDR".to_owned(),
    }
}

fn bind_error(address: SocketAddr, error: io::Error) -> StartError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => StartError::InUse(address),
        Some(Errno::EACCES) if address.port() < 1024 => StartError::NotPermitted(address),
        Some(Errno::EADDRNOTAVAIL) => match detection(address.ip()) {
            Some(detection) => StartError::Detection { address, detection },
            None => StartError::NotLocal(address),
        },
        Some(Errno::EAFNOSUPPORT) => StartError::NoSuchFamily(address),
        _ => StartError::Bind { address, error },
    }
}
