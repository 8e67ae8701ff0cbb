//! One measurement: everybody registers, the beat settles, and then each ping counts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::crowd::Crowd;
use super::heartbeats::{self, Sent};
use super::pings::{self, Heard};
use super::processes::Usage;
use super::subject::Subject;
use crate::clock;

/// From the last first heartbeat to the first ping that counts: everybody has been pinged by then.
const SETTLING: Duration = Duration::from_secs(2);

/// How long pings that arrived in time may wait to be read.
const READING: Duration = Duration::from_millis(500);

/// What the crowd does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) heartbeat_every: Duration,
    pub(super) register_in: Duration,
    pub(super) length: Duration,
    pub(super) halve_after: Option<Duration>,
}

impl Plan {
    /// Whether the nth of the measured clients, and those who follow it, fall silent half-way.
    pub(super) fn leaves(&self, n: usize) -> bool {
        self.halve_after.is_some() && n % 2 == 1
    }
}

/// What the threads of a measurement tell each other. Times are by the wall clock.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) registered: AtomicU32,
    /// When each of the measured clients sent its first heartbeat.
    pub(super) registered_at: Vec<AtomicU64>,
    pub(super) start: AtomicU64,
    pub(super) end: AtomicU64,
    /// When half of the clients fell silent.
    pub(super) left_at: AtomicU64,
    pub(super) is_over: AtomicBool,
}

/// What a measurement gave.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) sent: Sent,
    pub(super) heard: Heard,
    pub(super) watched: Watched,
}

/// What the kernel counted meanwhile.
#[derive(Debug)]
pub(super) struct Watched {
    /// How long it was.
    pub(super) time: Duration,
    /// Pings to the clients that were not measured.
    pub(super) pings_to_the_rest: u64,
    /// Of the daemon, where that is known: the processor time of the measurement, and its memory.
    pub(super) usage: Option<Usage>,
    /// Datagrams dropped at a full buffer since the beginning.
    pub(super) daemon_drops: Option<u64>,
    pub(super) own_drops: u64,
}

/// Measures.
pub(super) fn run(crowd: &Crowd, plan: &Plan, subject: &mut Subject) -> io::Result<Measured> {
    let never = || AtomicU64::new(u64::MAX);
    let progress = Progress {
        registered: AtomicU32::new(0),
        registered_at: (0..crowd.measured()).map(|_| AtomicU64::default()).collect(),
        start: never(),
        end: never(),
        left_at: never(),
        is_over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let listening = scope.spawn(|| pings::listen(crowd, plan, &progress));
        let sending = scope.spawn(|| heartbeats::send(crowd, plan, &progress));
        let watched = watch(crowd, plan, subject, &progress);
        progress.is_over.store(true, Relaxed);
        let panicked = |_| io::Error::other("a thread panicked");
        let sent = sending.join().map_err(panicked)?;
        let heard = listening.join().map_err(panicked)??;
        Ok(Measured { sent, heard, watched: watched? })
    })
}

fn watch(
    crowd: &Crowd,
    plan: &Plan,
    subject: &mut Subject,
    progress: &Progress,
) -> io::Result<Watched> {
    let bar = progress_bar("registering", crowd.size.into(), "clients");
    loop {
        let registered = progress.registered.load(Relaxed);
        bar.set_position(registered.into());
        if registered == crowd.size {
            break;
        }
        subject.check()?;
        thread::sleep(Duration::from_millis(50));
    }
    drop(bar);
    let bar = progress_bar("settling", SETTLING.as_secs(), "s");
    thread::sleep(SETTLING);
    drop(bar);

    let bar = progress_bar("measuring", plan.length.as_secs(), "s");
    let start = Instant::now();
    let starting_at = clock::wall();
    progress.start.store(starting_at.as_nanos(), Relaxed);
    progress.end.store((starting_at + plan.length).as_nanos(), Relaxed);
    let before = subject.usage()?;
    let to_the_rest_before = crowd.pings_to_the_rest()?;
    while let Some(left) = plan.length.checked_sub(start.elapsed()) {
        bar.set_position(start.elapsed().as_secs());
        if plan.halve_after.is_some_and(|time| start.elapsed() >= time)
            && progress.left_at.load(Relaxed) == u64::MAX
        {
            progress.left_at.store(clock::wall().as_nanos(), Relaxed);
        }
        subject.check()?;
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    let time = start.elapsed();
    let after = subject.usage()?;
    let pings_to_the_rest = crowd.pings_to_the_rest()?.wrapping_sub(to_the_rest_before);
    thread::sleep(READING);
    drop(bar);
    Ok(Watched {
        time,
        pings_to_the_rest,
        usage: before
            .zip(after)
            .map(|(before, after)| Usage { cpu: after.cpu.saturating_sub(before.cpu), ..after }),
        daemon_drops: subject.drops()?,
        own_drops: crowd.drops()?,
    })
}

/// Shows how far a phase is, if standard error is a terminal, until it is dropped.
fn progress_bar(phase: &str, length: u64, unit: &str) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(4);
    let bar = ProgressBar::with_draw_target(Some(length), target);
    let template = format!("{phase:11} {{wide_bar}} {{human_pos}} of {{human_len}} {unit}");
    let style = ProgressStyle::with_template(&template);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.tick();
    bar
}
