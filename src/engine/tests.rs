use super::guard::{Caps, Mode, Rules};
use super::registry::Seed;
use super::*;
use crate::counter::Counter;

const START: Time = Time::from_secs(1_000);

fn at(millis: u64) -> Time {
    START + Duration::from_millis(millis)
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn engine(mode: Mode, workers: usize) -> Engine {
    let rules = Rules {
        mode,
        refuse_nets: "198.51.100.0/24".parse().unwrap(),
        ..Rules::new(Caps { clients: 3, per_address: 2, per_prefix: 3 })
    };
    let settings = Settings {
        shards: 4,
        seed: Seed([1, 2]),
        workers,
        ..Settings::new(rules, Duration::from_secs(120), START)
    };
    Engine::new(settings, START)
}

fn heartbeat(engine: &Engine, now: Time, source: SocketAddr) -> Outcome {
    let datagram = Datagram { source, local: None, payload: b"any", waited: Duration::ZERO };
    engine.handle_datagram(now, &datagram)
}

/// The clients pinged by the slots that are due.
fn pings(engine: &Engine, now: Time, worker: usize) -> Vec<SocketAddr> {
    let (mut batch, mut pinged) = (Batch::default(), Vec::new());
    while engine.poll_slot(now, worker, &mut batch).is_some() {
        batch.for_each(|transmit| {
            assert_eq!((transmit.emission.payload(), transmit.source), (&b"ua"[..], None));
            pinged.extend(transmit.destinations);
        });
    }
    pinged
}

#[test]
fn a_client_gets_one_ping_a_second_from_the_only_worker_with_work() {
    let engine = engine(Mode::Enforce, 2);
    let Outcome::Accepted { registered: Some(registered), tolerated: None } =
        heartbeat(&engine, START, client(5000))
    else {
        panic!("it is not registered")
    };
    assert_eq!(registered.wakes, 1);
    for second in 1..=3 {
        let pinged = [0, 1].map(|worker| pings(&engine, at(second * 1_000 - 1), worker));
        assert_eq!(pinged, [vec![client(5000)], vec![]]);
    }
    let again = heartbeat(&engine, at(3_000), client(5000));
    assert_eq!(again, Outcome::Accepted { registered: None, tolerated: None });
    assert_eq!((engine.counters().heartbeats.get(), engine.counters().registrations.get()), (2, 1));
}

#[test]
fn a_cap_refuses_in_enforce_mode_and_only_reports_in_observe_mode() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let engine = engine(mode, 1);
        let outcomes = [5000, 5001, 5002, 53].map(|port| heartbeat(&engine, START, client(port)));
        let is_accepted = |outcome| matches!(outcome, Outcome::Accepted { tolerated: None, .. });
        assert!(is_accepted(outcomes[0]) && is_accepted(outcomes[1]));
        for (outcome, broken) in
            [(outcomes[2], Refused::MaxClientsPerAddress), (outcomes[3], Refused::SystemPort)]
        {
            match outcome {
                Outcome::Refused { reason, .. } => {
                    assert_eq!((mode, reason), (Mode::Enforce, broken));
                }
                Outcome::Accepted { registered, .. } => {
                    assert!(mode == Mode::Observe && registered.is_some());
                }
            }
            assert!(outcome.reasons().any(|reason| reason == broken));
        }
        // With a system port, the fourth client also exceeds the cap.
        let refused: u64 = engine.counters().refused.iter().map(Counter::get).sum();
        assert_eq!(refused, if mode == Mode::Observe { 3 } else { 2 });
    }
}

#[test]
fn a_stale_heartbeat_is_refused_in_every_mode() {
    let waited = Duration::from_secs(200);
    for mode in [Mode::Enforce, Mode::Observe] {
        let engine = engine(mode, 1);
        let datagram = Datagram { source: client(5000), local: None, payload: &[], waited };
        let outcome = engine.handle_datagram(at(300_000), &datagram);
        assert_eq!(outcome.refused(), Some(Refused::Stale));
        assert!(engine.registry().is_empty());
    }
}

#[test]
fn a_worker_never_sleeps_past_the_shutdown() {
    let engine = engine(Mode::Enforce, 1);
    assert!(pings(&engine, START, 0).is_empty());
    assert_eq!(engine.poll_timeout(START, 0), Some(Time::from_nanos(u64::MAX)));
    engine.end(at(300));
    assert!(pings(&engine, at(50), 0).is_empty());
    assert_eq!(engine.poll_timeout(at(50), 0), Some(at(300)));
    assert!(pings(&engine, at(300), 0).is_empty());
    assert_eq!(engine.poll_timeout(at(300), 0), None);
}

#[test]
fn a_slot_that_is_filled_while_its_worker_sleeps_is_served() {
    let engine = engine(Mode::Enforce, 1);
    assert!(pings(&engine, START, 0).is_empty());
    assert_eq!(engine.poll_timeout(START, 0), Some(Time::from_nanos(u64::MAX)));
    let Outcome::Accepted { registered: Some(registered), .. } =
        heartbeat(&engine, at(1), client(5000))
    else {
        panic!("it is not registered")
    };
    assert_eq!(registered.wakes, 1);
    // The worker sleeps past its client's slot.
    let due = registered.shard as u64 * 250;
    assert_eq!(pings(&engine, at(due + 400), 0).len(), usize::from(due > 0));
}

