use super::*;

#[test]
fn a_cursor_round_trips() {
    for address in ["192.0.2.1:5000", "[2001:db8::1]:5000", "[fe80::1%3]:5000"] {
        let sorts =
            [Sort::Address, Sort::FirstSeen, Sort::LastHeartbeat, Sort::Heartbeats, Sort::Pings];
        for (sort, is_descending) in sorts.into_iter().zip([false, true].into_iter().cycle()) {
            let address = address.parse().unwrap();
            let rank = Rank { sort, is_descending, value: u64::MAX, address };
            assert_eq!(Rank::from_cursor(&rank.to_cursor()), Some(rank));
        }
    }
    for wrong in ["", "AAAA", "!", "Kw", "KzEv", "KzEvMTkyLjAuMi4x"] {
        assert_eq!(Rank::from_cursor(wrong), None, "{wrong}");
    }
}

#[test]
fn no_client_is_first_seen_after_its_last_heartbeat() {
    let first_seen = Time::from_secs(1_000);
    for boot_millis in (0..1_000).step_by(100) {
        for wall_millis in (0..1_000).step_by(100) {
            let last_heartbeat = first_seen + Duration::from_millis(boot_millis);
            let instant = Instant {
                now: last_heartbeat,
                wall: Time::from_secs(2_000) + Duration::from_millis(wall_millis),
                expiration: Duration::from_secs(120),
            };
            let shown = instant.show(View {
                address: "192.0.2.1:5000".parse().unwrap(),
                first_seen,
                last_heartbeat,
                heartbeats: 1,
                pings: 0,
                is_muted: false,
                local: None,
            });
            let time = |text: &str| humantime::parse_rfc3339(text).unwrap();
            assert!(time(&shown.first_seen) <= time(&shown.last_heartbeat), "{shown:?}");
        }
    }
}
