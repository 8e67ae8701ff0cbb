//! Which connections stay open when more are wanted than the endpoint serves.
//!
//! The daemon cannot know what a connection is for until its request has arrived, so it always accepts a
//! new one: if the limits leave no room, it closes the least useful connection of the address that has the
//! most. A health check therefore gets its answer, however many connections idle or stream.

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

/// The most connections at a time.
pub const MOST_CONNECTIONS: usize = MOST_REMOTE + MOST_PER_ADDRESS;

/// The most connections at a time from other machines. Loopback has room of its own.
const MOST_REMOTE: usize = 96;

/// The most connections at a time from one address: an IPv4 address, an IPv6 /64, or loopback.
const MOST_PER_ADDRESS: usize = 32;

/// The most event streams at a time to other machines: half of their connections.
const MOST_REMOTE_STREAMS: usize = MOST_REMOTE / 2;

/// The most event streams at a time to one address: half of its connections.
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
    /// No request has arrived yet, or not the whole of its head.
    Waiting,
    Answering,
    Streaming,
}

impl Connections {
    /// Makes room for a connection from `peer`, and returns it with the peer of the connection that was
    /// closed for it, if any.
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
    /// The connection to close for one from `newcomer`, if there is no room: of the address with the most,
    /// one that waits for a request if any, and otherwise the least recently active one.
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

    /// Turns a connection into an event stream, if the limits allow another. Where other machines have all
    /// that they may, an address takes the oldest stream of the one with the most, unless that would leave
    /// it with more.
    fn stream(&mut self, id: u64) -> bool {
        // A connection that is being closed streams nothing.
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

/// An open connection, which counts until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Connections,
    id: u64,
    peer: SocketAddr,
    close: Arc<Notify>,
}

impl Connection {
    /// Waits until another connection needs the room of this one.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Says that a request has arrived. The connection waits for the next one when the result is dropped.
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

    /// Turns the answer into an event stream, if the limits allow another.
    pub(super) fn stream(&self) -> bool {
        self.0.connections.lock().stream(self.0.id)
    }