#[test]
fn workers_catch_up_after_a_short_downtime() {
    for (from, expected) in [(START, 3), (START.before(Duration::from_secs(10)), 0)] {
        let engine = engine(Mode::Enforce, 1);
        let now = at(750) + Duration::from_nanos(1);
        engine.resume(now, from, None);
        let mut batch = Batch::default();
        let due = std::iter::from_fn(|| engine.poll_slot(now, 0, &mut batch));
        assert_eq!(due.count(), expected + usize::from(expected > 0));
    }
}

#[test]
fn three_reports_of_a_closed_port_mute_a_client_until_its_next_heartbeat() {
    let engine = engine(Mode::Enforce, 1);
    heartbeat(&engine, START, client(5000));
    let reports =
        [0, 1_000, 2_000].map(|millis| engine.handle_icmp_error(at(millis), Some(client(5000))));
    assert_eq!(reports, [false, false, true]);
    assert!(!engine.handle_icmp_error(at(2_000), None) && engine.wants_icmp_errors(at(2_000)));
    assert!(pings(&engine, at(2_999), 0).is_empty());
    heartbeat(&engine, at(3_000), client(5000));
    assert_eq!(pings(&engine, at(3_999), 0), [client(5000)]);
}

#[test]
fn observe_mode_counts_every_rule_that_a_dropped_datagram_breaks() {
    let engine = engine(Mode::Observe, 1);
    engine.set_broadcasts(vec![Ipv4Addr::new(192, 0, 2, 1)]);
    let outcome = heartbeat(&engine, START, client(53));
    assert_eq!(outcome.refused(), Some(Refused::Broadcast));
    for reason in [Refused::SystemPort, Refused::Broadcast] {
        assert_eq!(engine.counters().refused[reason as usize].get(), 1);
    }
}

#[test]
fn a_removed_client_frees_its_room_after_the_pings() {
    let engine = engine(Mode::Enforce, 1);
    heartbeat(&engine, START, client(5000));
    let over = at(121_000);
    engine.handle_received(over, 0, true);
    engine.resume(over, over.before(MAX_CATCH_UP), None);
    let mut batch = Batch::default();
    while batch.removed().is_empty() {
        engine.poll_slot(over, 0, &mut batch).expect("a slot is due");
    }
    assert_eq!((engine.registry().len(), engine.guard().total()), (0, 1));
    for _ in 0..2 {
        engine.handle_sent(&mut batch);
        assert_eq!(engine.guard().total(), 0);
    }
    assert_eq!(engine.counters().removals[Removal::Expired as usize].get(), 1);
}

#[test]
fn only_slots_with_clients_are_counted() {
    let engine = engine(Mode::Enforce, 1);
    heartbeat(&engine, START, client(5000));
    for second in 1..=3 {
        pings(&engine, at(second * 1_000 - 1), 0);
    }
    pings(&engine, at(12_999), 0);
    let counters = engine.counters();
    let counts = [&counters.served_slots, &counters.skipped_slots, &counters.skipped_pings];
    assert_eq!(counts.map(Counter::get), [4, 9, 9]);
}

#[test]
fn a_worker_gets_work_as_soon_as_the_others_have_too_many_clients() {
    const ENOUGH: u32 = 10_000;
    let caps = Caps { clients: u32::MAX, per_address: u32::MAX, per_prefix: u32::MAX };
    let load = Load { clients_per_worker: ENOUGH as usize, ..Load::default() };
    let settings = Settings {
        workers: 3,
        load,
        ..Settings::new(Rules::new(caps), Duration::from_secs(120), START)
    };
    let engine = Engine::new(settings, START);
    let register = |now, n| {
        let source = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + n), 5000));
        match heartbeat(&engine, now, source) {
            Outcome::Accepted { registered: Some(registered), .. } => registered.wakes,
            other => panic!("{other:?}"),
        }
    };
    let mut batch = Batch::default();
    let mut serve = |now, worker| {
        let mut clients = 0;
        while engine.poll_slot(now, worker, &mut batch).is_some() {
            clients += batch.len();
        }
        (clients, engine.poll_timeout(now, worker).unwrap())
    };
    let forever = Time::from_nanos(u64::MAX);
    let woken: Vec<_> = (0..ENOUGH).filter(|n| register(START, *n) > 0).collect();
    assert!(woken.len() == 256 && woken[255] < 10_000, "only empty shards wake a worker");
    assert_eq!([1, 2].map(|worker| serve(at(100), worker)), [(0, forever); 2]);
    assert_eq!(serve(at(999), 0).0, ENOUGH as usize);

    assert_eq!(register(at(999), ENOUGH), 2);
    assert_eq!(serve(at(999), 1), (0, at(1_000)));
    let [one, other] = [0, 1].map(|worker| serve(at(1_999), worker).0);
    assert_eq!(one + other, ENOUGH as usize + 1);
    assert!(one.abs_diff(other) < 2_000, "{one} {other}");
    assert_eq!(serve(at(1_999), 2), (0, forever));
}
