//! Chooses which connections to keep when clients open more than the endpoint serves.
//!
//! The purpose of a connection is unknown until its request arrives, so the daemon always accepts a new one.
//! If the limits leave no room, it closes the least useful connection of the address with the most
//! connections. A health check therefore gets its response, no matter how many connections idle or stream.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{self, Bytes, Frame, SizeHint};
use tokio::sync::Notify;

use super::response::Body;
use crate::clock::{self, Time};

/// The maximum number of concurrent connections.
pub const MOST_CONNECTIONS: usize = MOST_REMOTE + MOST_PER_ADDRESS;

/// The maximum number of concurrent connections from other machines. Loopback has separate room.
const MOST_REMOTE: usize = 96;

/// The maximum number of concurrent connections from one address: an IPv4 address, an IPv6 /64, or loopback.
const MOST_PER_ADDRESS: usize = 32;

/// The maximum number of concurrent event streams to other machines: half of their connections.
const MOST_REMOTE_STREAMS: usize = MOST_REMOTE / 2;

/// The maximum number of concurrent event streams to one address: half of its connections.
const MOST_STREAMS_PER_ADDRESS: usize = MOST_PER_ADDRESS / 2;

/// A connection that has waited longer than this for a request is closed before busy ones.
const SOON: Duration = Duration::from_secs(1);

/// All open connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    peer: SocketAddr,
    site: IpAddr,
    phase: Phase,
    /// The start of the phase.
    since: Time,
    close: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No complete request head has arrived yet.
    Waiting,
    Answering,
    Streaming,
}

impl Connections {
    /// Makes room for a connection from `peer`. Returns the connection, and the peer of the connection that
    /// was closed for it, if any.
    pub(super) fn admit(&self, peer: SocketAddr, now: Time) -> (Connection, Option<SocketAddr>) {
        let site = site_of(peer.ip());
        let mut table = self.lock();
        let closed = table.victim(site, now).and_then(|id| table.close(id));
        let id = table.next_id;
        table.next_id += 1;
        let close = Arc::new(Notify::new());
        let open =
            Open { peer, site, phase: Phase::Waiting, since: now, close: Arc::clone(&close) };
        table.open.insert(id, open);
        let connection = Connection { connections: self.clone(), id, peer, close };
        (connection, closed)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The connection to close so that a connection from `newcomer` can be accepted. `None` if the limits
    /// leave room. Chooses from the address with the most connections: preferably a connection that waits for
    /// a request, otherwise the least recently active one.
    fn victim(&self, newcomer: IpAddr, now: Time) -> Option<u64> {
        let mut counts = HashMap::new();
        for open in self.open.values() {
            *counts.entry(open.site).or_insert(0) += 1;
        }
        let own = counts.get(&newcomer).copied().unwrap_or(0);
        let remote = self.open.values().filter(|open| !open.site.is_loopback()).count();
        let is_address_full = own >= MOST_PER_ADDRESS;
        if !is_address_full && (newcomer.is_loopback() || remote < MOST_REMOTE) {
            return None;
        }
        let may_close = |open: &Open| {
            if is_address_full { open.site == newcomer } else { !open.site.is_loopback() }
        };
        let has_waited = |open: &Open| open.phase == Phase::Waiting && now.since(open.since) > SOON;
        let candidates = self.open.iter().filter(|(_, open)| may_close(open));
        let victim = candidates
            .max_by_key(|(_, open)| (counts[&open.site], has_waited(open), Reverse(open.since)));
        victim.map(|(id, _)| *id)
    }

    /// Turns the connection `id` into an event stream. Returns false if the connection is closing, or if its
    /// address has its maximum number of streams.
    ///
    /// If other machines have their maximum number of streams in total, a new stream from another machine
    /// replaces the oldest stream of the address with the most streams. That address must have at least two
    /// more streams than the address of `id`. Otherwise the new stream is refused (false).
    fn stream(&mut self, id: u64) -> bool {
        // A closing connection cannot stream.
        let Some(site) = self.open.get(&id).map(|open| open.site) else { return false };
        let mut counts = HashMap::from([(site, 0)]);
        for open in self.open.values().filter(|open| open.phase == Phase::Streaming) {
            *counts.entry(open.site).or_insert(0) += 1;
        }
        let own = counts[&site];
        let remote = || counts.iter().filter(|(site, _)| !site.is_loopback());
        let is_full = !site.is_loopback()
            && remote().map(|(_, count)| count).sum::<usize>() >= MOST_REMOTE_STREAMS;
        if own >= MOST_STREAMS_PER_ADDRESS {
            return false;
        }
        if is_full {
            let most = remote().max_by_key(|(_, count)| **count);
            let Some((&most, _)) = most.filter(|(_, count)| **count > own + 1) else {
                return false;
            };
            let streams = self
                .open
                .iter()
                .filter(|(_, open)| open.site == most && open.phase == Phase::Streaming);
            let oldest = streams.min_by_key(|(_, open)| open.since).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.close(oldest);
            }
        }
        if let Some(open) = self.open.get_mut(&id) {
            open.phase = Phase::Streaming;
        }
        true
    }

    /// Closes a connection and returns its peer.
    fn close(&mut self, id: u64) -> Option<SocketAddr> {
        let open = self.open.remove(&id)?;
        open.close.notify_one();
        Some(open.peer)
    }
}

/// An open connection. It counts towards the limits until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Connections,
    id: u64,
    peer: SocketAddr,
    close: Arc<Notify>,
}

impl Connection {
    /// Waits until this connection is closed to make room for another.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Marks the arrival of a request. Dropping the result makes the connection wait for the next request.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.enter(Phase::Answering);
        Answering(Arc::clone(self))
    }

    fn enter(&self, phase: Phase) {
        if let Some(open) = self.connections.lock().open.get_mut(&self.id) {
            (open.phase, open.since) = (phase, clock::now());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
    }
}

/// A connection while it answers a request.
#[derive(Debug)]
pub(super) struct Answering(Arc<Connection>);

impl Answering {
    pub(super) fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Turns the response into an event stream, and returns whether the limits allow it.
    pub(super) fn stream(&self) -> bool {
        self.0.connections.lock().stream(self.0.id)
    }

    /// Wraps the body of the response, to keep the connection in this phase until hyper has taken the whole
    /// body.
    pub(super) fn with(self, body: Body) -> Held {
        Held { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(Phase::Waiting);
    }
}

/// The body of a response, which holds its connection in the answering phase.
#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    _answering: Answering,
}

impl body::Body for Held {
    type Data = Bytes;
    type Error = <Body as body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The address under which a peer is counted. An IPv6 host usually has a whole /64, and any local user can
/// use all loopback addresses.
fn site_of(peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    match peer {
        _ if peer.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => peer,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests;
