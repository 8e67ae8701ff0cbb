//! Sends each client's heartbeats at their times.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{mem, thread};

use super::crowd::Crowd;
use super::run::{Plan, Progress};
use crate::clock;

/// The time between two heartbeats of a client deviates by up to this share of it.
pub(super) const JITTER: f64 = 0.2;

/// The calendar has a page for each tick.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
const PAGES: u32 = 60_000;

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) heartbeats: u64,
    /// Heartbeats that the kernel did not take.
    pub(super) failed: u64,
    /// How long it took until each client had sent one.
    pub(super) registered_in: Duration,
    /// How late the latest heartbeat was after that.
    pub(super) worst_lateness: Duration,
}

/// Sends heartbeats until told to stop. The first of each client are spread over the time in which
/// all shall register, the later ones by `heartbeat_every`.
pub(super) fn send(crowd: &Crowd, plan: &Plan, progress: &Progress) -> Sent {
    let longest = plan.heartbeat_every.mul_f64(1.0 + JITTER).max(plan.register_in);
    let tick = (longest / PAGES).max(SHORTEST_TICK);
    let ticks = |time: Duration| usize::try_from(time.as_nanos() / tick.as_nanos()).unwrap_or(0);
    // Which clients' turn it is, in a circle.
    let mut calendar = vec![Vec::new(); ticks(longest) + 2];
    for client in 0..crowd.size {
        calendar[ticks(plan.register_in * client / crowd.size)].push(client);
    }
    let mut random = fastrand::Rng::new();
    let mut sent = Sent::default();
    let mut registered = 0;
    let start = Instant::now();
    let mut due = start;
    for page in (0..calendar.len()).cycle() {
        if progress.is_over.load(Relaxed) {
            break;
        }
        match due.checked_duration_since(Instant::now()) {
            Some(early) => thread::sleep(early),
            None if registered == crowd.size => {
                sent.worst_lateness = sent.worst_lateness.max(due.elapsed());
            }
            None => {}
        }
        let leavers_are_gone = progress.left_at.load(Relaxed) != u64::MAX;
        for client in mem::take(&mut calendar[page]) {
            if leavers_are_gone && plan.leaves((client / crowd.measured_every) as usize) {
                continue;
            }
            if registered < crowd.size {
                if let Some(position) = crowd.position(client) {
                    progress.registered_at[position].store(clock::wall().as_nanos(), Relaxed);
                }
                registered += 1;
                progress.registered.store(registered, Relaxed);
                if registered == crowd.size {
                    sent.registered_in = start.elapsed();
                    // Those who had to wait to register need not hurry now.
                    due = due.max(Instant::now());
                }
            }
            sent.heartbeats += 1;
            sent.failed += u64::from(crowd.heartbeat(client).is_err());
            let jitter = 1.0 + JITTER * (2.0 * random.f64() - 1.0);
            let next = page + ticks(plan.heartbeat_every.mul_f64(jitter)).max(1);
            let next = next % calendar.len();
            calendar[next].push(client);
        }
        due += tick;
    }
    sent
}
