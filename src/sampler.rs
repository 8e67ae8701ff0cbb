//! Samples the daemon's state every second, and keeps the last ten minutes.

pub mod rfc3339;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{self, Time};
use crate::engine::guard::Refused;
use crate::engine::registry::Removal;
use crate::metrics::{Failure, LATENESS_BOUNDS, Totals};
use crate::net::{self, SendFailure, Socket};
use crate::shared::Shared;
use crate::status::{
    self, Bucket, Buffers, Clients, DenyFile, FailedRead, Guard, Lateness, Sample, Seen, Snapshot,
    Status,
};

/// The sampling interval.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The number of recent samples in which a problem counts as current.
const RECENT: usize = 60;

/// The number of samples kept.
const REMEMBERED: usize = 600;

/// How long the status reports that the snapshot found at the start was not used.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

/// The smallest wall-clock step that counts as setting the clock, rather than drift.
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

    /// How often the wall clock was set. Each time, all past times are corrected.
    pub fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }
}

/// Samples, keeps and publishes the daemon's state.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    socket: Arc<Socket>,
    started: Time,
    started_wall: String,
    /// The boot clock and the wall clock at the last sample.
    clocks: (Time, Time),
    /// The tasks that seemed stuck at the last sample.
    suspects: Vec<String>,
    /// The totals at each sample, oldest first. Never empty.
    looks: VecDeque<Totals>,
    board: Arc<Board>,
}

impl Sampler {
    /// Creates a sampler for a daemon that starts now.
    #[must_use]
    pub fn new(shared: Arc<Shared>, socket: Arc<Socket>) -> Self {
        let (started, wall) = (clock::now(), clock::wall());
        let started_wall = rfc3339::millis(wall);
        let looks = VecDeque::from([shared.totals()]);
        let status =
            status(&shared, &socket, started, &started_wall, &looks, Sample::default(), Vec::new());
        let board = Board {
            status: watch::Sender::new(Arc::new(status)),
            history: Mutex::default(),
            steps: AtomicU64::default(),
        };
        Self {
            shared,
            socket,
            started,
            started_wall,
            clocks: (started, wall),
            suspects: Vec::new(),
            looks,
            board: Arc::new(board),
        }
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
        self.shared.watchdog.monitor.tick(now);
        self.follow(now, wall);
        let suspects = self.shared.watchdog.stuck(now);
        let before = std::mem::replace(&mut self.suspects, suspects.clone());
        let stuck: Vec<_> = suspects.into_iter().filter(|task| before.contains(task)).collect();
        if let Some(drops) = self.socket.receive_drops() {
            self.shared.metrics.receive_drops.raise_to(drops);
        }
        self.shared.metrics.truncated_control.raise_to(self.socket.truncated_control());
        let totals = self.shared.totals();
        let last = &self.looks[self.looks.len() - 1];
        let worst = self.shared.metrics.take_worst_lateness();
        let sample = sample(wall, &totals.since(last), self.shared.engine.registry().len(), worst);
        if self.looks.len() > REMEMBERED {
            self.looks.pop_front();
        }
        self.looks.push_back(totals);
        let mut history = self.board.history();
        if history.len() == REMEMBERED {
            history.pop_front();
        }
        history.push_back(sample.clone());
        drop(history);
        let Self { shared, socket, started, started_wall, looks, board, .. } = self;
        let status = status(shared, socket, *started, started_wall, looks, sample, stuck.clone());
        board.status.send_replace(Arc::new(status));
        (worst, stuck)
    }

    /// Corrects all past times if the wall clock was set since the last sample.
    fn follow(&mut self, now: Time, wall: Time) {
        let (last, last_wall) = std::mem::replace(&mut self.clocks, (now, wall));
        let step = seconds(wall) - seconds(last_wall + now.since(last));
        if step.abs() < LEAST_STEP_SECONDS {
            return;
        }
        self.started_wall = rfc3339::millis(wall.before(now.since(self.started)));
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
        pings: recent.pings(),
        refused: recent.refused(),
        failed_pings: recent.failed_sends(),
        skipped_pings: recent.skipped_pings,
        receive_drops: recent.receive_drops,
        worst_lateness_seconds: worst_lateness.as_secs_f64(),
    }
}

fn status(
    shared: &Shared,
    socket: &Socket,
    started: Time,
    started_wall: &str,
    looks: &VecDeque<Totals>,
    now: Sample,
    stuck: Vec<String>,
) -> Status {
    let time = clock::now();
    let caps = shared.engine.guard().caps();
    let (ipv4, ipv6) = shared.engine.registry().families();
    let clients = Clients { ipv4, ipv6, max: caps.clients };
    let granted = socket.buffers();
    let buffers = Buffers {
        receive_bytes: granted.receive,
        wanted_receive_bytes: net::BUFFERS.receive,
        send_bytes: granted.send,
        wanted_send_bytes: net::BUFFERS.send,
    };
    let (first, last) = (&looks[0], &looks[looks.len() - 1]);
    let recent = last.since(&looks[looks.len().saturating_sub(RECENT + 1)]);
    let uptime = time.since(started);
    let snapshot = snapshot(shared, time, uptime);
    let deny_file = deny_file(shared);
    let findings = status::find(&Seen {
        stuck: &stuck,
        buffers: &buffers,
        clients: &clients,
        snapshot: snapshot.as_ref(),
        deny_file: deny_file.as_ref(),
        clients_without_local_address: shared.engine.registry().local_use().clients_without,
        is_enforcing: shared.engine.guard().enforces(),
        recent: &recent,
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: socket.address(),
        started: started_wall.to_owned(),
        uptime_seconds: uptime.as_secs_f64(),
        ready: shared.watchdog.is_ready(),
        stuck,
        clients,
        guard: Guard {
            enforcing: shared.engine.guard().enforces(),
            max_clients_per_address: caps.per_address,
            max_clients_per_prefix: caps.per_prefix,
            denied_networks: shared.engine.guard().denied(),
        },
        buffers,
        snapshot,
        deny_file,
        totals: totals(last),
        lateness: lateness(&last.since(first)),
        now,
        findings,
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

fn totals(totals: &Totals) -> status::Totals {
    let labelled = |labels: &[&str], counts: &[u64]| {
        labels.iter().map(|label| (*label).to_owned()).zip(counts.iter().copied()).collect()
    };
    status::Totals {
        heartbeats: totals.heartbeats,
        registrations: totals.registered,
        restored: totals.restored,
        removals: labelled(&Removal::ALL.map(Removal::label), &totals.removed),
        mutes: totals.muted,
        refused: labelled(&Refused::ALL.map(Refused::label), &totals.refused),
        network_errors: totals.network_errors,
        receive_drops: totals.receive_drops,
        pings: totals.pings(),
        failed_pings: labelled(&SendFailure::ALL.map(SendFailure::label), &totals.failed_sends),
        skipped_pings: totals.skipped_pings,
        served_slots: totals.served_slots,
        skipped_slots: totals.skipped_slots,
        wrong_tokens: totals.wrong_tokens,
    }
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
