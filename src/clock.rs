//! The only caller of the system's clock. Everywhere else time is a plain value.

use std::ops::Add;
use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};
use serde::{Deserialize, Serialize};

/// Counts time in which the machine is suspended, and no administrator can set it.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
/// Elsewhere the monotonic clock is what `CLOCK_BOOTTIME` is on Linux (macOS), or near enough.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Time begins ten years before the start of the machine, so that what is remembered from before it can
/// be told too.
const BEFORE_START: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// When the machine was started.
pub const MACHINE_START: Time = Time(BEFORE_START.as_secs() * NANOS_PER_SECOND);

/// A point in time: nanoseconds since the beginning of time, which is the same for all processes until the
/// machine is started anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(u64);

impl Time {
    /// The point this many nanoseconds after the beginning.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The point this many seconds after the beginning.
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs as u64 * NANOS_PER_SECOND)
    }

    /// Whole seconds since the beginning.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The whole second that it is in.
    #[must_use]
    pub const fn second(self) -> Self {
        Self(self.0 - self.0 % NANOS_PER_SECOND)
    }

    /// The point so long before, or the beginning.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
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

/// The present time.
///
/// # Panics
/// Where the system has no such clock, which no supported one lacks.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(CLOCK).expect("the system has a monotonic clock");
    Time::default() + BEFORE_START + Duration::from(now)
}

/// The present time by the wall clock, which is the one the kernel stamps datagrams with. It begins in 1970.
///
/// # Panics
/// Where the system has no such clock, which no supported one lacks.
#[must_use]
pub fn wall() -> Time {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the system has a wall clock");
    Time::default() + Duration::from(now)
}

/// How exactly the system counts time and sleeps.
///
/// # Panics
/// Where the system has no such clock, which no supported one lacks.
#[must_use]
pub fn resolution() -> Duration {
    clock_getres(CLOCK).expect("the system has a monotonic clock").into()
}

/// How long the calling thread has been running on a processor.
///
/// # Panics
/// Where the system does not count that, which no supported one leaves out.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.expect("the system counts the time of threads").into()
}
