//! Sends each client's heartbeats at their times.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{mem, thread};

use fastrand::Rng;

use wakeupd::clock;

use crate::churn::{Change, Places};
use crate::crowd::Crowd;
use crate::pings::Event;
use crate::plan::{Plan, Progress};

/// The time between two heartbeats of a client deviates by up to this share of it.
pub(crate) const JITTER: f64 = 0.2;

/// The calendar has a page for each tick.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
const PAGES: u32 = 60_000;

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) heartbeats: u64,
    /// Heartbeats that the kernel did not take.
    pub(crate) failed: u64,
    /// How long it took until each place had a client.
    pub(crate) registered_in: Duration,
    /// How late the latest heartbeat was after that.
    pub(crate) worst_lateness: Duration,
    /// How many clients left, and came in their places.
    pub(crate) changes: u64,
}

/// Sends heartbeats until told to stop, and tells of the measured clients who come and leave. The first
/// heartbeats are spread over the time in which all shall register, the later ones by `heartbeat_every`.
pub(crate) fn send(
    crowd: &Crowd,
    plan: &Plan,
    progress: &Progress,
    events: &mpsc::Sender<Event>,
) -> Sent {
    let longest = plan.heartbeat_every.mul_f64(1.0 + JITTER).max(plan.register_in);
    let tick = (longest / PAGES).max(SHORTEST_TICK);
    let ticks = |time: Duration| usize::try_from(time.as_nanos() / tick.as_nanos()).unwrap_or(0);
    // In which places a heartbeat is due, in a circle.
    let mut calendar = vec![Vec::new(); ticks(longest) + 2];
    for place in 0..crowd.size {
        calendar[ticks(plan.register_in * place / crowd.size)].push(place);
    }
    let mut random = Rng::new();
    let places = plan
        .churn
        .map(|churn| Places::new(churn, crowd.size, crowd.turns, clock::wall(), Rng::new()));
    let mut mouth = Mouth { crowd, events, places, sent: Sent::default() };
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
                mouth.sent.worst_lateness = mouth.sent.worst_lateness.max(due.elapsed());
            }
            None => {}
        }
        let leavers_are_gone = progress.left_at.load(Relaxed) != u64::MAX;
        for place in mem::take(&mut calendar[page]) {
            if leavers_are_gone && plan.leaves(place / crowd.measured_every) {
                continue;
            }
            if registered < crowd.size {
                mouth.introduce(place);
                registered += 1;
                progress.registered.store(registered, Relaxed);
                if registered == crowd.size {
                    mouth.sent.registered_in = start.elapsed();
                    // Those who had to wait to register need not hurry now.
                    due = due.max(Instant::now());
                }
            }
            mouth.heartbeat(place);
            let jitter = 1.0 + JITTER * (2.0 * random.f64() - 1.0);
            let next = page + ticks(plan.heartbeat_every.mul_f64(jitter)).max(1);
            let next = next % calendar.len();
            calendar[next].push(place);
        }
        if registered == crowd.size {
            mouth.change();
        }
        due += tick;
    }
    mouth.sent
}

/// Who speaks for all clients.
struct Mouth<'a> {
    crowd: &'a Crowd,
    events: &'a mpsc::Sender<Event>,
    /// Where clients leave and others come.
    places: Option<Places>,
    sent: Sent,
}

impl Mouth<'_> {
    /// Sends a heartbeat of who is in a place.
    fn heartbeat(&mut self, place: u32) {
        let client = self.places.as_ref().map_or(place, |places| places.client(place));
        self.sent.heartbeats += 1;
        if self.crowd.heartbeat(client).is_err() {
            self.sent.failed += 1;
        } else if let Some(places) = &mut self.places {
            places.heartbeat(place, clock::wall());
        }
    }

    /// Replaces those who leave. Who comes keeps to the times of who left, after a first heartbeat.
    fn change(&mut self) {
        let changes = self.places.as_mut().map(|places| places.change(clock::wall()));
        for change in changes.into_iter().flatten() {
            self.sent.changes += 1;
            if self.crowd.position(change.left).is_some() {
                let Change { left: client, last_heartbeat, .. } = change;
                self.tell(Event::Left { client, last_heartbeat });
            }
            self.introduce(change.came);
            self.heartbeat(change.place);
        }
    }

    /// Tells of a client whose first heartbeat is about to be sent.
    fn introduce(&self, client: u32) {
        if self.crowd.position(client).is_some() {
            self.tell(Event::Came { client, at: clock::wall() });
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more if listening failed, and that is told.
        let _ = self.events.send(event);
    }
}
