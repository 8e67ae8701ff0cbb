use super::*;

const EXPIRATION: Duration = Duration::from_secs(120);
/// A minute before the stamps wrap to zero.
const START: Time = Time::from_nanos(((1 << 32) - 60_000) * 1_000_000);

fn client(port: u16) -> SocketAddr {
    let ip = if port.is_multiple_of(2) { "2001:db8::1" } else { "192.0.2.1" };
    SocketAddr::new(ip.parse().unwrap(), port)
}

type Live = Vec<(SocketAddr, Option<IpAddr>)>;

/// Sweeps every shard at `now`, with all heartbeats that arrived before `drained_until` recorded.
fn sweep_all(registry: &Registry, drained_until: Time, now: Time) -> (Live, Vec<SocketAddr>) {
    let (live, removed) = sweep_pressed(registry, drained_until, now, false);
    assert!(removed.iter().all(|(_, removal)| *removal == Removal::Expired));
    (live, removed.into_iter().map(|(client, _)| client).collect())
}

fn sweep_pressed(
    registry: &Registry,
    drained_until: Time,
    now: Time,
    is_pressed: bool,
) -> (Live, Vec<(SocketAddr, Removal)>) {
    let mut live = Vec::new();
    let mut sweep = Sweep::default();
    for shard in 0..SHARDS {
        registry.sweep(shard, now, drained_until, |_| is_pressed, &mut sweep);
    }
    let Sweep { v4, v6, sources, removed } = sweep;
    let source = |id| sources.address(id);
    live.extend(v4.into_iter().map(|target| (target.client.into(), source(target.source))));
    live.extend(v6.into_iter().map(|target| (target.client.into(), source(target.source))));
    (live, removed)
}

#[test]
fn an_entry_takes_24_bytes_for_ipv4_and_36_for_ipv6() {
    assert_eq!(size_of::<(SocketAddrV4, SharedValue<Client>)>(), 24);
    assert_eq!(size_of::<(KeyV6, SharedValue<Client>)>(), 36);
}

#[test]
fn a_client_expires_one_nanosecond_after_its_expiration() {
    for client in [client(1), client(2)] {
        let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
        let is_registered = |refreshed| matches!(refreshed, Refreshed::Registered { .. });
        assert!(is_registered(registry.refresh(client, None, START, || true)));
        // The fraction of a millisecond is truncated.
        let heartbeat = START + Duration::from_nanos(999_999);
        assert_eq!(registry.refresh(client, None, heartbeat, || true), Refreshed::Renewed);
        let last = START + EXPIRATION;
        let over = last + Duration::from_nanos(1);
        assert_eq!(sweep_all(&registry, over, last), (vec![(client, None)], vec![]));
        assert_eq!(sweep_all(&registry, over, over), (vec![], vec![client]));
        assert!(registry.is_empty());
    }
}

#[test]
fn no_client_is_removed_while_heartbeats_may_be_queued() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    registry.refresh(client(1), None, START, || true);
    registry.refresh(client(2), None, START, || true);
    let later = START + Duration::from_secs(3600);
    assert_eq!(sweep_all(&registry, START, later), (vec![], vec![]));
    assert_eq!(registry.len(), 2);

    registry.refresh(client(2), None, later, || true);
    let live = vec![(client(2), None)];
    assert_eq!(sweep_all(&registry, later, later), (live, vec![client(1)]));
}

#[test]
fn a_ping_leaves_from_the_local_address_of_the_last_heartbeat() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    let [one, other] = ["192.0.2.10", "192.0.2.11"].map(|ip| ip.parse().ok());
    // If the kernel does not report the local address, the client keeps its previous one.
    for (hit, expected) in [(None, None), (one, one), (other, other), (None, other), (one, one)] {
        registry.refresh(client(1), hit, START, || true);
        let (live, _) = sweep_all(&registry, START, START);
        assert_eq!(live.len(), 1);
        assert_eq!(live[0].1, expected);
    }
}

#[test]
fn a_late_heartbeat_does_not_overwrite_a_newer_one() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    let newer = START + Duration::from_secs(60);
    registry.refresh(client(1), None, newer, || true);
    registry.refresh(client(1), Some("192.0.2.10".parse().unwrap()), START, || true);
    let live = vec![(client(1), None)];
    assert_eq!(sweep_all(&registry, newer + EXPIRATION, newer + EXPIRATION), (live, vec![]));
}

#[test]
fn a_heartbeat_newer_than_the_sweep_keeps_its_client() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    let newer = START + Duration::from_secs(600);
    registry.refresh(client(1), None, newer, || true);
    assert_eq!(sweep_all(&registry, newer, START).0.len(), 1);
}

#[test]
fn clients_with_different_scopes_are_distinct() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    let client = |scope| SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, scope).into();
    for scope in [2, 3, 2] {
        registry.refresh(client(scope), None, START, || true);
    }
    let (mut live, _) = sweep_all(&registry, START, START);
    live.sort_unstable();
    assert_eq!(live, [(client(2), None), (client(3), None)]);
}

