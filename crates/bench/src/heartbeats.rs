//! Sends the heartbeats of all clients on schedule.

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

/// The interval between two heartbeats varies at random by up to this share in either direction.
pub(crate) const JITTER: f64 = 0.2;

/// The calendar has one page per tick.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
const PAGES: u32 = 60_000;

/// The result of sending the heartbeats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) heartbeats: u64,
    /// Heartbeats for which the send call failed.
    pub(crate) failed: u64,
    /// Time until every client had sent its first heartbeat.
    pub(crate) registered_in: Duration,
    /// The largest delay of a heartbeat after all clients had registered.
    pub(crate) worst_lateness: Duration,
    /// Clients that left. The same number of new clients took their places.
    pub(crate) changes: u64,
}

/// Sends heartbeats until [`Progress::is_over`] is set, and reports the measured clients that register and
/// leave. The first heartbeats are spread over [`Plan::register_in`], the later ones over
/// [`Plan::heartbeat_every`].
pub(crate) fn send(
    crowd: &Crowd,
    plan: &Plan,
    progress: &Progress,
    events: &mpsc::Sender<Event>,
) -> Sent {
    let longest = plan.heartbeat_every.mul_f64(1.0 + JITTER).max(plan.register_in);
    let tick = (longest / PAGES).max(SHORTEST_TICK);
    let ticks = |time: Duration| usize::try_from(time.as_nanos() / tick.as_nanos()).unwrap_or(0);
    // A circular list of pages. Each holds the places with a heartbeat due in that tick.
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
                    // Heartbeats delayed by a slow registration are not sent in a burst.
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

/// Sends on behalf of all clients.
struct Mouth<'a> {
    crowd: &'a Crowd,
    events: &'a mpsc::Sender<Event>,
    /// Set if clients leave and others take their places.
    places: Option<Places>,
    sent: Sent,
}

impl Mouth<'_> {
    /// Sends a heartbeat for the client in a place.
    fn heartbeat(&mut self, place: u32) {
        let client = self.places.as_ref().map_or(place, |places| places.client(place));
        self.sent.heartbeats += 1;
        if self.crowd.heartbeat(client).is_err() {
            self.sent.failed += 1;
        } else if let Some(places) = &mut self.places {
            places.heartbeat(place, clock::wall());
        }
    }

    /// Replaces the clients due to leave. A new client sends its first heartbeat at once and then keeps the
    /// schedule of the client that it replaces.
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

    /// Reports a client that is about to send its first heartbeat.
    fn introduce(&self, client: u32) {
        if self.crowd.position(client).is_some() {
            self.tell(Event::Came { client, at: clock::wall() });
        }
    }

    fn tell(&self, event: Event) {
        // The receiver is gone only if listening failed, and the listener returns that error.
        let _ = self.events.send(event);
    }
}
