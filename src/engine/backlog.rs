//! Tracks which heartbeats can still be in the receive buffer.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Time;

/// Tracks how far the receive buffer has been drained, and detects stale heartbeats.
///
/// A heartbeat's age comes from the kernel's timestamp, and so from the wall clock, which an administrator
/// can set. A heartbeat is therefore stale only if, by the boot clock, the listener also left the receive
/// buffer undrained for longer than a client lives.
#[derive(Debug)]
pub(super) struct Backlog {
    expiration: Duration,
    /// Upper bound on the number of datagrams in the receive buffer.
    capacity: usize,
    /// All datagrams that arrived before this time have been received. In nanoseconds.
    drained_until: AtomicU64,
    /// While the buffer is not empty: the start of the drain, and the number of datagrams received since
    /// then.
    draining: Mutex<Option<(Time, usize)>>,
}

impl Backlog {
    pub(super) fn new(expiration: Duration, capacity: usize, drained_until: Time) -> Self {
        let drained_until = drained_until.as_nanos().into();
        Self { expiration, capacity, drained_until, draining: Mutex::default() }
    }

    /// All datagrams that arrived before this time have been received.
    pub(super) fn drained_until(&self) -> Time {
        Time::from_nanos(self.drained_until.load(Acquire))
    }

    /// Records that a receive call at `now` returned `count` datagrams, and whether it left the buffer empty.
    ///
    /// During a flood the buffer is never empty. But once the listener has received more datagrams than the
    /// buffer holds, it has received all that were waiting when the drain began.
    pub(super) fn received(&self, now: Time, count: usize, is_empty: bool) {
        let mut draining = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, before) = draining.unwrap_or((now, 0));
        let received = before + count;
        *draining = if is_empty {
            self.set_drained_until(now);
            None
        } else if received > self.capacity {
            self.set_drained_until(began);
            Some((now, 0))
        } else {
            Some((began, received))
        };
    }

    fn set_drained_until(&self, time: Time) {
        self.drained_until.store(time.as_nanos(), Release);
    }

    /// Whether a heartbeat received at `now` is too old. `waited` is its time in the receive buffer, by the
    /// wall clock.
    pub(super) fn is_stale(&self, now: Time, waited: Duration) -> bool {
        let longest_wait = now.since(self.drained_until());
        // A longer wait means that the wall clock was set, so the age is unknown. The extra 1/64 tolerates a
        // slewed clock.
        longest_wait > self.expiration
            && waited > self.expiration
            && waited <= longest_wait + longest_wait / 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION: Duration = Duration::from_secs(120);
    const START: Time = Time::from_secs(1_000);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn backlog() -> Backlog {
        Backlog::new(EXPIRATION, 100, START)
    }

    #[test]
    fn a_heartbeat_that_waited_longer_than_the_expiration_is_stale() {
        let (backlog, now) = (backlog(), START + secs(300));
        let stale =
            [0, 119, 120, 121, 299, 300, 304].map(|waited| backlog.is_stale(now, secs(waited)));
        assert_eq!(stale, [false, false, false, true, true, true, true]);
    }

    #[test]
    fn timestamps_are_ignored_if_the_buffer_was_drained_in_time() {
        let now = START + EXPIRATION;
        assert!(![0, 121, 86_400].into_iter().any(|waited| backlog().is_stale(now, secs(waited))));
        let (backlog, now) = (backlog(), START + secs(300));
        assert!(backlog.is_stale(now, secs(200)));
        backlog.received(now, 3, true);
        assert!(!backlog.is_stale(now, secs(200)));
    }

    #[test]
    fn an_impossible_wait_is_ignored() {
        let now = START + secs(300);
        assert!(![305, 86_400].into_iter().any(|waited| backlog().is_stale(now, secs(waited))));
    }

    #[test]
    fn a_flood_larger_than_the_buffer_counts_as_draining_it() {
        let backlog = backlog();
        let at = |millis| START + Duration::from_millis(millis);
        for (millis, count, is_empty, expected) in [
            (1, 64, false, START),
            (2, 36, false, START),
            (3, 64, false, at(1)),
            (4, 64, false, at(1)),
            (5, 64, false, at(3)),
            (6, 10, true, at(6)),
            (7, 64, false, at(6)),
        ] {
            backlog.received(at(millis), count, is_empty);
            assert_eq!(backlog.drained_until(), expected, "after {millis} ms");
        }
    }
}
