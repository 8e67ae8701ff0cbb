//! Clients that leave, and others that come in their places.

use std::time::Duration;

use fastrand::Rng;

use wakeupd::clock::Time;

/// How much longer than until it expires a client keeps its address, so that all is known of it when
/// another gets that.
pub(crate) const REST: Duration = Duration::from_secs(5);

/// What a ping may take on its way through the kernel after its client's time was over, and the
/// heartbeat before it.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(50);

/// So often somebody is looked for who may leave.
const TRIES: u32 = 64;

/// How a crowd changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Churn {
    /// The share of the crowd that leaves in a second, and that comes.
    pub(crate) share: f64,
    /// How long the daemon pings who has fallen silent.
    pub(crate) expiration: Duration,
}

impl Churn {
    /// How many clients the daemon has at a time at the most: a crowd and who has left it, but has not
    /// expired.
    pub(crate) fn most_clients(&self, crowd: u32) -> u32 {
        let silent = self.share * (self.expiration.as_secs_f64() + 1.0);
        // What does not fit becomes the largest number.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let clients = (f64::from(crowd) * (1.0 + silent)).ceil() as u32;
        clients
    }

    /// How long each client must stay, if the address of a place's first client is used again after so
    /// many `turns`. None if that is more than half of what they stay on average, so that one who leaves
    /// could not be picked at random.
    pub(crate) fn shortest_stay(&self, turns: u32) -> Option<Duration> {
        let turns_between = turns.checked_sub(1).filter(|turns| *turns > 0)?;
        let stay = (self.expiration + REST) / turns_between;
        (stay.as_secs_f64() * 2.0 <= 1.0 / self.share).then_some(stay)
    }
}

/// Who has the places of a crowd.
#[derive(Debug)]
pub(crate) struct Places {
    occupants: Vec<Occupant>,
    turns: u32,
    shortest_stay: Duration,
    /// How many leave in a second.
    leave: f64,
    /// Up to when those who were to leave have left.
    left_until: Option<Time>,
    /// How many are to leave still, mostly a part of one.
    due: f64,
    random: Rng,
}

#[derive(Clone, Copy, Debug, Default)]
struct Occupant {
    turn: u32,
    since: Time,
    last_heartbeat: Time,
}

/// One who falls silent, and who has the place from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) place: u32,
    pub(crate) left: u32,
    pub(crate) last_heartbeat: Time,
    pub(crate) came: u32,
}

impl Places {
    /// Places that are all taken by their first clients from `now` on.
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

    /// Remembers when the client in a place sent a heartbeat.
    pub(crate) fn heartbeat(&mut self, place: u32, at: Time) {
        self.occupants[place as usize].last_heartbeat = at;
    }

    /// Replaces, at random, those who are to leave between the last time and `now`. With the first time
    /// the leaving begins.
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
    fn the_daemon_has_those_too_who_have_not_expired() {
        assert_eq!(churn(0.1).most_clients(100_000), 210_000);
        assert_eq!(churn(1.0).most_clients(1), 12);
        assert_eq!(churn(1.0).most_clients(u32::MAX), u32::MAX);
    }

    #[test]
    fn what_does_not_fit_is_known_beforehand() {
        assert_eq!(churn(0.1).shortest_stay(0), None);
        assert_eq!(churn(0.1).shortest_stay(1), None);
        assert_eq!(churn(0.1).shortest_stay(3), None, "7.5 s of 10 s");
        assert_eq!(churn(0.1).shortest_stay(4), Some(Duration::from_secs(5)));
        assert_eq!(churn(0.1).shortest_stay(151), Some(Duration::from_millis(100)));
    }

    #[test]
    fn as_many_leave_as_shall_and_nobody_has_an_address_too_soon() {
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
        // Nobody leaves in the first 3 s.
        assert!((480..=485).contains(&changes), "{changes}");
        assert!(left_at.len() < changes as usize, "addresses were used again");
    }
}
