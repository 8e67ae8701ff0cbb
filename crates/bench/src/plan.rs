//! What a measurement is to do, and how far it is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::churn::Churn;

/// From the last first heartbeat to the first ping that counts: everybody has been pinged by then.
const SETTLING: Duration = Duration::from_secs(2);

/// A longer measurement has a timeline of at most so many steps.
const STEPS: u64 = 3_600;

/// After a tenth of the measurement, but no later, the daemon's memory is what it shall be at the end.
const FIRST_MEMORY: Duration = Duration::from_secs(60);

/// How the daemon is ended before it is started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// By SIGTERM, as an operator does
    Term,
    /// By SIGKILL
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

/// What the crowd does.
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
    /// Whether the client in the nth of the measured places, and those who follow it, fall silent half-way.
    pub(crate) fn leaves(&self, n: u32) -> bool {
        self.halve_after.is_some() && n % 2 == 1
    }

    /// How much time a step of the timeline is.
    pub(crate) fn timeline_step(&self) -> Duration {
        Duration::from_secs(self.length.as_secs().div_ceil(STEPS).max(1))
    }

    /// With churn as many expire as leave when it is over.
    pub(crate) fn settling(&self) -> Duration {
        SETTLING + self.churn.map_or(Duration::ZERO, |churn| churn.expiration)
    }

    /// After which time the memory is looked at first.
    pub(crate) fn first_memory(&self) -> Duration {
        (self.length / 10).min(FIRST_MEMORY)
    }
}

/// What the threads of a measurement tell each other. Times are by the wall clock.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) registered: AtomicU32,
    pub(crate) start: AtomicU64,
    pub(crate) end: AtomicU64,
    /// When half of the clients fell silent.
    pub(crate) left_at: AtomicU64,
    /// When the daemon had ended that is restarted.
    pub(crate) ended_at: AtomicU64,
    pub(crate) is_over: AtomicBool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_grows_to_a_length_and_no_further() {
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
