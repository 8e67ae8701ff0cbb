//! Socket options that a kernel, a sandbox or a seccomp filter can refuse. The daemon also serves without
//! them.

use std::io;

/// An option of the UDP sockets that the daemon can serve without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`name` and `cost` describe each")]
pub enum SocketOption {
    DualStack,
    ReceiveBuffer,
    SendBuffer,
    PacketInfoV4,
    PacketInfoV6,
    ErrorQueueV4,
    ErrorQueueV6,
    Timestamps,
    MemoryInfo,
    ShareAddress,
    PathMtu,
}

impl SocketOption {
    /// Every option.
    pub const ALL: [Self; 11] = [
        Self::DualStack,
        Self::ReceiveBuffer,
        Self::SendBuffer,
        Self::PacketInfoV4,
        Self::PacketInfoV6,
        Self::ErrorQueueV4,
        Self::ErrorQueueV6,
        Self::Timestamps,
        Self::MemoryInfo,
        Self::ShareAddress,
        Self::PathMtu,
    ];

    /// The name in socket(7), ip(7) and ipv6(7).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DualStack => "IPV6_V6ONLY",
            Self::ReceiveBuffer => "SO_RCVBUF",
            Self::SendBuffer => "SO_SNDBUF",
            Self::PacketInfoV4 => "IP_PKTINFO",
            Self::PacketInfoV6 => "IPV6_RECVPKTINFO",
            Self::ErrorQueueV4 => "IP_RECVERR",
            Self::ErrorQueueV6 => "IPV6_RECVERR",
            Self::Timestamps => "SO_TIMESTAMPNS",
            Self::MemoryInfo => "SO_MEMINFO",
            Self::ShareAddress => "SO_REUSEADDR",
            Self::PathMtu => "IP_MTU_DISCOVER",
        }
    }

    /// The cost of serving without the option, as the end of a sentence.
    #[must_use]
    pub const fn cost(self) -> &'static str {
        match self {
            Self::DualStack => {
                "IPv4 clients are not served where net.ipv6.bindv6only is 1; set it to 0, or HOST to 0.0.0.0"
            }
            Self::ReceiveBuffer => {
                "the receive buffer may keep its default size and lose bursts of heartbeats"
            }
            Self::SendBuffer => {
                "the send buffers may keep their default size, and pings that find them full wait or fail"
            }
            Self::PacketInfoV4 | Self::PacketInfoV6 => {
                "on a host with several addresses, pings may leave from an address that the client did not send to, and NATs drop them; set HOST to the one address that clients use"
            }
            Self::ErrorQueueV4 => {
                "IPv4 clients with a closed port are pinged until they expire, and pings lost to a full device queue count as sent"
            }
            Self::ErrorQueueV6 => {
                "IPv6 clients with a closed port are pinged until they expire, and IPv6 pings lost to a full device queue count as sent"
            }
            Self::Timestamps => {
                "after a pause, the daemon accepts heartbeats that waited longer than CLIENT_EXPIRATION_SECONDS"
            }
            Self::MemoryInfo => "heartbeats lost to a full receive buffer are not counted",
            Self::ShareAddress => {
                "all workers send through the receiving socket, and wait for each other under load"
            }
            Self::PathMtu => "pings take about 8 % more CPU time",
        }
    }
}

/// The options that the kernel refused, once each, with their first error.
#[derive(Debug, Default)]
pub struct Missing(Vec<(SocketOption, io::Error)>);

impl Missing {
    /// Records `option` if `result` is an error. Otherwise returns the value.
    pub(super) fn note<T>(
        &mut self,
        option: SocketOption,
        result: Result<T, impl Into<io::Error>>,
    ) -> Option<T> {
        result
            .map_err(|error| {
                if !self.has(option) {
                    self.0.push((option, error.into()));
                }
            })
            .ok()
    }

    /// Whether the kernel refused `option`.
    #[must_use]
    pub fn has(&self, option: SocketOption) -> bool {
        self.0.iter().any(|(missing, _)| *missing == option)
    }

    /// Fails with the first error of an option that `known` does not list as missing.
    pub(super) fn unless_known(self, known: &Self) -> io::Result<()> {
        let new = self.0.into_iter().find(|(option, _)| !known.has(*option));
        new.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The options and their errors.
    pub fn iter(&self) -> impl Iterator<Item = &(SocketOption, io::Error)> {
        self.0.iter()
    }
}
