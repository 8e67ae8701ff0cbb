//! One measurement: everybody registers, the beat settles, and then each ping counts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::churn::Churn;
use super::crowd::Crowd;
use super::heartbeats::{self, Sent};
use super::pings::{self, Heard};
use super::processes::Usage;
use super::restart::Restart;
use super::subject::{Restarted, Subject};
use crate::clock;

/// From the last first heartbeat to the first ping that counts: everybody has been pinged by then.
const SETTLING: Duration = Duration::from_secs(2);

/// How long pings that arrived in time may wait to be read.
const READING: Duration = Duration::from_millis(500);

/// A longer measurement has a timeline of at most so many steps.
const STEPS: u64 = 3_600;

/// After a tenth of the measurement, but no later, the daemon's memory is what it shall be at the end.
const FIRST_MEMORY: Duration = Duration::from_secs(60);

/// What is counted modulo 2³² is looked at so often.
const COUNTING: Duration = Duration::from_secs(60);

/// What the crowd does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) heartbeat_every: Duration,
    pub(super) register_in: Duration,
    pub(super) length: Duration,
    pub(super) halve_after: Option<Duration>,
    pub(super) restart: Option<Restart>,
    pub(super) churn: Option<Churn>,
}

impl Plan {
    /// Whether the client in the nth of the measured places, and those who follow it, fall silent half-way.
    pub(super) fn leaves(&self, n: u32) -> bool {
        self.halve_after.is_some() && n % 2 == 1
    }

    /// How much time a step of the timeline is.
    pub(super) fn timeline_step(&self) -> Duration {
        Duration::from_secs(self.length.as_secs().div_ceil(STEPS).max(1))
    }

    /// With churn as many expire as leave when it is over.
    fn settling(&self) -> Duration {
        SETTLING + self.churn.map_or(Duration::ZERO, |churn| churn.expiration)
    }

    /// After which time the memory is looked at first.
    pub(super) fn first_memory(&self) -> Duration {
        (self.length / 10).min(FIRST_MEMORY)
    }
}

/// What the threads of a measurement tell each other. Times are by the wall clock.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) registered: AtomicU32,
    pub(super) start: AtomicU64,
    pub(super) end: AtomicU64,
    /// When half of the clients fell silent.
    pub(super) left_at: AtomicU64,
    /// When the daemon had ended that is restarted.
    pub(super) ended_at: AtomicU64,
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
    pub(super) restarted: Option<Restarted>,
    /// The memory, in bytes, after [`Plan::first_memory`].
    pub(super) first_resident: Option<u64>,
}

/// Measures.
pub(super) fn run(crowd: &Crowd, plan: &Plan, subject: &mut Subject) -> io::Result<Measured> {
    let never = || AtomicU64::new(u64::MAX);
    let progress = Progress {
        registered: AtomicU32::new(0),
        start: never(),
        end: never(),
        left_at: never(),
        ended_at: never(),
        is_over: AtomicBool::new(false),
    };
    let (tells, events) = mpsc::channel();
    thread::scope(|scope| {
        let progress = &progress;
        let listening = scope.spawn(move || pings::listen(crowd, plan, progress, &events));
        let sending = scope.spawn(move || heartbeats::send(crowd, plan, progress, &tells));
        let watched = watch(crowd, plan, subject, progress);
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
    let bar = progress_bar("settling", plan.settling().as_secs(), "s");
    let settling = Instant::now();
    while let Some(left) = plan.settling().checked_sub(settling.elapsed()) {
        bar.set_position(settling.elapsed().as_secs());
        subject.check()?;
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    drop(bar);

    let bar = progress_bar("measuring", plan.length.as_secs(), "s");
    let start = Instant::now();
    let starting_at = clock::wall();
    progress.start.store(starting_at.as_nanos(), Relaxed);
    progress.end.store((starting_at + plan.length).as_nanos(), Relaxed);
    let before = subject.usage()?;
    let mut to_the_rest = Counter::new(crowd.pings_to_the_rest()?);
    let mut restarted = None;
    let mut first_resident = None;
    while let Some(left) = plan.length.checked_sub(start.elapsed()) {
        bar.set_position(start.elapsed().as_secs());
        if plan.halve_after.is_some_and(|time| start.elapsed() >= time)
            && progress.left_at.load(Relaxed) == u64::MAX
        {
            progress.left_at.store(clock::wall().as_nanos(), Relaxed);
        }
        subject.check()?;
        if let Some(restart) = plan.restart
            && restarted.is_none()
            && start.elapsed() >= plan.length / 2
        {
            let ended = || progress.ended_at.store(clock::wall().as_nanos(), Relaxed);
            restarted = Some(subject.restart(restart, ended)?);
        }
        if first_resident.is_none() && start.elapsed() >= plan.first_memory() {
            first_resident = subject.usage()?.map(|usage| usage.resident);
        }
        if to_the_rest.at.elapsed() >= COUNTING {
            to_the_rest.add(crowd.pings_to_the_rest()?);
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    let time = start.elapsed();
    let after = subject.usage()?;
    to_the_rest.add(crowd.pings_to_the_rest()?);
    thread::sleep(READING);
    drop(bar);
    Ok(Watched {
        time,
        pings_to_the_rest: to_the_rest.sum,
        usage: before
            .zip(after)
            .map(|(before, after)| Usage { cpu: after.cpu.saturating_sub(before.cpu), ..after }),
        daemon_drops: subject.drops()?,
        own_drops: crowd.drops()?,
        restarted,
        first_resident,
    })
}

/// Sums up what the kernel may count modulo 2³².
struct Counter {
    sum: u64,
    last: u64,
    at: Instant,
}

impl Counter {
    fn new(count: u64) -> Self {
        Self { sum: 0, last: count, at: Instant::now() }
    }

    fn add(&mut self, count: u64) {
        self.sum += count.wrapping_sub(self.last) & u64::from(u32::MAX);
        self.last = count;
        self.at = Instant::now();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_may_begin_again() {
        let mut counter = Counter::new(u64::from(u32::MAX) - 9);
        counter.add(5);
        counter.add(20);
        assert_eq!(counter.sum, 30);
    }

    #[test]
    fn a_timeline_grows_to_a_length_and_no_further() {
        for (length, step) in [(1, 1), (3_600, 1), (3_601, 2), (72 * 3_600, 72)] {
            let plan = Plan {
                heartbeat_every: Duration::from_secs(1),
                register_in: Duration::from_secs(1),
                length: Duration::from_secs(length),
                halve_after: None,
                restart: None,
                churn: None,
            };
            assert_eq!(plan.timeline_step(), Duration::from_secs(step), "{length}");
        }
    }
}
