use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::*;
use crate::engine::guard::{Caps, Rules};
use crate::engine::{Datagram, Settings};

const EXPIRATION: Duration = Duration::from_secs(120);
const SHARDS: usize = 8;
const BEGIN: Time = Time::from_secs(1_000_000);

fn engine(max_clients: u32, denied: &str, seed: Seed) -> Engine {
    let caps = Caps { clients: max_clients, per_address: 1_000, per_prefix: 1_000 };
    let settings = Settings {
        denied: denied.parse().unwrap(),
        shards: SHARDS,
        seed,
        ..Settings::new(Rules::new(caps), EXPIRATION, BEGIN)
    };
    Engine::new(settings, BEGIN)
}

fn empty(seed: Seed) -> Engine {
    engine(1_000, "", seed)
}

fn heartbeat(engine: &Engine, now: Time, source: SocketAddr, local: Option<IpAddr>) {
    let waited = Duration::ZERO;
    engine.handle_datagram(now, &Datagram { source, local, payload: &[], waited });
}

fn moment(now: Time, wall: u32, boot: &str) -> Moment {
    Moment { now, wall: Time::from_secs(wall), boot: Some(boot.to_owned()) }
}

fn header(taken: Moment, engine: &Engine) -> Header {
    let program = "0.1.0".to_owned();
    let (seed, slots) = (engine.registry().seed(), engine.slots(taken.now));
    Header { program, taken, port: 7561, seed, slots, pinged_until: None }
}

fn client(number: u16) -> SocketAddr {
    let ip = if number.is_multiple_of(3) { "fe80::1%7" } else { "192.0.2.1" };
    match ip.split_once('%') {
        Some((ip, scope)) => {
            SocketAddrV6::new(ip.parse().unwrap(), 5_000 + number, 0, scope.parse().unwrap()).into()
        }
        None => SocketAddr::new(ip.parse().unwrap(), 5_000 + number),
    }
}

/// Creates 100 clients. Client *n* sends its last heartbeat at *n* seconds.
fn populated() -> Engine {
    let engine = empty(Seed::random());
    let hit =
        |n: u16| (!n.is_multiple_of(4)).then(|| std::net::Ipv4Addr::from_bits(n.into()).into());
    for n in 0..100 {
        let at = |second: u16| BEGIN + Duration::from_millis(u64::from(second) * 1_000 + 7);
        heartbeat(&engine, at(n / 2), client(n), None);
        heartbeat(&engine, at(n), client(n), hit(n % 7));
    }
    for seconds in [2, 3, 4] {
        engine.handle_icmp_error(BEGIN + Duration::from_secs(seconds), Some(client(1)));
    }
    engine
}

fn bytes_of(engine: &Engine, header: &Header, now: Time) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written =
        write(&mut bytes, header, engine.registry(), || now, |_| ControlFlow::Continue(()));
    let expected = Written { clients: engine.registry().len() as u64, bytes: bytes.len() as u64 };
    assert_eq!(written.unwrap(), Some(expected));
    bytes
}

/// Writes a snapshot at `now` and parses it.
fn snapshot_of(engine: &Engine, now: Time) -> Snapshot {
    let header = header(moment(now, 5_000, "a"), engine);
    Snapshot::parse(bytes_of(engine, &header, now)).unwrap()
}

fn views(engine: &Engine, now: Time) -> Vec<(SocketAddr, View, usize)> {
    let mut views = Vec::new();
    for shard in 0..SHARDS {
        engine.registry().look_at(shard, now, |view| {
            views.push((view.address, view, shard));
        });
    }
    views.sort_by_key(|view| view.0);
    views
}

