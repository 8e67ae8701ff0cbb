//! Heartbeats that waited in the socket for longer than a client lives.

use std::ops::Range;
use std::time::Duration;

use crate::clock::Time;

/// Finds the waiting heartbeats that are too old to count.
///
/// Their age follows from the kernel's timestamps, which come from the wall clock. An administrator can set
/// that clock, so timestamps matter only if, by the boot clock, the listener did not drain the socket for
/// longer than a client lives.
#[derive(Debug)]
pub struct Backlog {
    expiration: Duration,
    /// Everything that arrived before was received.
    drained_until: Time,
}

impl Backlog {
    /// The backlog of a socket that was empty at `drained_until`, for clients that live for `expiration`.
    #[must_use]
    pub const fn new(expiration: Duration, drained_until: Time) -> Self {
        Self { expiration, drained_until }
    }

    /// Records that everything that arrived before `time` was received.
    pub fn drained_until(&mut self, time: Time) {
        self.drained_until = time;
    }

    /// The times of arrival that are too old at `now`, when the wall clock shows `wall`.
    pub fn stale(&self, now: Time, wall: impl FnOnce() -> Time) -> Stale {
        let longest_wait = now.since(self.drained_until);
        if longest_wait <= self.expiration {
            return Stale::default();
        }
        let wall = wall();
        // An older timestamp means that the wall clock was set, so the age is unknown. The extra 64th allows
        // for a slewed clock.
        let oldest = longest_wait + longest_wait / 64;
        Stale(wall.before(oldest)..wall.before(self.expiration))
    }
}

/// Times of arrival, by the wall clock, that make a heartbeat too old.
#[derive(Clone, Debug, Default)]
pub struct Stale(Range<Time>);

impl Stale {
    /// Whether a heartbeat is too old that arrived so long after 1970. One without a timestamp is not.
    #[must_use]
    pub fn covers(&self, arrived: Option<Duration>) -> bool {
        !self.0.is_empty()
            && arrived.is_some_and(|arrived| self.0.contains(&(Time::default() + arrived)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION: Duration = Duration::from_secs(120);

    /// The ages in seconds, of those given, that are too old after the socket was left alone for `wait`.
    fn stale<const N: usize>(wait: u32, ages: [i64; N]) -> Vec<i64> {
        let (drained, wall) = (Time::from_secs(1_000), 1_800_000_000_u32);
        let backlog = Backlog::new(EXPIRATION, drained);
        let now = drained + Duration::from_secs(wait.into());
        let stale = backlog.stale(now, || Time::from_secs(wall));
        let arrived = |age: i64| Duration::from_secs((i64::from(wall) - age).cast_unsigned());
        ages.into_iter().filter(|age| stale.covers(Some(arrived(*age)))).collect()
    }

    #[test]
    fn a_heartbeat_is_stale_that_waited_for_longer_than_a_client_lives() {
        assert_eq!(stale(300, [-5, 0, 119, 120, 121, 299, 300, 304]), [121, 299, 300, 304]);
    }

    #[test]
    fn where_the_socket_was_drained_in_time_the_wall_clock_does_not_matter() {
        assert!(stale(120, [0, 121, 86_400]).is_empty());
        let backlog = Backlog::new(EXPIRATION, Time::from_secs(1_000));
        let unread = || -> Time { panic!("the wall clock is read") };
        assert!(!backlog.stale(Time::from_secs(1_120), unread).covers(Some(Duration::ZERO)));
    }

    #[test]
    fn a_wait_that_is_not_possible_tells_nothing() {
        assert!(stale(300, [305, 86_400]).is_empty());
        let backlog = Backlog::new(EXPIRATION, Time::default());
        let stale = backlog.stale(Time::from_secs(1_000), || Time::from_secs(1_800_000_000));
        assert!(!stale.covers(None), "a datagram without a timestamp");
    }

    #[test]
    fn a_drained_socket_has_nothing_stale() {
        let mut backlog = Backlog::new(EXPIRATION, Time::default());
        let now = Time::from_secs(1_000);
        let is_stale = |backlog: &Backlog| {
            let stale = backlog.stale(now, || Time::from_secs(1_800_000_000));
            stale.covers(Some(Duration::from_secs(1_799_999_500)))
        };
        assert!(is_stale(&backlog));
        backlog.drained_until(now);
        assert!(!is_stale(&backlog));
    }
}
