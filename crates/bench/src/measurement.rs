//! One measurement: all clients register, the pings settle, and then each ping is measured.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use wakeupd::clock;

use crate::crowd::Crowd;
use crate::heartbeats::{self, Sent};
use crate::pings::{self, Heard};
use crate::plan::{Plan, Progress};
use crate::processes::Usage;
use crate::subject::{Restarted, Subject};

/// How long to wait at the end, so that the bench can read the pings that arrived during the measurement.
const READING: Duration = Duration::from_millis(500);

/// The interval at which counters that wrap at 2³² are read.
const COUNTING: Duration = Duration::from_secs(60);

/// The result of a measurement.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) sent: Sent,
    pub(crate) heard: Heard,
    pub(crate) watched: Watched,
}

/// The kernel's figures for the measurement.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The length of the measurement.
    pub(crate) time: Duration,
    /// Pings to the clients that are not measured.
    pub(crate) pings_to_the_rest: u64,
    /// The daemon's processor time during the measurement and its memory at the end. `None` with `--target`.
    pub(crate) usage: Option<Usage>,
    /// Datagrams dropped at a full receive buffer since the daemon started.
    pub(crate) daemon_drops: Option<u64>,
    pub(crate) own_drops: u64,
    pub(crate) restarted: Option<Restarted>,
    /// The daemon's resident memory after [`Plan::first_memory`], in bytes.
    pub(crate) first_resident: Option<u64>,
}

/// Runs one measurement.
pub(crate) fn run(crowd: &Crowd, plan: &Plan, subject: &mut Subject) -> io::Result<Measured> {
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
        let panicked = |name| io::Error::other(format!("the {name} thread panicked"));
        let sent = sending.join().map_err(|_| panicked("sending"))?;
        let heard = listening.join().map_err(|_| panicked("receiving"))??;
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

/// Sums up a kernel counter that may wrap at 2³².
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

/// Shows the progress of a phase until the bar is dropped, if standard error is a terminal.
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
    fn a_counter_survives_a_32_bit_wraparound() {
        let mut counter = Counter::new(u64::from(u32::MAX) - 9);
        counter.add(5);
        counter.add(20);
        assert_eq!(counter.sum, 30);
    }
}
