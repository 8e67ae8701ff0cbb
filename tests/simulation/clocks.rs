//! The world's own time, and the clocks of the simulated machine.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use wakeupd::clock::Time;
use wakeupd::snapshot::Moment;

/// A point in the world's time, in nanoseconds. No simulated clock shows it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct When(pub u64);

impl When {
    /// The start of the world. It is far from zero, because a wrong clock may date heartbeats before it.
    pub const BEGINNING: Self = Self(10_000_000_000_000_000);

    pub const NEVER: Self = Self(u64::MAX);

    /// The time since `earlier`, saturating at zero.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` earlier, saturating at zero.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The absolute difference from `other`.
    pub fn apart(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0))
    }
}

impl Add<Duration> for When {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self < Self::BEGINNING {
            return write!(f, "{:?} before the beginning", Self::BEGINNING.since(*self));
        }
        let since = self.since(Self::BEGINNING);
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{nanos:09}", seconds % 60)
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clocks of the machine.
#[derive(Debug)]
pub struct Clocks {
    pub now: When,
    /// The number of reboots.
    boot: u32,
    /// The boot-time clock's reading at the last boot, and the time of that boot.
    began: (Time, When),
    /// The wall clock's offset from the world's time, in nanoseconds.
    wall: i64,
}

impl Clocks {
    pub fn new(boot: Time, wall: Duration) -> Self {
        let wall = nanos(wall).cast_signed();
        let now = When::BEGINNING;
        let wall = wall - now.0.cast_signed();
        Self { now, boot: 0, began: (boot, now), wall }
    }

    /// The boot-time clock's reading at `when`.
    pub fn boottime(&self, when: When) -> Time {
        self.began.0 + when.since(self.began.1)
    }

    /// The time at which the boot-time clock shows `time`, extrapolated to times before the boot.
    pub fn when(&self, time: Time) -> When {
        let (shown, began) = self.began;
        if time >= shown { began + time.since(shown) } else { began.before(shown.since(time)) }
    }

    pub fn set_wall(&mut self, by: i64) {
        self.wall += by;
    }

    /// The wall clock's offset from the world's time, in nanoseconds.
    pub fn wall_set(&self) -> i64 {
        self.wall
    }

    /// Reboots the machine. Its boot-time clock starts at `shown`.
    pub fn reboot(&mut self, shown: Time) {
        self.boot += 1;
        self.began = (shown, self.now);
    }

    /// The wall clock's reading.
    pub fn wall(&self) -> Time {
        let wall = self.wall.saturating_add_unsigned(self.now.0).max(0).cast_unsigned();
        Time::from_nanos(wall)
    }

    pub fn moment(&self) -> Moment {
        Moment {
            now: self.boottime(self.now),
            wall: self.wall(),
            boot: Some(format!("boot {}", self.boot)),
        }
    }
}
