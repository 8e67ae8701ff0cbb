//! The plan of a measurement, and its progress.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::churn::Churn;

/// The time between the last client's registration and the measurement. By its end, every client has been
/// pinged.
const SETTLING: Duration = Duration::from_secs(2);

/// The maximum number of steps in a timeline. A longer measurement has longer steps.
const STEPS: u64 = 3_600;

/// The daemon's memory is first read after a tenth of the measurement, but no later than this.
const FIRST_MEMORY: Duration = Duration::from_secs(60);

/// The signal that ends the daemon before it is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// SIGTERM, as an operator sends it
    Term,
    /// SIGKILL
    Kill,
}

impl Restart {
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::SIGTERM,
            Self::Kill => Signal::SIGKILL,
        }
    }
}

/// The settings of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) heartbeat_every: Duration,
    pub(crate) register_in: Duration,
    pub(crate) length: Duration,
    pub(crate) halve_after: Option<Duration>,
    pub(crate) restart: Option<Restart>,
    pub(crate) churn: Option<Churn>,
}

impl Plan {
    /// True if the client in the nth measured place falls silent with `--halve-after`.
    pub(crate) fn leaves(&self, n: u32) -> bool {
        self.halve_after.is_some() && n % 2 == 1
    }

    /// The length of one step of the timeline, in whole seconds.
    pub(crate) fn timeline_step(&self) -> Duration {
        Duration::from_secs(self.length.as_secs().div_ceil(STEPS).max(1))
    }

    /// How long to wait after registration. With churn the wait includes one expiration, so that by its
    /// end clients expire as fast as they leave.
    pub(crate) fn settling(&self) -> Duration {
        SETTLING + self.churn.map_or(Duration::ZERO, |churn| churn.expiration)
    }

    /// When to read the daemon's memory for the first time.
    pub(crate) fn first_memory(&self) -> Duration {
        (self.length / 10).min(FIRST_MEMORY)
    }
}

/// State shared by the threads of a measurement. Times are wall-clock nanoseconds, `u64::MAX` until known.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) registered: AtomicU32,
    pub(crate) start: AtomicU64,
    pub(crate) end: AtomicU64,
    /// When half of the clients fell silent, with `--halve-after`.
    pub(crate) left_at: AtomicU64,
    /// When the first process ended, with `--restart`.
    pub(crate) ended_at: AtomicU64,
    pub(crate) is_over: AtomicBool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_timeline_is_bounded() {
        for (length, step) in [(1, 1), (3_600, 1), (3_601, 2), (72 * 3_600, 72)] {
            let plan = Plan {
                heartbeat_every: Duration::from_secs(1),
                register_in: Duration::from_secs(1),
                length: Duration::from_secs(length),
                halve_after: None,
                restart: None,
                churn: None,
            };
            assert_eq!(plan.timeline_step(), Duration::from_secs(step), "{length}");
        }
    }
}
