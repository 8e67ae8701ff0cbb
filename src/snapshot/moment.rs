//! The time of a snapshot. Its age can be computed even after the machine reboots.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Time};

/// Returns an identifier of this process's boot clock: the boot id and, in a time namespace, the offset of the
/// namespace. Two times of the boot clock can be compared only if their identifiers are equal. `None` if the
/// kernel shows no boot id.
///
/// Each call reads the files again, because CRIU can move a running process to another machine or namespace.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    Some(name(&id, &offsets))
}

/// Combines a boot id and an offset. Without an offset the boot id stands alone.
fn name(id: &str, offsets: &str) -> String {
    let mut words = offsets.lines().map(str::split_ascii_whitespace);
    let offset = words.find_map(|mut words| {
        (words.next() == Some("boottime")).then(|| words.collect::<Vec<_>>().join("."))
    });
    let offset = offset.filter(|offset| offset != "0.0").map(|offset| format!("+{offset}"));
    id.trim().to_owned() + &offset.unwrap_or_default()
}

/// A point in time by both clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the boot clock, which is never set and starts from zero at each boot.
    pub now: Time,
    /// By the wall clock.
    pub wall: Time,
    /// Identifies the boot and the time namespace, if known. Times of the boot clock are comparable only if
    /// both are the same.
    pub boot: Option<String>,
}

impl Moment {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        Self { now: clock::now(), wall: clock::wall(), boot: boot() }
    }

    /// True if both moments are known to be of the same boot and time namespace.
    #[must_use]
    pub fn is_of_the_same_boot(&self, other: &Self) -> bool {
        self.boot.is_some() && self.boot == other.boot
    }

    /// The time since `earlier`: by the boot clock if both are of the same boot, else by the wall clock.
    ///
    /// # Errors
    /// If `earlier` is in the future. The error is the time from this moment to `earlier`.
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
    fn the_wall_clock_is_used_only_across_boots() {
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
    fn another_time_namespace_counts_as_another_boot() {
        let offsets = |boottime: &str| format!("monotonic  86400  0\nboottime   {boottime}\n");
        for (offsets, expected) in [
            (String::new(), "id"),
            (offsets("        0         0"), "id"),
            (offsets("    86400         0"), "id+86400.0"),
            (offsets("       -7 500000000"), "id+-7.500000000"),
        ] {
            assert_eq!(name("id\n", &offsets), expected);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_current_boot_has_an_id() {
        let (one, other) = (Moment::now(), Moment::now());
        assert!(one.is_of_the_same_boot(&other) && one.boot.is_some_and(|id| id.len() >= 36));
        assert!(other.since(&Moment::now()).is_err());
    }
}
