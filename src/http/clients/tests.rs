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
