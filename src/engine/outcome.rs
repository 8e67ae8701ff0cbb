//! The engine's decision about a datagram.

use super::guard::Refused;

/// The engine's decision about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The datagram was dropped.
    Refused {
        /// The rule that dropped the datagram.
        reason: Refused,
        /// Another rule that the source breaks. Set only in observe mode, in which the guard does not enforce
        /// it.
        tolerated: Option<Refused>,
    },
    /// The datagram was a valid heartbeat.
    Accepted {
        /// Set if the heartbeat registered a new client.
        registered: Option<Registered>,
        /// The rule that the source breaks. Set only in observe mode, in which the guard does not enforce it.
        tolerated: Option<Refused>,
    },
}

impl Outcome {
    /// The rule that dropped the datagram.
    #[must_use]
    pub const fn refused(self) -> Option<Refused> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            Self::Accepted { .. } => None,
        }
    }

    /// All rules that the datagram breaks.
    pub fn reasons(self) -> impl Iterator<Item = Refused> {
        let reasons = match self {
            Self::Refused { reason, tolerated } => [tolerated, Some(reason)],
            Self::Accepted { registered, tolerated } => {
                [tolerated, registered.and_then(|registered| registered.tolerated)]
            }
        };
        reasons.into_iter().flatten()
    }
}

/// A new client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The shard the client belongs to.
    pub shard: usize,
    /// The number of workers to wake, from worker 0 on, because they may be sleeping past the client's slot.
    pub wakes: usize,
    /// The cap that the client exceeds. Set only in observe mode, in which the guard does not enforce it.
    pub tolerated: Option<Refused>,
}
