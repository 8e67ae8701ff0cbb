//! Limits the rate of log lines that strangers can trigger.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Time;

/// The minimum time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// Passes one line of a kind per second and counts the suppressed ones.
#[derive(Debug, Default)]
pub struct Throttle {
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// Returns the number of lines suppressed since the last written line if a line can be written now, else
    /// `None`.
    pub fn pass(&self, now: Time) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let after = (now + INTERVAL).as_nanos();
        let passes = now.as_nanos() >= next
            && self.next.compare_exchange(next, after, Relaxed, Relaxed).is_ok();
        if passes {
            Some(self.suppressed.swap(0, Relaxed))
        } else {
            self.suppressed.fetch_add(1, Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_with_the_count_of_suppressed_lines() {
        let throttle = Throttle::default();
        let start = Time::from_nanos(77);
        let passed: Vec<_> = (0..3_000)
            .filter_map(|ms| throttle.pass(start + Duration::from_millis(ms)).map(|n| (ms, n)))
            .collect();
        assert_eq!(passed, [(0, 0), (1_000, 999), (2_000, 999)]);
    }
}
