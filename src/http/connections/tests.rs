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
fn an_address_above_its_share_displaces_its_own_connections() {
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
fn loopback_and_other_machines_have_separate_limits() {
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
fn the_address_with_the_most_connections_is_displaced() {
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
fn idle_connections_are_displaced_first_and_the_oldest_before_others() {
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
fn event_streams_get_half_of_the_connections_shared_evenly() {
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
fn closed_connections_are_no_longer_counted() {
    let mut endpoint = Endpoint::default();
    let first = endpoint.open(LOOPBACK);
    let answering = first.answer();
    endpoint.open_many(LOOPBACK, MOST_PER_ADDRESS);
    endpoint.opened.clear();
    drop((first, answering));
    assert!(endpoint.connections.lock().open.is_empty());
}

#[test]
fn ipv6_connections_are_grouped_by_64_bit_prefix() {
    let site = |ip: &str| site_of(ip.parse().unwrap()).to_string();
    assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(site("::1"), "127.0.0.1");
    assert_eq!(site("127.0.0.9"), "127.0.0.1");
    assert_eq!(site("::ffff:192.0.2.1"), "192.0.2.1");
}
