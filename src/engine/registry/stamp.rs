//! Points in time in four bytes.

use std::time::Duration;

use crate::clock::Time;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// How far a stamp may lie ahead of the time at which it is read. A thread that was suspended between two
/// clock reads may lag another by this much.
const SLACK: Duration = Duration::from_secs(3600);

/// A point in time in whole milliseconds, modulo 2³² ms (49.7 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u32);

impl Stamp {
    /// The stamp of `time`, truncated to a millisecond.
    pub(super) const fn of(time: Time) -> Self {
        Self::of_millis(time.as_nanos() / NANOS_PER_MILLI)
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is modulo 2³²")]
    const fn of_millis(millis: u64) -> Self {
        Self(millis as u32)
    }

    /// The only point in time with this stamp in the 49.7 days that end an hour after `now`.
    pub(super) fn near(self, now: Time) -> Time {
        let latest = (now + SLACK).as_nanos() / NANOS_PER_MILLI;
        let before = Self::of_millis(latest).0.wrapping_sub(self.0);
        Time::from_nanos(latest.saturating_sub(before.into()) * NANOS_PER_MILLI)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRAP: u64 = 1 << 32;
    const HOUR: u64 = 3_600_000;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * NANOS_PER_MILLI)
    }

    #[test]
    fn a_stamp_round_trips_within_its_window() {
        for made in [0, 1, HOUR, WRAP - 1, WRAP, WRAP + 1, 5 * WRAP - 1, 1_000 * WRAP + HOUR] {
            let stamp = Stamp::of(at(made));
            for age in [0, 1, HOUR, WRAP - HOUR - 1] {
                assert_eq!(stamp.near(at(made + age)), at(made), "{age} ms after {made} ms");
            }
            for ahead in [1, HOUR].into_iter().filter(|ahead| *ahead <= made) {
                assert_eq!(stamp.near(at(made - ahead)), at(made), "{ahead} ms before {made} ms");
            }
        }
    }

    #[test]
    fn fractions_of_a_millisecond_are_truncated() {
        let made = at(WRAP) + Duration::from_nanos(NANOS_PER_MILLI - 1);
        let now = made + Duration::from_micros(1);
        assert_eq!(Stamp::of(made).near(now), at(WRAP));
    }

    #[test]
    fn a_stamp_outside_its_window_wraps_around() {
        let stamp = Stamp::of(at(2 * WRAP));
        assert_eq!(stamp.near(at(2 * WRAP - HOUR - 1)), at(WRAP));
        assert_eq!(stamp.near(at(3 * WRAP - HOUR)), at(3 * WRAP));
    }
}