#[test]
fn the_first_client_of_a_shard_is_flagged_for_each_family() {
    let registry = Registry::new(2, EXPIRATION, Seed::random());
    let mut firsts = [0, 0];
    for port in 1..=100 {
        let filled = [0, 1].map(|shard| !registry.is_shard_empty(shard));
        let refreshed = registry.refresh(client(port), None, START, || true);
        let Refreshed::Registered { shard, is_first } = refreshed else { panic!("is new") };
        assert!(is_first || filled[shard]);
        assert!(!registry.is_shard_empty(shard));
        firsts[shard] += u32::from(is_first);
    }
    assert_eq!(firsts, [2, 2]);

    let over = START + EXPIRATION + Duration::from_millis(1);
    registry.sweep(0, over, over, |_| false, &mut Sweep::default());
    assert!(registry.is_shard_empty(0) && !registry.is_shard_empty(1));
}

#[test]
fn admission_is_checked_on_registration_but_not_on_renewal() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    assert_eq!(registry.refresh(client(1), None, START, || false), Refreshed::NoRoom);
    assert!(registry.is_empty());
    registry.refresh(client(1), None, START, || true);
    let refreshed = registry.refresh(client(1), None, START, || panic!("it is a client"));
    assert_eq!(refreshed, Refreshed::Renewed);
}

#[test]
fn a_single_heartbeat_client_can_be_evicted_after_its_probation() {
    for (once, twice) in [(client(1), client(3)), (client(2), client(4))] {
        let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
        registry.refresh(once, None, START, || true);
        registry.refresh(twice, None, START, || true);
        registry.refresh(twice, None, START, || true);
        let probation = START + Duration::from_secs(45);
        let over = probation + Duration::from_nanos(1);
        assert_eq!(
            sweep_pressed(&registry, probation, over, true).0.len(),
            2,
            "one may be waiting"
        );
        assert_eq!(sweep_pressed(&registry, over, probation, true).0.len(), 2);
        assert_eq!(sweep_pressed(&registry, over, over, false).0.len(), 2);
        let expected = (vec![(twice, None)], vec![(once, Removal::MadeWay)]);
        assert_eq!(sweep_pressed(&registry, over, over, true), expected);
    }
}

#[test]
fn a_muted_client_is_pinged_again_after_its_next_heartbeat() {
    for client in [client(1), client(2)] {
        let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
        registry.mute(client);
        assert_eq!(registry.last_heartbeat(client, START), None);
        registry.refresh(client, None, START, || true);
        let last = START + EXPIRATION;
        assert_eq!(registry.last_heartbeat(client, last), Some(START));
        assert_eq!(registry.last_heartbeat(client, last + Duration::from_nanos(1)), None);
        registry.mute(client);
        assert_eq!(registry.last_heartbeat(client, START), None);
        assert_eq!(sweep_all(&registry, START, START), (vec![], vec![]));
        registry.refresh(client, None, START, || true);
        assert_eq!(sweep_all(&registry, START, START), (vec![(client, None)], vec![]));
        registry.mute(client);
        let over = last + Duration::from_secs(1);
        assert_eq!(sweep_all(&registry, over, over), (vec![], vec![client]));
    }
}

#[test]
fn evict_removes_only_the_matching_clients() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    for port in 1..=100 {
        registry.refresh(client(port), None, START, || true);
    }
    let mut evicted = Vec::new();
    for shard in 0..SHARDS {
        registry.evict(shard, |ip| ip.is_ipv4(), &mut evicted);
    }
    assert!(evicted.len() == 50 && evicted.iter().all(SocketAddr::is_ipv4));
    assert_eq!(registry.len(), 50);
}

#[test]
fn a_view_has_all_the_state_of_a_client() {
    for client in [client(1), client(2)] {
        let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
        assert_eq!(registry.view(client, START), None);
        let later = START + Duration::from_millis(90_500);
        registry.refresh(client, None, START, || true);
        sweep_all(&registry, START, START);
        registry.refresh(client, None, later, || true);
        sweep_all(&registry, START, later);
        sweep_all(&registry, START, later);
        registry.take_ping_back(client);
        registry.mute(client);
        sweep_all(&registry, START, later);

        let expected = View {
            address: client,
            first_seen: Time::from_secs(START.as_secs().try_into().unwrap()),
            last_heartbeat: later,
            heartbeats: 2,
            pings: 2,
            is_muted: true,
            local: None,
        };
        assert_eq!(registry.view(client, later), Some(expected));
        let mut seen = Vec::new();
        for shard in 0..SHARDS {
            let before = seen.len();
            registry.look_at(shard, later, |view| seen.push(view));
            assert_eq!(registry.shard_len(shard), seen.len() - before);
        }
        assert_eq!(seen, [expected]);
        let families = if client.is_ipv4() { (1, 0) } else { (0, 1) };
        assert_eq!(registry.families(), families);
    }
}

