//! Why a send fails, and how the daemon reacts: one row per errno, and the errnos of a broken socket.
//!
//! No failure removes a client. Routes flap, firewalls reload and addresses move, and a client that sends
//! heartbeats only in reply to pings would never come back. The client loses that ping and stays until it
//! expires. A destination that can never be valid is refused at registration.

use std::io;

use nix::errno::Errno;

use super::BATCH;
use crate::catalogue::{Problem, daemon};

/// Why the kernel did not accept a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The destination or the source address is invalid, or a blackhole route applies (EINVAL).
    Invalid,
    /// A local firewall rule drops the datagram (EPERM).
    NotPermitted,
    /// A route prohibits the destination, or the destination is a broadcast address (EACCES).
    Prohibited,
    /// No route to the destination (ENETUNREACH).
    NetworkUnreachable,
    /// The host is known to be unreachable (EHOSTUNREACH).
    HostUnreachable,
    /// The port is known to be closed (ECONNREFUSED).
    ConnectionRefused,
    /// The source address is gone (EADDRNOTAVAIL).
    AddressNotAvailable,
    /// The queue of the network device is full (ENOBUFS).
    NoBuffers,
    /// The send buffers are full (EAGAIN).
    WouldBlock,
    /// The datagram exceeds the path MTU (EMSGSIZE).
    MessageTooLong,
    /// Any other errno.
    Other,
}

/// How the daemon reacts to a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// End the worker, and with it the daemon: none of the worker's clients could be pinged any more.
    EndWorker,
    /// Do nothing: the client loses this ping.
    GiveUp,
    /// Wait briefly and retry: the kernel had no room for the datagram.
    Wait,
    /// Check whether this machine still has the source address. If not, let the kernel choose the source
    /// address for this client and the rest of its group.
    CheckSource,
}

/// An errno, and the policy for it.
struct Row {
    failure: SendFailure,
    errno: Option<Errno>,
    label: &'static str,
    /// The number of immediate retries. The kernel fails one call for each pending ICMP error, which can be
    /// about another datagram.
    retries: usize,
    reaction: Reaction,
    /// The number of the batch's pings that are lost if the reaction does not help.
    lost_pings: usize,
    /// The finding about repeated failures, with the remedy for the log.
    problem: Problem,
}

#[rustfmt::skip]
const TABLE: [Row; 11] = {
    use Reaction::{CheckSource, GiveUp, Wait};
    use SendFailure as Failure;
    use daemon::{
        PINGS_FAILED as OTHER, PINGS_FAILED_FIREWALL as FIREWALL, PINGS_FAILED_ROOM as ROOM,
        PINGS_FAILED_ROUTE as ROUTE,
    };
    const fn row(
        failure: Failure,
        errno: Option<Errno>,
        label: &'static str,
        retries: usize,
        reaction: Reaction,
        lost_pings: usize,
        problem: Problem,
    ) -> Row {
        Row { failure, errno, label, retries, reaction, lost_pings, problem }
    }
    [
        row(Failure::Invalid, Some(Errno::EINVAL), "invalid", 0, CheckSource, 1, ROUTE),
        row(Failure::NotPermitted, Some(Errno::EPERM), "not_permitted", 0, GiveUp, 1, FIREWALL),
        row(Failure::Prohibited, Some(Errno::EACCES), "prohibited", 1, GiveUp, 1, ROUTE),
        row(Failure::NetworkUnreachable, Some(Errno::ENETUNREACH), "network_unreachable", 1, CheckSource, 1, ROUTE),
        row(Failure::HostUnreachable, Some(Errno::EHOSTUNREACH), "host_unreachable", 1, GiveUp, 1, ROUTE),
        // Never about this ping, and several errors may be pending.
        row(Failure::ConnectionRefused, Some(Errno::ECONNREFUSED), "connection_refused", 4, GiveUp, 1, OTHER),
        row(Failure::AddressNotAvailable, Some(Errno::EADDRNOTAVAIL), "address_not_available", 0, CheckSource, 1, ROUTE),
        row(Failure::NoBuffers, Some(Errno::ENOBUFS), "no_buffers", 0, Wait, 1, ROOM),
        // Full send buffers have no room for the next pings either.
        row(Failure::WouldBlock, Some(Errno::EAGAIN), "would_block", 0, Wait, BATCH, ROOM),
        row(Failure::MessageTooLong, Some(Errno::EMSGSIZE), "message_too_long", 1, GiveUp, 1, OTHER),
        row(Failure::Other, None, "other", 1, GiveUp, 1, OTHER),
    ]
};

impl SendFailure {
    /// Every failure, at the index `failure as usize`.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::Other; TABLE.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = TABLE[index].failure;
            index += 1;
        }
        all
    };

    /// The name of the failure in logs and counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        TABLE[self as usize].label
    }

    /// The number of a batch's pings that are lost if the reaction does not help.
    #[must_use]
    pub const fn lost_pings(self) -> usize {
        TABLE[self as usize].lost_pings
    }

    /// The finding about repeated failures.
    #[must_use]
    pub const fn problem(self) -> Problem {
        TABLE[self as usize].problem
    }

    /// The number of immediate retries.
    pub(super) const fn retries(self) -> usize {
        TABLE[self as usize].retries
    }
}

/// The errnos of a socket on which every later call will fail.
const BROKEN: [Errno; 3] = [Errno::EBADF, Errno::ENOTSOCK, Errno::EFAULT];

/// Whether the error shows that the socket itself is broken.
#[must_use]
pub fn is_broken(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| BROKEN.contains(&Errno::from_raw(errno)))
}

/// The reaction to a failed send.
#[must_use]
pub fn reaction(error: &io::Error) -> Reaction {
    if is_broken(error) {
        return Reaction::EndWorker;
    }
    TABLE[SendFailure::from(error) as usize].reaction
}

impl From<&io::Error> for SendFailure {
    fn from(error: &io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let row = TABLE.iter().find(|row| row.errno.is_some() && row.errno == errno);
        row.map_or(Self::Other, |row| row.failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_matches_its_index() {
        for (index, failure) in SendFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index);
        }
    }

    #[test]
    fn each_errno_has_one_row() {
        for row in &TABLE {
            let Some(errno) = row.errno else { continue };
            assert_eq!(SendFailure::from(&errno.into()), row.failure);
        }
        assert_eq!(SendFailure::from(&Errno::EPROTO.into()), SendFailure::Other);
        assert_eq!(SendFailure::from(&io::Error::other("no errno")), SendFailure::Other);
    }
}
