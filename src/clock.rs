//! The only module that reads the system clocks. Everywhere else, time is a plain value.

use std::ops::Add;
use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};
use serde::{Deserialize, Serialize};

/// Includes the time in suspend, and cannot be set by an administrator.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
/// The monotonic clock. On macOS it includes the time in suspend, like `CLOCK_BOOTTIME` on Linux. On other systems it
/// may exclude that time, which is close enough.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Time zero is ten years before the machine started, so that earlier events have a time too.
const BEFORE_START: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The time at which the machine started.
pub const MACHINE_START: Time = Time(BEFORE_START.as_secs() * NANOS_PER_SECOND);

/// A point in time, in nanoseconds since time zero. All processes share the same time zero until the machine
/// restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(u64);

impl Time {
    /// The time `nanos` nanoseconds after time zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The time `secs` seconds after time zero.
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs as u64 * NANOS_PER_SECOND)
    }

    /// Whole seconds since time zero.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }

    /// Nanoseconds since time zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time truncated to a whole second.
    #[must_use]
    pub const fn second(self) -> Self {
        Self(self.0 - self.0 % NANOS_PER_SECOND)
    }

    /// The time `duration` earlier, or time zero.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// The duration since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// The current time.
///
/// # Panics
/// If the system has no such clock. Every supported system has one.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(CLOCK).expect("the system has a monotonic clock");
    Time::default() + BEFORE_START + Duration::from(now)
}

/// The current wall-clock time, since 1970. The kernel timestamps datagrams with this clock.
///
/// # Panics
/// If the system has no such clock. Every supported system has one.
#[must_use]
pub fn wall() -> Time {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the system has a wall clock");
    Time::default() + Duration::from(now)
}

/// The resolution of the clock and of sleeps.
///
/// # Panics
/// If the system has no such clock. Every supported system has one.
#[must_use]
pub fn resolution() -> Duration {
    clock_getres(CLOCK).expect("the system has a monotonic clock").into()
}

/// The CPU time that the calling thread has used.
///
/// # Panics
/// If the system does not count CPU time per thread. Every supported system does.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.expect("the system counts the time of threads").into()
}
