//! How many slots a second has, and how many workers serve them.
//!
//! A slot is a point of the second at which a worker wakes up and sends pings. With many clients, each shard has a slot
//! of its own, and the workers take turns. With few clients, neighbouring shards share a slot, and one worker serves
//! all slots: the fewer wake-ups, the less CPU time a ping takes.
//!
//! The layout changes only from one second to the next, so each client gets exactly one ping in each second. More slots
//! move phases only back, so that the first ping of a new client never comes late. Fewer slots move them forward, and
//! their number only halves, so a phase moves by at most 1/16 s, half the length of the longest slot.

use std::sync::{Mutex, MutexGuard, PoisonError};

use wakeupd_protocol::PERIOD;

use crate::clock::Time;

/// The smallest number of slots in a second.
const MIN_SLOTS: usize = 8;

/// The load that slots and workers can bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// If the slots have fewer clients than this on average, their number halves.
    pub min_clients_per_slot: usize,
    /// If the slots have more clients than this on average, their number doubles until they have not.
    pub max_clients_per_slot: usize,
    /// The number of clients for which one worker suffices.
    pub clients_per_worker: usize,
}

impl Default for Load {
    /// About 512 pings in a slot take 2 to 3 ms. Even a worker that takes 16 µs for a ping is busy for only a quarter
    /// of the time.
    fn default() -> Self {
        Self { min_clients_per_slot: 256, max_clients_per_slot: 768, clients_per_worker: 16_384 }
    }
}

/// The layout of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The number of slots: a power of two, at most one slot for each shard.
    pub slots: usize,
    /// The number of workers that serve them. Worker *w* of *n* serves the slots *i ≡ w (mod n)*.
    pub workers: usize,
}

impl Layout {
    /// The layout of the second after one with this layout.
    fn next(self, clients: usize, limits: &Limits) -> Self {
        let load = limits.load;
        let slots = if clients < self.slots * load.min_clients_per_slot {
            self.slots / 2
        } else {
            let slots = clients.div_ceil(load.max_clients_per_slot).next_power_of_two();
            slots.max(self.slots)
        };
        let wanted = limits.workers_for(clients);
        // A worker keeps its slots until a quarter of its clients has gone.
        let kept = self.workers.min(limits.workers_for(clients + load.clients_per_worker / 4));
        Self { slots: limits.clamp(slots), workers: wanted.max(kept) }
    }
}

/// The limits on a layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The largest number of slots.
    pub(super) slots: usize,
    /// The largest number of workers.
    pub(super) workers: usize,
    pub(super) load: Load,
}

impl Limits {
    /// The number of workers that `clients` clients need.
    fn workers_for(&self, clients: usize) -> usize {
        clients.div_ceil(self.load.clients_per_worker).clamp(1, self.workers)
    }

    fn clamp(&self, slots: usize) -> usize {
        slots.clamp(MIN_SLOTS.min(self.slots), self.slots)
    }

    /// The layout for `clients` clients if there was no layout before.
    fn first(&self, clients: usize) -> Layout {
        Layout { slots: self.clamp(0), workers: 1 }.next(clients, self)
    }
}

/// The layouts of the present second and the one before. All workers use the same layout for the same second, so no
/// client is pinged twice or left out.
#[derive(Debug)]
pub(super) struct Layouts {
    limits: Limits,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The latest second with a layout.
    second: Time,
    layout: Layout,
    before: Layout,
}

impl Layouts {
    /// The layouts from `second` on, for a table without clients.
    pub(super) fn new(limits: Limits, second: Time) -> Self {
        let layout = limits.first(0);
        Self { limits, known: Mutex::new(Known { second, layout, before: layout }) }
    }

    /// Begins again at `second` with the layout for `clients` clients, but with the number of `slots` if it is given.
    /// Returns that layout.
    pub(super) fn restart(&self, second: Time, clients: usize, slots: Option<u16>) -> Layout {
        let mut layout = self.limits.first(clients);
        if let Some(slots) = slots.filter(|slots| slots.is_power_of_two()) {
            layout.slots = self.limits.clamp(slots.into());
        }
        *self.known() = Known { second, layout, before: layout };
        layout
    }

