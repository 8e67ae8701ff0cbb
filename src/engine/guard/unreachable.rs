//! What the network says back: clients whose port is closed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Time;

/// How often a client's host must say that the port is closed, and over how long a time.
const ENOUGH: u8 = 3;
const LEAST_TIME: Duration = Duration::from_secs(2);

/// How long reports about a client are remembered at least.
const MEMORY: Duration = Duration::from_secs(10);

/// So many seconds of reports fit into the memory, which is more than [`MEMORY`].
const SECONDS_REMEMBERED: usize = 16;

/// Which clients' ports are closed, as far as the network says so.
#[derive(Debug)]
pub struct Unreachable {
    reports: HashMap<SocketAddr, Reports>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Reports {
    count: u8,
    first: Time,
    last_heartbeat: Time,
}

impl Unreachable {
    /// Knows of no closed port yet, and takes up to so many reports a second.
    #[must_use]
    pub fn new(max_per_second: u32) -> Self {
        let capacity = max_per_second as usize * SECONDS_REMEMBERED;
        Self { reports: HashMap::new(), capacity }
    }

    /// Takes a report that the port of `client` is closed, which is live, is being pinged and had its
    /// last heartbeat at `last_heartbeat`. Returns whether that is enough to believe it.
    ///
    /// A report may be forged. So it takes three over two seconds or more, with no heartbeat in between.
    pub fn report(&mut self, client: SocketAddr, last_heartbeat: Time, now: Time) -> bool {
        if self.reports.len() >= self.capacity {
            self.reports.retain(|_, reports| now.since(reports.first) < MEMORY);
        }
        if self.reports.len() >= self.capacity {
            return false;
        }
        let fresh = Reports { count: 0, first: now, last_heartbeat };
        let reports = self.reports.entry(client).or_insert(fresh);
        if reports.last_heartbeat != last_heartbeat {
            *reports = fresh;
        }
        reports.count = reports.count.saturating_add(1);
        let is_enough = reports.count >= ENOUGH && now.since(reports.first) >= LEAST_TIME;
        if is_enough {
            self.reports.remove(&client);
        }
        is_enough
    }
}

/// How much of what the network says is listened to.
#[derive(Debug)]
pub struct Budget {
    max_per_second: u32,
    second_began: Time,
    spent: u32,
}

impl Budget {
    /// How long nothing is listened to once that was exceeded.
    pub const PAUSE: Duration = Duration::from_secs(60);

    /// A budget of so many a second (`MAX_ICMP_ERRORS_PER_SECOND`).
    #[must_use]
    pub fn new(max_per_second: u32) -> Self {
        Self { max_per_second, second_began: Time::default(), spent: 0 }
    }

    /// How many a second are listened to.
    #[must_use]
    pub fn max_per_second(&self) -> u32 {
        self.max_per_second
    }

    /// Takes one from the budget. Returns whether it was within it.
    pub fn spend(&mut self, now: Time) -> bool {
        if now.since(self.second_began) >= Duration::from_secs(1) {
            (self.second_began, self.spent) = (now, 0);
        }
        self.spent += 1;
        self.spent <= self.max_per_second
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
    fn three_reports_over_two_seconds_are_believed() {
        let mut unreachable = Unreachable::new(MAX);
        let reports = [0, 1, 2, 1_999, 2_000, 2_001, 2_002, 4_001].map(at);
        let believed = reports.map(|now| unreachable.report(client(1), START, now));
        assert_eq!(believed, [false, false, false, false, true, false, false, true]);
        assert!(!unreachable.report(client(2), START, at(0)));
        assert!(!unreachable.report(client(2), START, at(9_000)), "only two");
    }

    #[test]
    fn a_heartbeat_in_between_shows_that_it_lives() {
        let mut unreachable = Unreachable::new(MAX);
        for second in 0..100 {
            for report in 0..5 {
                let now = at(second * 1_900 + report * 400);
                assert!(!unreachable.report(client(1), at(second * 1_900), now));
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut unreachable = Unreachable::new(MAX);
        for port in 0..u16::MAX {
            unreachable.report(client(port), START, at(0));
        }
        assert_eq!(unreachable.reports.len(), MAX as usize * SECONDS_REMEMBERED);
        let late = MEMORY.as_millis().try_into().unwrap();
        unreachable.report(client(u16::MAX), START, at(late));
        assert_eq!(unreachable.reports.len(), 1);
    }

    #[test]
    fn a_second_has_a_budget() {
        let mut budget = Budget::new(MAX);
        for second in 0..3 {
            let now = at(second * 1_000);
            let within = (0..2 * MAX).filter(|_| budget.spend(now)).count();
            assert_eq!(within, MAX as usize);
            assert!(!budget.spend(at(second * 1_000 + 999)));
        }
    }
}
