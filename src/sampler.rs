//! Samples the daemon's state every second, and keeps the last ten minutes.

pub mod rfc3339;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{self, Time};
use crate::metrics::{Failure, LATENESS_BOUNDS, Totals};
use crate::net::{self, Socket};
use crate::shared::Shared;
use crate::status::{
    self, Bucket, Buffers, Clients, DenyFile, FailedRead, Guard, Lateness, Sample, Seen, Snapshot,
    Status,
};

/// The sampling interval.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The number of recent samples from which the current findings are determined.
const RECENT: usize = 60;

/// The number of samples kept.
const REMEMBERED: usize = 600;

/// How long the status reports that the snapshot found at the start was not used.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

/// The smallest deviation of the wall clock that is treated as setting the clock, and not as drift.
const LEAST_STEP_SECONDS: f64 = 0.5;

/// The published results of a sampler.
#[derive(Debug)]
pub struct Board {
    /// The status at the last sample.
    pub status: watch::Sender<Arc<Status>>,
    history: Mutex<VecDeque<Sample>>,
    /// How often the wall clock was set.
    steps: AtomicU64,
}

impl Board {
    /// The samples of the last ten minutes, one per second.
    pub fn history(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, sample: Sample) {
        let mut history = self.history();
        if history.len() == REMEMBERED {
            history.pop_front();
        }
        history.push_back(sample);
    }

    /// How often the wall clock was set. Each time, all past times are corrected.
    pub fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }
}

/// Samples, keeps and publishes the daemon's state.
#[derive(Debug)]
pub struct Sampler {
    source: Source,
    /// The boot clock and the wall clock at the last sample.
    clocks: (Time, Time),
    /// The tasks that seemed stuck at the last sample.
    suspects: Vec<String>,
    board: Arc<Board>,
}

/// The data from which a status is made.
#[derive(Debug)]
struct Source {
    shared: Arc<Shared>,
    socket: Arc<Socket>,
    /// The effective settings that `/status` shows.
    settings: BTreeMap<String, String>,
    started: Time,
    started_wall: String,
    /// The totals at each sample, oldest first. Never empty.
    looks: VecDeque<Totals>,
}

impl Sampler {
    /// Creates a sampler for a daemon that starts now, with the settings that `/status` shows.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        socket: Arc<Socket>,
        settings: BTreeMap<String, String>,
    ) -> Self {
        let (started, wall) = (clock::now(), clock::wall());
        let started_wall = rfc3339::millis(wall);
        let looks = VecDeque::from([shared.totals()]);
        let source = Source { shared, socket, settings, started, started_wall, looks };
        let status = source.status(Sample::default(), Vec::new());
        let board = Board {
            status: watch::Sender::new(Arc::new(status)),
            history: Mutex::default(),
            steps: AtomicU64::default(),
        };
        Self { source, clocks: (started, wall), suspects: Vec::new(), board: Arc::new(board) }
    }

    /// The board on which the sampler publishes its results.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Takes a sample. Returns the worst ping lateness since the last sample, and the stuck tasks: those that
    /// were also stuck at the last sample.
    pub fn look(&mut self) -> (Duration, Vec<String>) {
        let (now, wall) = (clock::now(), clock::wall());
        let Source { shared, socket, .. } = &self.source;
        shared.watchdog.sampler.tick(now);
        let suspects = shared.watchdog.stuck(now);
        let before = std::mem::replace(&mut self.suspects, suspects.clone());
        let stuck: Vec<_> = suspects.into_iter().filter(|task| before.contains(task)).collect();
        if let Some(drops) = socket.receive_drops() {
            shared.metrics.receive_drops.raise_to(drops);
        }
        shared.metrics.truncated_control.raise_to(socket.truncated_control());
        let (totals, clients) = (shared.totals(), shared.engine.registry().len());
        let worst = shared.metrics.take_worst_lateness();
        self.follow(now, wall);
        let recent = self.source.push(totals);
        let sample = sample(wall, &recent, clients, worst);
        self.board.push(sample.clone());
        self.board.status.send_replace(Arc::new(self.source.status(sample, stuck.clone())));
        (worst, stuck)
    }

    /// Corrects all past times if the wall clock was set since the last sample.
    fn follow(&mut self, now: Time, wall: Time) {
        let (last, last_wall) = std::mem::replace(&mut self.clocks, (now, wall));
        let step = seconds(wall) - seconds(last_wall + now.since(last));
        if step.abs() < LEAST_STEP_SECONDS {
            return;
        }
        let uptime = now.since(self.source.started);
        self.source.started_wall = rfc3339::millis(wall.before(uptime));
        for sample in self.board.history().iter_mut() {
            sample.time += step;
        }
        self.board.steps.fetch_add(1, Relaxed);
    }
}

