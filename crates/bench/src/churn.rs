//! Clients that leave, and new ones that take their places.

use std::time::Duration;

use fastrand::Rng;

use wakeupd::clock::Time;

/// How long a client's address stays unused after the client expires. In this time the bench counts the
/// client's last pings, so none of these pings is attributed to the next client at the address.
pub(crate) const REST: Duration = Duration::from_secs(5);

/// The time that the kernel can take to deliver a client's last heartbeat and the last ping before the client
/// expires.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(50);

/// The maximum number of random picks to find a client that has stayed long enough to leave.
const TRIES: u32 = 64;

/// How fast the crowd changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Churn {
    /// The share of the crowd that leaves each second; as many new clients register.
    pub(crate) share: f64,
    /// How long the daemon pings a client after its last heartbeat.
    pub(crate) expiration: Duration,
}

impl Churn {
    /// The maximum number of clients that the daemon holds at a time: the crowd, and the clients that have
    /// left but not expired.
    pub(crate) fn most_clients(&self, crowd: u32) -> u32 {
        let silent = self.share * (self.expiration.as_secs_f64() + 1.0);
        // The cast saturates at `u32::MAX`.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let clients = (f64::from(crowd) * (1.0 + silent)).ceil() as u32;
        clients
    }

    /// How long each client must stay if each place has addresses for this many `turns`. `None` if this time
    /// is more than half of the average stay: the clients that leave could then not be picked at random.
    pub(crate) fn shortest_stay(&self, turns: u32) -> Option<Duration> {
        let turns_between = turns.checked_sub(1).filter(|turns| *turns > 0)?;
        let stay = (self.expiration + REST) / turns_between;
        (stay.as_secs_f64() * 2.0 <= 1.0 / self.share).then_some(stay)
    }
}

/// The client that occupies each place of the crowd.
#[derive(Debug)]
pub(crate) struct Places {
    occupants: Vec<Occupant>,
    turns: u32,
    shortest_stay: Duration,
    /// Clients that leave each second.
    leave: f64,
    /// The time up to which the leavers have been replaced.
    left_until: Option<Time>,
    /// Clients still due to leave. Usually a fraction of one client.
    due: f64,
    random: Rng,
}

#[derive(Clone, Copy, Debug, Default)]
struct Occupant {
    turn: u32,
    since: Time,
    last_heartbeat: Time,
}

/// A client falls silent, and another client takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) place: u32,
    pub(crate) left: u32,
    pub(crate) last_heartbeat: Time,
    pub(crate) came: u32,
}

impl Places {
    /// Fills every place with its first client at `now`.
    pub(crate) fn new(churn: Churn, crowd: u32, turns: u32, now: Time, random: Rng) -> Self {
        let occupant = Occupant { since: now, ..Occupant::default() };
        Self {
            occupants: vec![occupant; crowd as usize],
            turns,
            shortest_stay: churn.shortest_stay(turns).unwrap_or_default(),
            leave: f64::from(crowd) * churn.share,
            left_until: None,
            due: 0.0,
            random,
        }
    }

    /// The number of the client in a place.
    pub(crate) fn client(&self, place: u32) -> u32 {
        place + self.occupants[place as usize].turn * self.size()
    }

    /// Records when the client in a place sent its last heartbeat.
    pub(crate) fn heartbeat(&mut self, place: u32, at: Time) {
        self.occupants[place as usize].last_heartbeat = at;
    }

    /// Picks clients at random, as many as were due to leave since the last call, and replaces them. The
    /// first call starts the churn and replaces no client.
    pub(crate) fn change(&mut self, now: Time) -> Vec<Change> {
        let since = self.left_until.replace(now).unwrap_or(now);
        self.due += self.leave * now.since(since).as_secs_f64();
        let mut changes = Vec::new();
        while self.due >= 1.0 {
            self.due -= 1.0;
            changes.extend(self.pick(now).map(|place| self.replace(place, now)));
        }
        changes
    }

    fn size(&self) -> u32 {
        u32::try_from(self.occupants.len()).unwrap_or(u32::MAX)
    }

    fn pick(&mut self, now: Time) -> Option<u32> {
        (0..TRIES).find_map(|_| {
            let place = self.random.u32(0..self.size());
            let stay = now.since(self.occupants[place as usize].since);
            (stay >= self.shortest_stay).then_some(place)
        })
    }

    fn replace(&mut self, place: u32, now: Time) -> Change {
        let left = self.client(place);
        let occupant = &mut self.occupants[place as usize];
        let last_heartbeat = occupant.last_heartbeat;
        let turn = (occupant.turn + 1) % self.turns;
        *occupant = Occupant { turn, since: now, last_heartbeat: now };
        Change { place, left, last_heartbeat, came: self.client(place) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const EXPIRATION: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Time {
        Time::from_nanos(1 << 40) + Duration::from_millis(ms)
    }

    fn churn(share: f64) -> Churn {
        Churn { share, expiration: EXPIRATION }
    }

    #[test]
    fn most_clients_includes_departed_clients_that_have_not_expired() {
        assert_eq!(churn(0.1).most_clients(100_000), 210_000);
        assert_eq!(churn(1.0).most_clients(1), 12);
        assert_eq!(churn(1.0).most_clients(u32::MAX), u32::MAX);
    }

    #[test]
    fn too_few_turns_allow_no_stay() {
        assert_eq!(churn(0.1).shortest_stay(0), None);
        assert_eq!(churn(0.1).shortest_stay(1), None);
        assert_eq!(churn(0.1).shortest_stay(3), None, "7.5 s of 10 s");
        assert_eq!(churn(0.1).shortest_stay(4), Some(Duration::from_secs(5)));
        assert_eq!(churn(0.1).shortest_stay(151), Some(Duration::from_millis(100)));
    }

    #[test]
    fn churn_keeps_its_rate_and_rests_addresses_before_reuse() {
        let (size, turns) = (50, 6);
        let start = at(0);
        let mut places = Places::new(churn(0.1), size, turns, start, Rng::with_seed(1));
        let mut left_at = HashMap::new();
        let mut changes = 0_u32;
        for ms in (0..100_000).step_by(7) {
            for place in 0..size {
                places.heartbeat(place, at(ms));
            }
            for change in places.change(at(ms)) {
                changes += 1;
                assert_eq!(change.last_heartbeat, at(ms));
                assert_eq!((change.left % size, change.came % size), (change.place, change.place));
                assert_eq!(places.client(change.place), change.came);
                assert!(change.came < size * turns && change.came != change.left);
                left_at.insert(change.left, at(ms));
                if let Some(left) = left_at.get(&change.came) {
                    assert!(at(ms).since(*left) >= EXPIRATION + REST, "{change:?}");
                }
            }
        }
        // No client may leave in the first 3 s.
        assert!((480..=485).contains(&changes), "{changes}");
        assert!(left_at.len() < changes as usize, "addresses were used again");
    }
}