    /// The layout of `second`, a whole second. The first call for a second determines its layout for good, from the
    /// number of clients at that time.
    pub(super) fn of(&self, second: Time, clients: usize) -> Layout {
        let mut known = self.known();
        if second < known.second {
            return known.before;
        }
        while known.second < second {
            known.before = known.layout;
            known.layout = known.layout.next(clients, &self.limits);
            let is_stable = known.layout == known.before;
            known.second = if is_stable { second } else { known.second + PERIOD };
        }
        known.layout
    }

    /// The number of workers that `clients` clients need.
    pub(super) fn workers_for(&self, clients: usize) -> usize {
        self.limits.workers_for(clients)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LOAD: Load =
        Load { min_clients_per_slot: 16, max_clients_per_slot: 48, clients_per_worker: 65_536 };
    const LIMITS: Limits = Limits { slots: 256, workers: 10, load: LOAD };
    const START: Time = Time::from_secs(5);

    #[test]
    fn the_number_of_slots_follows_the_number_of_clients() {
        for (clients, slots, workers) in [
            (0, 8, 1),
            (1, 8, 1),
            (384, 8, 1),
            (385, 16, 1),
            (1_000, 32, 1),
            (6_144, 128, 1),
            (6_145, 256, 1),
            (65_536, 256, 1),
            (65_537, 256, 2),
            (1_000_000, 256, 10),
        ] {
            assert_eq!(LIMITS.first(clients), Layout { slots, workers }, "{clients}");
        }
    }

    #[test]
    fn slots_become_more_at_once_and_halve_once_a_second() {
        let layouts = Layouts::new(LIMITS, START);
        let mut slots = Vec::new();
        for (second, clients) in [(1, 1_000_000), (2, 500_000), (3, 0), (4, 0), (5, 0)] {
            slots.push(layouts.of(START + Duration::from_secs(second), clients).slots);
        }
        assert_eq!(slots, [256, 256, 128, 64, 32]);
    }

    #[test]
    fn a_change_of_clients_by_half_changes_nothing() {
        for clients in (0..200_000).step_by(97) {
            let layout = LIMITS.first(clients);
            assert_eq!(layout.next(clients, &LIMITS), layout);
            // What was just doubled is not halved at once, and the other way round.
            for other in [clients + clients / 8, clients - clients / 8] {
                let next = layout.next(other, &LIMITS);
                assert_eq!(next.next(clients, &LIMITS).slots, next.slots, "{clients} {other}");
            }
        }
    }

    #[test]
    fn all_workers_see_the_same_layout_of_a_second() {
        let layouts = Layouts::new(LIMITS, START);
        let [one, two] = [1, 2].map(|second| START + Duration::from_secs(second));
        let first = layouts.of(one, 100_000);
        assert_eq!(layouts.of(one, 0), first);
        let second = layouts.of(two, 1_000);
        assert_eq!((layouts.of(one, 0), layouts.of(two, 0)), (first, second));
        assert_ne!(first, second);
    }

    #[test]
    fn a_long_pause_brings_the_layout_that_suits_the_clients() {
        let layouts = Layouts::new(LIMITS, START);
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(layouts.of(START + year, 500), LIMITS.first(500));
        layouts.restart(START, 500, Some(128));
        assert_eq!(layouts.of(START, 500).slots, 128);
        for unusable in [0, 1, 3, 512] {
            layouts.restart(START, 500, Some(unusable));
            assert!((8..=256).contains(&layouts.of(START, 500).slots));
        }
    }

    #[test]
    fn a_registry_with_few_shards_has_few_slots() {
        let limits = Limits { slots: 4, ..LIMITS };
        for clients in [0, 1_000_000] {
            assert_eq!(limits.first(clients).slots, 4);
        }
    }
}