#[test]
fn on_the_same_boot_all_clients_are_restored_unchanged() {
    let before = populated();
    let now = BEGIN + Duration::from_secs(100);
    let mut header = header(moment(now, 5_000, "a"), &before);
    header.pinged_until = Some(now);
    let snapshot = Snapshot::parse(bytes_of(&before, &header, now)).unwrap();
    assert_eq!((snapshot.header(), snapshot.len()), (&header, 100));
    // On the same boot the wall clock is ignored.
    let later = moment(now + Duration::from_millis(1_500), 1, "a");
    assert_eq!(snapshot.pinged_until(&later), Some(now));
    assert_eq!(snapshot.suits(7561, &later), Ok(()));

    let after = empty(snapshot.seed());
    let restored = snapshot.restore(&after, |_| true, &later);
    assert_eq!(restored, Restored { clients: 100, ..Restored::default() });
    assert_eq!(after.guard().total(), 100);
    assert_eq!(views(&after, later.now), views(&before, later.now));
}

#[test]
fn on_another_boot_the_wall_clock_gives_the_remaining_lifetime() {
    let before = populated();
    let now = BEGIN + Duration::from_secs(100);
    let snapshot = snapshot_of(&before, now);
    // The machine was booted 10 s ago, and a minute has passed.
    let later = moment(Time::from_secs(300_000), 5_060, "b");
    assert_eq!(snapshot.pinged_until(&later), None);
    let after = empty(snapshot.seed());
    let restored = snapshot.restore(&after, |_| true, &later);
    // The silences at the snapshot range up to 99.993 s. After this minute, those below 60 s have not expired,
    // but a third of these clients have an interface that may be another one now.
    assert_eq!(restored, Restored { clients: 40, expired: 40, refused: 20 });
    assert_eq!(after.guard().total(), 40);
    for (address, known, ..) in views(&before, now) {
        let silence = now.since(known.last_heartbeat) + Duration::from_secs(60);
        let silence_now = after.registry().view(address, later.now);
        let silence_now = silence_now.map(|view| later.now.since(view.last_heartbeat));
        let is_there = silence <= EXPIRATION && address.is_ipv4();
        assert_eq!(silence_now, is_there.then_some(silence), "{address}");
    }
}

#[test]
fn a_clock_that_was_set_back_extends_no_lifetime() {
    let before = populated();
    let now = BEGIN + Duration::from_secs(100);
    let snapshot = snapshot_of(&before, now);
    let earlier = moment(now, 4_990, "b");
    let ahead = Unusable::FromTheFuture(Duration::from_secs(10));
    assert_eq!(snapshot.suits(7561, &earlier), Err(ahead));
    let restored = snapshot.restore(&empty(snapshot.seed()), |_| true, &earlier);
    assert_eq!(restored, Restored { expired: 100, ..Restored::default() });
    // A shard may be younger than the start of the snapshot.
    let younger =
        Snapshot::parse(bytes_of(&before, snapshot.header(), now + Duration::from_secs(3)))
            .unwrap();
    younger.for_each(now, |client| {
        let known = before.registry().view(client.address, now).unwrap();
        assert_eq!(client.last_heartbeat, known.last_heartbeat);
    });
}

#[test]
fn the_guard_applies_to_restored_clients() {
    let before = populated();
    let now = BEGIN + Duration::from_secs(100);
    let snapshot = snapshot_of(&before, now);
    for (max_clients, denied, clients) in [(30, "", 30), (1_000, "192.0.2.0/24", 34)] {
        let after = engine(max_clients, denied, snapshot.seed());
        let restored = snapshot.restore(&after, |_| true, &snapshot.header().taken);
        assert_eq!(restored, Restored { clients, expired: 0, refused: 100 - clients });
        assert_eq!(
            (after.registry().len() as u64, u64::from(after.guard().total())),
            (clients, clients)
        );
    }
}

