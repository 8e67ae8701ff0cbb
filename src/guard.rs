//! Which sources may register.

use std::net::SocketAddr;

/// Why a heartbeat was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its source port is 0, to which nothing can be sent.
    SourcePortZero,
}

impl Refused {
    /// Every reason, each at the index `reason as usize`.
    pub const ALL: [Self; 1] = [Self::SourcePortZero];

    /// The reason as it stands in logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SourcePortZero => "source_port_zero",
        }
    }
}

/// Decides whether a heartbeat from `source` counts.
///
/// # Errors
/// With the reason if it does not.
pub const fn admit(source: SocketAddr) -> Result<(), Refused> {
    if source.port() == 0 {
        return Err(Refused::SourcePortZero);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_is_refused_and_no_other() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address = address.parse().unwrap();
            assert_eq!(admit(SocketAddr::new(address, 0)), Err(Refused::SourcePortZero));
            assert_eq!(admit(SocketAddr::new(address, 1)), Ok(()));
        }
    }

    #[test]
    fn each_reason_stands_at_its_index() {
        for (index, reason) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