    /// The body of the answer, which keeps its connection in this phase until hyper has taken all of it.
    pub(super) fn with(self, body: Body) -> Held {
        Held { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(Phase::Waiting);
    }
}

/// The body of an answer.
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

/// The address to count a peer under. An IPv6 host usually has a whole /64, and any local user has all of
/// loopback.
fn site_of(peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    match peer {
        _ if peer.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => peer,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_nanos(1 << 40);
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn remote(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Opens connections a millisecond apart, and returns them with the ids of those closed for them.
    #[derive(Default)]
    struct Endpoint {
        connections: Connections,
        opened: Vec<Arc<Connection>>,
    }

    impl Endpoint {
        fn now(&self) -> Time {
            START + Duration::from_millis(self.opened.len() as u64)
        }

        fn open(&mut self, ip: IpAddr) -> Arc<Connection> {
            let now = self.now();
            let (connection, _) = self.connections.admit(SocketAddr::new(ip, 5000), now);
            self.opened.push(Arc::new(connection));
            Arc::clone(&self.opened[self.opened.len() - 1])
        }

        fn open_many(&mut self, ip: IpAddr, count: usize) {
            (0..count).for_each(|_| drop(self.open(ip)));
        }

        fn is_open(&self, connection: &Connection) -> bool {
            self.connections.lock().open.contains_key(&connection.id)
        }

        fn count(&self, is_counted: impl Fn(IpAddr) -> bool) -> usize {
            self.connections.lock().open.values().filter(|open| is_counted(open.site)).count()
        }

        /// Says when a connection entered its phase.
        fn set(&self, connection: &Connection, phase: Phase, since: Time) {
            let mut table = self.connections.lock();
            let open = table.open.get_mut(&connection.id).unwrap();
            (open.phase, open.since) = (phase, since);
        }
    }

    #[test]
    fn an_address_beyond_its_share_takes_from_itself() {
        let mut endpoint = Endpoint::default();
        let neighbour = endpoint.open(remote(2));
        let first = endpoint.open(remote(1));
        endpoint.open_many(remote(1), MOST_PER_ADDRESS - 1);
        assert!(endpoint.is_open(&first));
        endpoint.open_many(remote(1), 1);
        assert!(!endpoint.is_open(&first) && endpoint.is_open(&neighbour));
        assert_eq!(endpoint.count(|site| site == remote(1)), MOST_PER_ADDRESS);
    }

    #[test]
    fn other_machines_take_nothing_from_loopback_nor_it_from_them() {
        let mut endpoint = Endpoint::default();
        let local = endpoint.open(LOOPBACK);
        (0..=255).for_each(|n| endpoint.open_many(remote(n), 1));
        assert_eq!(endpoint.count(|site| !site.is_loopback()), MOST_REMOTE);
        assert!(endpoint.is_open(&local));
        let newest = endpoint.open(remote(7));
        for n in 1..=200 {
            endpoint.open_many(IpAddr::from([127, 0, 0, n]), 1);
        }
        endpoint.open_many(Ipv6Addr::LOCALHOST.into(), 1);
        assert!(endpoint.is_open(&newest) && !endpoint.is_open(&local));
        assert_eq!(endpoint.count(|_| true), MOST_CONNECTIONS);
    }

    #[test]
    fn the_address_with_the_most_gives_way() {
        let mut endpoint = Endpoint::default();
        let single = endpoint.open(remote(1));
        for n in 2..5 {
            endpoint.open_many(remote(n), MOST_PER_ADDRESS);
        }
        assert!(endpoint.is_open(&single), "others fill the endpoint from addresses with more");
        endpoint.open_many(remote(9), 10);
        assert!(endpoint.is_open(&single));
        assert_eq!(endpoint.count(|site| site == remote(9)), 10);
    }

    #[test]
    fn idle_connections_go_before_busy_ones_and_the_oldest_first() {
        let mut endpoint = Endpoint::default();
        let [busy, idle, idle_longer, fresh] = std::array::from_fn(|_| endpoint.open(LOOPBACK));
        endpoint.open_many(LOOPBACK, MOST_PER_ADDRESS - 4);
        let ago = |ms: u64| Time::from_nanos(START.as_nanos() - ms * 1_000_000);
        for connection in &endpoint.opened {
            endpoint.set(connection, Phase::Answering, ago(5_000));
        }
        endpoint.set(&busy, Phase::Streaming, ago(60_000));
        endpoint.set(&idle, Phase::Waiting, ago(2_000));
        endpoint.set(&idle_longer, Phase::Waiting, ago(3_000));
        endpoint.set(&fresh, Phase::Waiting, ago(0));
        for closed in [&idle_longer, &idle, &busy] {
            assert!(endpoint.is_open(closed));
            endpoint.open_many(LOOPBACK, 1);
            assert!(!endpoint.is_open(closed));
        }
        endpoint.open_many(LOOPBACK, MOST_PER_ADDRESS - 5);
        assert!(endpoint.is_open(&fresh), "its request may be on the way");
    }

    #[test]
    fn event_streams_are_half_of_the_connections_and_shared_evenly() {
        let mut endpoint = Endpoint::default();
        let mut answers = Vec::new();
        let mut streams = |ip| {
            let answering = endpoint.open(ip).answer();
            let is_stream = answering.stream();
            answers.push(answering);
            is_stream
        };
        for n in 0..3 {
            assert!((0..MOST_STREAMS_PER_ADDRESS).all(|_| streams(remote(n))));
            assert!(!streams(remote(n)));
        }
        assert!((0..MOST_STREAMS_PER_ADDRESS).all(|_| streams(LOOPBACK)));
        assert!(!streams(LOOPBACK));
        // All that other machines may have is in use, and a fourth address gets an equal share.
        let fair = MOST_REMOTE_STREAMS / 4;
        assert!((0..fair).all(|_| streams(remote(3))));
        assert!(!streams(remote(3)));
        let is_stream = |open: &Open| open.phase == Phase::Streaming;
        let table = endpoint.connections.lock();
        for n in 0..4 {
            let own = table.open.values().filter(|open| open.site == remote(n) && is_stream(open));
            assert_eq!(own.count(), fair, "of {}", remote(n));
        }
        drop(table);
    }

    #[test]
    fn what_is_closed_or_over_counts_no_more() {
        let mut endpoint = Endpoint::default();
        let first = endpoint.open(LOOPBACK);
        let answering = first.answer();
        endpoint.open_many(LOOPBACK, MOST_PER_ADDRESS);
        endpoint.opened.clear();
        drop((first, answering));
        assert!(endpoint.connections.lock().open.is_empty());
    }

    #[test]
    fn whoever_has_one_ipv6_address_has_many() {
        let site = |ip: &str| site_of(ip.parse().unwrap()).to_string();
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(site("::1"), "127.0.0.1");
        assert_eq!(site("127.0.0.9"), "127.0.0.1");
        assert_eq!(site("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
