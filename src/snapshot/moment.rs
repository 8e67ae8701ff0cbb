//! When a snapshot was taken, told so that also a daemon on a machine started anew can tell how long ago.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Time};

/// What tells this run of the machine from another.
static BOOT: LazyLock<Option<String>> = LazyLock::new(|| {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
});

/// A point in time by both clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the clock that nobody can set, which begins anew with the machine.
    pub now: Time,
    /// By the wall clock.
    pub wall: Time,
    /// What tells one run of the machine from another, where that is known.
    pub boot: Option<String>,
}

impl Moment {
    /// The present one.
    #[must_use]
    pub fn now() -> Self {
        Self { now: clock::now(), wall: clock::wall(), boot: BOOT.clone() }
    }

    /// Whether the machine has run all the time between this and the other.
    #[must_use]
    pub fn is_of_the_same_boot(&self, other: &Self) -> bool {
        self.boot.is_some() && self.boot == other.boot
    }

    /// How long ago `earlier` was: by the clock that nobody can set if that has run on, else by the wall
    /// clock. If it is yet to come by that clock, this is how far ahead it is.
    ///
    /// # Errors
    /// With how far ahead `earlier` is.
    pub fn since(&self, earlier: &Self) -> Result<Duration, Duration> {
        let (now, then) = if self.is_of_the_same_boot(earlier) {
            (self.now, earlier.now)
        } else {
            (self.wall, earlier.wall)
        };
        if now >= then { Ok(now.since(then)) } else { Err(then.since(now)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(now: u32, wall: u32, boot: Option<&str>) -> Moment {
        let [now, wall] = [now, wall].map(Time::from_secs);
        Moment { now, wall, boot: boot.map(str::to_owned) }
    }

    #[test]
    fn only_on_another_boot_does_the_wall_clock_count() {
        let earlier = moment(100, 5_000, Some("a"));
        for (later, expected) in [
            (moment(107, 9_000, Some("a")), Ok(7)),
            (moment(107, 1, Some("a")), Ok(7)),
            (moment(99, 5_000, Some("a")), Err(1)),
            (moment(107, 5_060, Some("b")), Ok(60)),
            (moment(3, 5_060, Some("b")), Ok(60)),
            (moment(107, 4_990, Some("b")), Err(10)),
            (moment(107, 5_060, None), Ok(60)),
        ] {
            let [expected, wrong] =
                [expected.ok(), expected.err()].map(|s| s.map(Duration::from_secs));
            assert_eq!(
                later.since(&earlier),
                expected.ok_or(wrong.unwrap_or_default()),
                "{later:?}"
            );
        }
        let unknown = moment(100, 5_000, None);
        assert_eq!(moment(107, 5_060, None).since(&unknown), Ok(Duration::from_secs(60)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_boot_has_a_name() {
        let (one, other) = (Moment::now(), Moment::now());
        assert!(one.is_of_the_same_boot(&other) && one.boot.is_some_and(|id| id.len() == 36));
        assert!(other.since(&Moment::now()).is_err());
    }
}
