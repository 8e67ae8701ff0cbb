//! The world's own time, and what the clocks of the machine in it show.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use wakeupd::clock::Time;
use wakeupd::snapshot::Moment;

/// A point in the world's time, which no clock in it shows, in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct When(pub u64);

impl When {
    /// When the world begins. By then the clients of a machine whose clock is wrong may seem to have been
    /// heard of.
    pub const BEGINNING: Self = Self(10_000_000_000_000_000);

    pub const NEVER: Self = Self(u64::MAX);

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point so long before, or the beginning.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// How far this is from `other`, in either direction.
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
    /// The number of the machine's run.
    boot: u32,
    /// What the clock that nobody can set showed when the machine's run began, and when that was.
    began: (Time, When),
    /// By how much the wall clock is before the world's time.
    wall: i64,
}

impl Clocks {
    pub fn new(boot: Time, wall: Duration) -> Self {
        let wall = nanos(wall).cast_signed();
        let now = When::BEGINNING;
        let wall = wall - now.0.cast_signed();
        Self { now, boot: 0, began: (boot, now), wall }
    }

    /// What the clock that nobody can set shows at this time.
    pub fn boottime(&self, when: When) -> Time {
        self.began.0 + when.since(self.began.1)
    }

    /// When the clock that nobody can set shows this time, were it only to have run for ever.
    pub fn when(&self, time: Time) -> When {
        let (shown, began) = self.began;
        if time >= shown { began + time.since(shown) } else { began.before(shown.since(time)) }
    }

    pub fn set_wall(&mut self, by: i64) {
        self.wall += by;
    }

    /// By how much the wall clock is before the world's time.
    pub fn wall_set(&self) -> i64 {
        self.wall
    }

    /// Starts the machine anew.
    pub fn reboot(&mut self, shown: Time) {
        self.boot += 1;
        self.began = (shown, self.now);
    }

    /// What the wall clock shows.
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
