use super::*;

const CAPS: Caps = Caps { clients: 100, per_address: 4, per_prefix: 8 };

fn guard(mode: Mode, caps: Caps) -> Guard {
    let rules = Rules {
        mode,
        refuse_nets: "198.51.100.0/24".parse().unwrap(),
        local_nets: "10.0.0.0/8,fd00::/8".parse().unwrap(),
        nat64_prefixes: "2001:db8:64::/48".parse().unwrap(),
        caps,
    };
    Guard::new(rules, 9000, "203.0.113.0/24".parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn sources_that_must_not_be_pinged_are_refused() {
    let guard = guard(Mode::Enforce, CAPS);
    for (source, expected) in [
        ("192.0.2.1:0", Err(Refused::SourcePortZero)),
        ("192.0.2.1:1", Err(Refused::SystemPort)),
        ("192.0.2.1:1023", Err(Refused::SystemPort)),
        ("192.0.2.1:1024", Ok(())),
        ("192.0.2.1:7560", Ok(())),
        ("192.0.2.1:7561", Err(Refused::DaemonPort)),
        ("192.0.2.1:7562", Ok(())),
        ("192.0.2.1:9000", Err(Refused::DaemonPort)),
        ("192.0.2.1:65535", Ok(())),
        ("0.0.0.0:5000", Err(Refused::Unspecified)),
        ("0.255.255.255:5000", Err(Refused::Unspecified)),
        ("1.0.0.0:5000", Ok(())),
        ("223.255.255.255:5000", Ok(())),
        ("224.0.0.0:5000", Err(Refused::Multicast)),
        ("239.255.255.255:5000", Err(Refused::Multicast)),
        ("240.0.0.0:5000", Err(Refused::Reserved)),
        ("255.255.255.255:5000", Err(Refused::Reserved)),
        ("169.253.255.255:5000", Ok(())),
        ("169.254.0.0:5000", Err(Refused::LinkLocal)),
        ("169.254.169.254:5000", Err(Refused::LinkLocal)),
        ("169.255.0.0:5000", Ok(())),
        ("127.0.0.1:5000", Ok(())),
        ("198.51.100.9:5000", Err(Refused::RefuseNets)),
        ("203.0.113.9:5000", Err(Refused::DenyFile)),
        ("[2001:db8::1]:0", Err(Refused::SourcePortZero)),
        ("[2001:db8::1]:53", Err(Refused::SystemPort)),
        ("[2001:db8::1]:7561", Err(Refused::DaemonPort)),
        ("[2001:db8::1]:9000", Err(Refused::DaemonPort)),
        ("[2001:db8::1]:5000", Ok(())),
        ("[::]:5000", Err(Refused::Unspecified)),
        ("[::1]:5000", Ok(())),
        ("[ff00::]:5000", Err(Refused::Multicast)),
        ("[ff02::1]:5000", Err(Refused::Multicast)),
        ("[fe80::1]:5000", Ok(())),
        ("[::ffff:192.0.2.1]:5000", Err(Refused::Ipv4Mapped)),
        ("[64:ff9b::192.0.2.1]:5000", Ok(())),
        ("[64:ff9b::192.0.2.1]:53", Err(Refused::SystemPort)),
        ("[64:ff9b::10.0.0.1]:5000", Ok(())),
        ("[64:ff9b::0.1.2.3]:5000", Err(Refused::Unspecified)),
        ("[64:ff9b:1::127.0.0.1]:5000", Err(Refused::TranslatedLoopback)),
        ("[64:ff9b::169.254.169.254]:5000", Err(Refused::LinkLocal)),
        ("[64:ff9b::224.0.0.1]:5000", Err(Refused::Multicast)),
        ("[64:ff9b::255.255.255.255]:5000", Err(Refused::Reserved)),
        ("[64:ff9b:1:7::198.51.100.9]:5000", Err(Refused::RefuseNets)),
        ("[64:ff9b::203.0.113.9]:5000", Err(Refused::DenyFile)),
        // 203.0.113.9, 127.0.0.1 and 192.0.2.1 behind the configured prefix.
        ("[2001:db8:64:cb00:71:900::]:5000", Err(Refused::DenyFile)),
        ("[2001:db8:64:7f00:0:100::]:5000", Err(Refused::TranslatedLoopback)),
        ("[2001:db8:64:c000:2:100::]:5000", Ok(())),
    ] {
        assert_eq!(guard.admit(source.parse().unwrap()), expected, "{source}");
    }
}

#[test]
fn the_deny_list_can_be_replaced() {
    let guard = guard(Mode::Enforce, CAPS);
    let source = |text: &str| text.parse().unwrap();
    guard.deny("192.0.2.0/24".parse().unwrap());
    assert_eq!(guard.admit(source("192.0.2.9:5000")), Err(Refused::DenyFile));
    assert_eq!(guard.admit(source("203.0.113.9:5000")), Ok(()));
}

#[test]
fn a_broadcast_address_never_registers() {
    let address = ip("192.0.2.255");
    for mode in [Mode::Enforce, Mode::Observe] {
        let guard = guard(mode, CAPS);
        assert_eq!(guard.reserve(address), Ok(()), "the machine is not on that network yet");
        guard.set_broadcasts(vec!["192.0.2.255".parse().unwrap()]);
        assert_eq!(guard.reserve(address), Err(Refused::Broadcast));
        assert!(guard.refuses(Refused::Broadcast));
        assert_eq!(guard.reserve(ip("192.0.2.254")), Ok(()));
    }
}

#[test]
fn each_cap_has_its_own_reason_and_released_clients_free_room() {
    let guard = guard(Mode::Enforce, CAPS);
    for [address, neighbour, other, next] in [
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1"],
        ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"],
    ]
    .map(|ips| ips.map(ip))
    {
        for _ in 0..4 {
            assert_eq!(guard.reserve(address), Ok(()));
            assert_eq!(guard.reserve(neighbour), Ok(()));
        }
        let would_admit = |ip| guard.would_admit(SocketAddr::new(ip, 5000));
        assert_eq!(would_admit(address), Err(Refused::MaxClientsPerAddress));
        assert_eq!(guard.reserve(address), Err(Refused::MaxClientsPerAddress));
        assert_eq!(would_admit(other), Err(Refused::MaxClientsPerPrefix));
        assert_eq!(guard.reserve(other), Err(Refused::MaxClientsPerPrefix));
        assert_eq!(would_admit(next), Ok(()));
        assert_eq!(guard.reserve(next), Ok(()));
        guard.release(address);
        assert_eq!(guard.reserve(other), Ok(()));
        assert_eq!(guard.reserve(address), Err(Refused::MaxClientsPerPrefix));
    }
    assert_eq!(guard.total(), 18);
    while guard.total() < CAPS.clients {
        assert_eq!(guard.reserve(ip("10.0.0.1")), Ok(()), "a local address is a crowd's");
    }
    assert_eq!(guard.would_admit("10.0.0.1:5000".parse().unwrap()), Err(Refused::MaxClients));
    assert_eq!(guard.would_admit("10.0.0.1:53".parse().unwrap()), Err(Refused::SystemPort));
    assert_eq!(guard.reserve(ip("10.0.0.1")), Err(Refused::MaxClients));
    assert_eq!(guard.reserve(ip("192.0.9.1")), Err(Refused::MaxClients));
    guard.release(ip("10.0.0.1"));
    assert_eq!(guard.reserve(ip("192.0.9.1")), Ok(()));
}

#[test]
fn ipv4_hosts_behind_a_translator_count_as_ipv4() {
    let guard = guard(Mode::Enforce, CAPS);
    let ways =
        ["192.0.2.1", "64:ff9b::c000:201", "64:ff9b:1:7::192.0.2.1", "2001:db8:64:c000:2:100::"]
            .map(ip);
    for way in ways {
        assert_eq!(guard.reserve(way), Ok(()));
    }
    for way in ways {
        assert_eq!(guard.reserve(way), Err(Refused::MaxClientsPerAddress));
        assert!(guard.is_pressed(way));
    }
    let neighbour = ip("64:ff9b::192.0.2.2");
    for _ in 0..4 {
        assert_eq!(guard.reserve(neighbour), Ok(()));
    }
    assert_eq!(guard.reserve(ip("64:ff9b::192.0.2.3")), Err(Refused::MaxClientsPerPrefix));
    // Other networks have room, and an embedded private address is not in a local network.
    for _ in 0..4 {
        assert_eq!(guard.reserve(ip("64:ff9b::198.18.0.1")), Ok(()));
        assert_eq!(guard.reserve(ip("64:ff9b::10.0.0.1")), Ok(()));
    }
    assert_eq!(guard.reserve(ip("64:ff9b::10.0.0.1")), Err(Refused::MaxClientsPerAddress));
    assert_eq!(guard.reserve(ip("10.0.0.1")), Ok(()));
    guard.release(ways[3]);
    assert_eq!(guard.reserve(ways[0]), Ok(()));
    assert_eq!(guard.reserve(ways[0]), Err(Refused::MaxClientsPerAddress));
}

#[test]
fn observe_mode_counts_clients_above_the_caps() {
    let guard = guard(Mode::Observe, Caps { clients: 3, ..CAPS });
    for _ in 0..3 {
        assert_eq!(guard.reserve(ip("192.0.2.1")), Ok(()));
    }
    assert_eq!(guard.reserve(ip("192.0.2.1")), Err(Refused::MaxClients));
    assert_eq!(guard.total(), 4);
    assert!(!guard.is_pressed(ip("192.0.2.1")));
    for _ in 0..4 {
        guard.release(ip("192.0.2.1"));
    }
    assert_eq!(guard.total(), 0);
    assert_eq!(guard.reserve(ip("192.0.2.1")), Ok(()));
}

#[test]
fn the_guard_is_pressed_above_three_quarters_of_a_cap() {
    for (text, caps) in [
        ("192.0.2.1", Caps { clients: 8, per_address: 100, per_prefix: 100 }),
        ("192.0.2.1", Caps { clients: 100, per_address: 8, per_prefix: 100 }),
        ("192.0.2.1", Caps { clients: 100, per_address: 100, per_prefix: 8 }),
        ("10.0.0.1", Caps { clients: 8, per_address: 1, per_prefix: 1 }),
    ] {
        let guard = guard(Mode::Enforce, caps);
        let pressed: Vec<_> = (0..8)
            .map(|_| {
                guard.reserve(ip(text)).unwrap();
                guard.is_pressed(ip(text))
            })
            .collect();
        assert_eq!(pressed, [false, false, false, false, false, false, true, true], "{caps:?}");
        let stranger = ip("192.0.9.1");
        assert_eq!(guard.is_pressed(stranger), caps.clients == 8);
    }
}

#[test]
fn each_reason_matches_its_index() {
    for (index, reason) in Refused::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}
