//! ICMP errors about pings: decides when they mute a client with a closed port, and rate-limits them.
//! `Engine::handle_icmp_error` calls this, and mutes the client in the registry.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Time;

/// The number of reports that mute a client.
const ENOUGH: u8 = 3;

/// The minimum time from the first of these reports to the last.
const LEAST_TIME: Duration = Duration::from_secs(2);

/// The minimum time for which reports about a client are kept.
const MEMORY: Duration = Duration::from_secs(10);

/// The capacity for reports, in seconds of reports at the rate limit. It exceeds [`MEMORY`], so that dropping
/// older reports always makes room.
const SECONDS_REMEMBERED: usize = 16;

/// How long the engine ignores ICMP errors after the rate limit is exceeded.
pub const PAUSE: Duration = Duration::from_secs(60);

/// The clients reported as unreachable, up to a rate limit on the reports.
#[derive(Debug)]
pub(super) struct Unreachable {
    max_per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reports: HashMap<SocketAddr, Reports>,
    second_began: Time,
    errors_in_second: u32,
    paused_until: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Reports {
    count: u8,
    first: Time,
    last_heartbeat: Time,
}

impl Unreachable {
    /// Accepts up to `max_per_second` ICMP errors per second (`MAX_ICMP_ERRORS_PER_SECOND`).
    pub(super) fn new(max_per_second: u32) -> Self {
        Self { max_per_second, state: Mutex::default() }
    }

    /// The rate limit.
    pub(super) fn max_per_second(&self) -> u32 {
        self.max_per_second
    }

    /// Whether ICMP errors are accepted at `now`, with no pause in effect.
    pub(super) fn is_listening(&self, now: Time) -> bool {
        self.state().paused_until.is_none_or(|until| until <= now)
    }

    /// Counts an ICMP error. Returns whether it is within the rate limit. An excess error starts a pause of
    /// [`PAUSE`].
    pub(super) fn spend(&self, now: Time) -> bool {
        let mut state = self.state();
        if state.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        if now.since(state.second_began) >= Duration::from_secs(1) {
            (state.second_began, state.errors_in_second) = (now, 0);
        }
        state.errors_in_second += 1;
        let is_within = state.errors_in_second <= self.max_per_second;
        state.paused_until = (!is_within).then(|| now + PAUSE);
        is_within
    }

    /// Records a report that the port of `client` is closed. The client is live, is not muted, and sent its
    /// last heartbeat at `last_heartbeat`. Returns whether the reports suffice to mute the client.
    ///
    /// A report can be forged, so muting takes three reports over two seconds or more, without a heartbeat in
    /// between.
    pub(super) fn report(&self, client: SocketAddr, last_heartbeat: Time, now: Time) -> bool {
        let capacity = self.max_per_second as usize * SECONDS_REMEMBERED;
        let known = &mut self.state().reports;
        if known.len() >= capacity {
            known.retain(|_, reports| now.since(reports.first) < MEMORY);
        }
        if known.len() >= capacity {
            return false;
        }
        let fresh = Reports { count: 0, first: now, last_heartbeat };
        let reports = known.entry(client).or_insert(fresh);
        if reports.last_heartbeat != last_heartbeat {
            *reports = fresh;
        }
        reports.count = reports.count.saturating_add(1);
        let is_enough = reports.count >= ENOUGH && now.since(reports.first) >= LEAST_TIME;
        if is_enough {
            known.remove(&client);
        }
        is_enough
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 500;
    const START: Time = Time::from_nanos(1 << 40);

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn three_reports_over_two_seconds_mute_a_client() {
        let unreachable = Unreachable::new(MAX);
        let reports = [0, 1, 2, 1_999, 2_000, 2_001, 2_002, 4_001].map(at);
        let believed = reports.map(|now| unreachable.report(client(1), START, now));
        assert_eq!(believed, [false, false, false, false, true, false, false, true]);
        assert!(!unreachable.report(client(2), START, at(0)));
        assert!(!unreachable.report(client(2), START, at(9_000)), "only two");
    }

    #[test]
    fn a_heartbeat_resets_the_reports() {
        let unreachable = Unreachable::new(MAX);
        for second in 0..100 {
            for report in 0..5 {
                let now = at(second * 1_900 + report * 400);
                assert!(!unreachable.report(client(1), at(second * 1_900), now));
            }
        }
    }

    #[test]
    fn remembered_reports_are_bounded_and_expire() {
        let unreachable = Unreachable::new(MAX);
        for port in 0..u16::MAX {
            unreachable.report(client(port), START, at(0));
        }
        assert_eq!(unreachable.state().reports.len(), MAX as usize * SECONDS_REMEMBERED);
        let late = MEMORY.as_millis().try_into().unwrap();
        unreachable.report(client(u16::MAX), START, at(late));
        assert_eq!(unreachable.state().reports.len(), 1);
    }

    #[test]
    fn too_many_errors_in_a_second_start_a_pause() {
        let unreachable = Unreachable::new(MAX);
        for second in 0..3 {
            assert!((0..MAX).all(|_| unreachable.spend(at(second * 1_000))));
        }
        assert!(unreachable.is_listening(at(2_999)));
        assert!(!unreachable.spend(at(2_999)), "one too many");
        let end = at(2_999) + PAUSE;
        assert!(!unreachable.is_listening(at(3_000)) && !unreachable.spend(at(3_000)));
        assert!(unreachable.is_listening(end) && unreachable.spend(end));
    }
}