#[test]
fn a_restored_client_keeps_its_state_and_its_shard() {
    for client in [client(1), client(2)] {
        let hit = "192.0.2.7".parse().ok();
        let before = Registry::new(SHARDS, EXPIRATION, Seed::random());
        before.refresh(client, hit, START, || true);
        before.refresh(client, hit, START + Duration::from_secs(1), || true);
        sweep_all(&before, START, START + Duration::from_secs(2));
        before.mute(client);
        let now = START + Duration::from_secs(3);
        let known = before.view(client, now).unwrap();
        assert_eq!(known.local, hit);

        let after = Registry::new(SHARDS, EXPIRATION, before.seed());
        assert_eq!(after.restore(&known, || false), Refreshed::NoRoom);
        assert_eq!(after.local_use().addresses, 0);
        let restored = after.restore(&known, || true);
        let home = (0..SHARDS).find(|shard| !before.is_shard_empty(*shard)).unwrap();
        assert_eq!(restored, Refreshed::Registered { shard: home, is_first: true });
        assert_eq!(after.view(client, now), Some(known));

        after.refresh(client, None, now, || true);
        assert_eq!(after.restore(&known, || true), Refreshed::Renewed);
        assert_eq!(after.view(client, now).unwrap().last_heartbeat, now, "the younger one stays");
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what the kernel may tell")]
fn local(number: u32) -> Option<IpAddr> {
    Some(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into())
}

#[test]
fn a_client_occupies_only_one_local_address() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    for number in 0..20_000 {
        registry.refresh(client(1), local(number), START, || true);
        registry.refresh(client(2), local(number), START, || false);
    }
    assert_eq!(registry.local_use(), LocalUse { addresses: 1, clients_without: 0 });
    assert_eq!(sweep_all(&registry, START, START).0, [(client(1), local(19_999))]);
}

#[test]
fn a_client_gets_its_local_address_once_the_table_has_room() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    let full = 16_382;
    for number in 0..=full {
        let client = client(u16::try_from(number).unwrap());
        registry.refresh(client, local(number), START, || true);
    }
    assert_eq!(registry.local_use(), LocalUse { addresses: 16_382, clients_without: 1 });
    let last = client(16_382);
    let hit = || registry.view(last, START).unwrap().local;
    assert_eq!(hit(), None);
    registry.refresh(last, local(full), START, || true);
    assert_eq!(hit(), None, "there is still no room");
    registry.refresh(client(7), local(8), START, || true);
    registry.refresh(last, local(full), START, || true);
    assert_eq!(hit(), local(full));
    assert_eq!(registry.local_use(), LocalUse { addresses: 16_382, clients_without: 0 });
}

#[test]
fn a_local_address_is_freed_with_its_last_client() {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    let addresses = || registry.local_use().addresses;
    for port in 1..=10 {
        registry.refresh(client(port), local((port / 2).into()), START, || true);
    }
    assert_eq!(addresses(), 6);
    registry.refresh(client(1), local(1), START, || true);
    assert_eq!(addresses(), 5);
    registry.refresh(client(2), local(2), START, || true);
    assert_eq!(addresses(), 5, "another client sends to it");
    registry.refresh(client(10), local(4), START, || true);
    assert_eq!(addresses(), 4);
    for shard in 0..SHARDS {
        registry.evict(shard, |ip| ip.is_ipv4(), &mut Vec::new());
    }
    assert_eq!(addresses(), 3);
    sweep_all(&registry, START + EXPIRATION * 2, START + EXPIRATION * 2);
    assert_eq!(registry.local_use(), LocalUse::default());
}

/// Clients move to new local addresses while other threads sweep and view them. The upper half of a client's
/// local addresses is its number.
#[test]
fn no_client_gets_the_local_address_of_another() {
    const CLIENTS: u16 = 64;
    let registry = Registry::new(2, EXPIRATION, Seed::random());
    let of = |port: u16, step: u16| local(u32::from(port) << 16 | u32::from(step));
    let is_its_own = |client: SocketAddr, local: Option<IpAddr>| {
        let Some(IpAddr::V4(local)) = local else { panic!("{client} has {local:?}") };
        assert_eq!(local.octets()[1], u8::try_from(client.port()).unwrap());
    };
    let register = |step| {
        for port in 0..CLIENTS {
            registry.refresh(client(port), of(port, step), START, || true);
        }
    };
    register(0);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| (1..=5_000).for_each(register));
        let mut sweep = Sweep::default();
        while !moving.is_finished() {
            for shard in 0..2 {
                sweep.clear();
                registry.sweep(shard, START, START, |_| false, &mut sweep);
                std::thread::yield_now();
                let Sweep { v4, v6, sources, .. } = &sweep;
                for to in v4 {
                    is_its_own(to.client.into(), sources.address(to.source));
                }
                for to in v6 {
                    is_its_own(to.client.into(), sources.address(to.source));
                }
                registry.look_at(shard, START, |view| is_its_own(view.address, view.local));
            }
        }
    });
    assert_eq!(registry.local_use().addresses, usize::from(CLIENTS));
}