fn sample(wall: Time, recent: &Totals, clients: usize, worst_lateness: Duration) -> Sample {
    Sample {
        time: seconds(wall),
        clients,
        heartbeats: recent.heartbeats,
        pings: recent.pings,
        refused: recent.refused(),
        failed_pings: recent.failed_pings(),
        skipped_pings: recent.skipped_pings,
        receive_drops: recent.receive_drops,
        worst_lateness_seconds: worst_lateness.as_secs_f64(),
    }
}

impl Source {
    /// Adds the totals of a sample, and returns the counts since the sample before.
    fn push(&mut self, totals: Totals) -> Totals {
        let recent = totals.since(self.last());
        if self.looks.len() > REMEMBERED {
            self.looks.pop_front();
        }
        self.looks.push_back(totals);
        recent
    }

    fn last(&self) -> &Totals {
        &self.looks[self.looks.len() - 1]
    }

    fn status(&self, now: Sample, stuck: Vec<String>) -> Status {
        let Self { shared, socket, looks, .. } = self;
        let time = clock::now();
        let uptime = time.since(self.started);
        let guard = shared.engine.guard();
        let caps = guard.caps();
        let (ipv4, ipv6) = shared.engine.registry().families();
        let clients = Clients { ipv4, ipv6, max: caps.clients };
        let buffers = buffers(socket);
        let recent = self.last().since(&looks[looks.len().saturating_sub(RECENT + 1)]);
        let snapshot = snapshot(shared, time, uptime);
        let deny_file = deny_file(shared);
        let findings = status::find(&Seen {
            stuck: &stuck,
            buffers: &buffers,
            clients: &clients,
            snapshot: snapshot.as_ref(),
            deny_file: deny_file.as_ref(),
            clients_without_local_address: shared.engine.registry().local_use().clients_without,
            is_enforcing: guard.enforces(),
            recent: &recent,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: socket.address(),
            started: self.started_wall.clone(),
            uptime_seconds: uptime.as_secs_f64(),
            ready: shared.watchdog.is_ready(),
            stuck,
            clients,
            guard: Guard {
                enforcing: guard.enforces(),
                max_clients_per_address: caps.per_address,
                max_clients_per_prefix: caps.per_prefix,
                denied_networks: guard.denied(),
            },
            buffers,
            snapshot,
            deny_file,
            settings: self.settings.clone(),
            totals: self.last().report(),
            lateness: lateness(&self.last().since(&looks[0])),
            now,
            findings,
        }
    }
}

fn buffers(socket: &Socket) -> Buffers {
    let granted = socket.buffers();
    Buffers {
        receive_bytes: granted.receive,
        wanted_receive_bytes: net::BUFFERS.receive,
        send_bytes: granted.send,
        wanted_send_bytes: net::BUFFERS.send,
    }
}

fn snapshot(shared: &Shared, now: Time, uptime: Duration) -> Option<Snapshot> {
    let snapshots = &shared.metrics.snapshots;
    let interval = snapshots.interval?;
    let last = snapshots.last();
    let (failure, remedy) =
        snapshots.failure().map(|Failure { reason, remedy }| (reason, remedy.to_owned())).unzip();
    Some(Snapshot {
        age_seconds: last.map_or(uptime, |last| now.since(last.begun)).as_secs_f64(),
        interval_seconds: interval.as_secs_f64(),
        written: snapshots.written.get(),
        failed: snapshots.failed.get(),
        failure,
        remedy,
        unused: snapshots.unused.clone().filter(|_| uptime < UNUSED_FOR),
        took_seconds: last.map_or(0.0, |last| last.took.as_secs_f64()),
        clients: last.map_or(0, |last| last.clients),
        bytes: last.map_or(0, |last| last.bytes),
    })
}

fn deny_file(shared: &Shared) -> Option<DenyFile> {
    let reads = &shared.metrics.deny_file;
    let (read, failure) = reads.last();
    reads.is_set.then(|| DenyFile {
        read: read.map(rfc3339::millis),
        failed: reads.failed.get(),
        failure: failure.map(|failed| FailedRead {
            time: rfc3339::millis(failed.wall),
            reason: failed.reason,
            line: failed.line,
        }),
    })
}

fn lateness(recent: &Totals) -> Lateness {
    let bounds = LATENESS_BOUNDS.iter().map(|bound| Some(bound.as_secs_f64())).chain([None]);
    let buckets = bounds.zip(recent.lateness);
    Lateness { buckets: buckets.map(|(le_seconds, pings)| Bucket { le_seconds, pings }).collect() }
}

/// A wall-clock time in seconds since 1970.
fn seconds(wall: Time) -> f64 {
    Duration::from_nanos(wall.as_nanos()).as_secs_f64()
}