/// Clients may be evicted for others while a snapshot is written.
#[test]
fn evicted_clients_take_no_room_from_restored_ones() {
    for room in [30, 51] {
        let before = empty(Seed::random());
        let now = BEGIN + EXPIRATION / 2;
        for n in 0..100 {
            // The first half has not repeated its heartbeat.
            heartbeat(&before, BEGIN, client(n), None);
            if n >= 50 {
                heartbeat(&before, BEGIN, client(n), None);
            }
        }
        let snapshot = snapshot_of(&before, now);
        let after = engine(room, "", snapshot.seed());
        snapshot.restore(&after, |_| true, &snapshot.header().taken);
        let stayed = (50..100).filter(|n| after.registry().view(client(*n), now).is_some()).count();
        assert_eq!((stayed, after.registry().len()), (50.min(room as usize), room as usize));
    }
}

#[test]
fn clients_that_are_no_longer_served_are_not_restored() {
    let before = populated();
    let snapshot = snapshot_of(&before, BEGIN);
    let after = empty(snapshot.seed());
    let later = moment(BEGIN + EXPIRATION, 5_000, "a");
    let restored = snapshot.restore(&after, |client| client.is_ipv4(), &later);
    assert_eq!(restored, Restored { clients: 66, expired: 0, refused: 34 });
    assert_eq!((after.registry().families(), after.guard().total()), ((66, 0), 66));
}

#[test]
fn a_last_ping_time_in_the_future_is_ignored() {
    let engine = populated();
    let mut header = header(moment(BEGIN, 5_000, "a"), &engine);
    header.pinged_until = Some(BEGIN + Duration::from_secs(1));
    let snapshot = Snapshot::parse(bytes_of(&engine, &header, BEGIN)).unwrap();
    let after = |seconds| moment(BEGIN + Duration::from_secs(seconds), 5_000, "a");
    assert_eq!(snapshot.pinged_until(&after(0)), None);
    assert_eq!(snapshot.pinged_until(&after(1)), header.pinged_until);
}

#[test]
fn a_snapshot_of_another_port_is_unusable() {
    let engine = populated();
    let snapshot = snapshot_of(&engine, BEGIN);
    assert_eq!(snapshot.suits(9_000, &snapshot.header().taken), Err(Unusable::OtherPort(7561)));
}

#[test]
fn a_changed_or_truncated_snapshot_is_rejected() {
    let engine = populated();
    let header = header(moment(BEGIN, 5_000, "a"), &engine);
    let whole = bytes_of(&engine, &header, BEGIN);
    assert!(Snapshot::parse(whole.clone()).is_ok());
    for length in 0..whole.len() {
        let error = Snapshot::parse(whole[..length].to_vec()).unwrap_err();
        let expected =
            if length < MAGIC.len() { Unusable::NotOurs } else { Unusable::CutOff(length) };
        assert_eq!(error, expected, "{length} bytes");
    }
    for position in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[position] ^= 1 << bit;
            let error = Snapshot::parse(flipped).expect_err("it is damaged");
            let is_expected = match position {
                0..8 => error == Unusable::NotOurs,
                8..12 => matches!(error, Unusable::Version(_)),
                _ => matches!(error, Unusable::Damaged(_) | Unusable::CutOff(_)),
            };
            assert!(is_expected, "bit {bit} of byte {position}: {error}");
        }
    }
    let longer = [&whole[..], b"\0"].concat();
    assert!(matches!(Snapshot::parse(longer), Err(Unusable::Damaged(_))));
    let mut later = whole;
    later[8] += 1;
    assert_eq!(Snapshot::parse(later).unwrap_err(), Unusable::Version(VERSION + 1));
}

#[test]
fn writing_a_snapshot_can_be_cancelled() {
    let mut pauses = Vec::new();
    let engine = populated();
    let header = header(moment(BEGIN, 5_000, "a"), &engine);
    let written = write(
        io::sink(),
        &header,
        engine.registry(),
        || BEGIN,
        |clients| {
            pauses.push(clients);
            if pauses.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    assert_eq!(written.unwrap(), None);
    let shards: Vec<_> = (0..SHARDS).map(|shard| engine.registry().shard_len(shard)).collect();
    assert_eq!(pauses, shards[..3]);
}
