//! The reasons to remove a client.

/// Why a client was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// No heartbeat arrived within the expiration.
    Expired,
    /// The client was evicted to make room before it had repeated its heartbeat.
    MadeWay,
    /// `DENY_FILE` denies the client's network.
    Denied,
}

impl Removal {
    /// Every reason, at the index `removal as usize`.
    pub const ALL: [Self; 3] = [Self::Expired, Self::MadeWay, Self::Denied];

    /// The name of the reason in logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::MadeWay => "made_way",
            Self::Denied => "denied",
        }
    }
}
