//! A virtual IP address moves to another machine while the daemon serves many clients from it.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::support::daemon::wait_until;
use crate::support::network::Host;
use crate::support::network::NEEDS;
use crate::support::scene::{alone, at, number};
use crate::support::stranger::Stranger;
use crate::support::web::{get, metric};
use crate::support::witness::Witness;

/// The address that stays, the one that moves, and the port of the daemon.
const STAYS: &str = "192.0.2.1";
const MOVES: &str = "192.0.2.2";
const PORT: u16 = 7561;

/// Far more clients than a worker can retry one by one within a slot.
const CROWD: u32 = 100_000;

#[test]
#[ignore = "floods for half a minute"]
fn an_address_that_moves_away_with_a_crowd_costs_no_other_client_a_ping() {
    require!(NEEDS);
    let _alone = alone();
    let (server, client) = (Host::new(), Host::new());
    server.wire("wire", &client, "wire");
    server.run(
        "ip address add 192.0.2.1/24 dev wire
         ip address add 192.0.2.2/24 dev wire
         ip route add default via 192.0.2.9",
    );
    client.run("ip address add 192.0.2.9/24 dev wire");
    let settings = [("HOST", "0.0.0.0"), ("LOG_LEVEL", "INFO"), ("HTTP_ADDR", "127.0.0.1:7561")];
    let daemon = server.serve(&settings);
    let http = daemon.http();
    let status = || server.within(|| get(http, "/metrics"));
    let stranger = client.within(|| Stranger::new(None));
    let source = |n: u32| {
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + n);
        at(&ip.to_string(), 5_000)
    };
    for piece in 0..CROWD / 1_000 {
        (piece * 1_000..(piece + 1) * 1_000)
            .for_each(|n| stranger.heartbeat(source(n), at(MOVES, PORT)));
        let registered = || metric(&status().body, "wakeupd_heartbeats_total");
        wait_until("the crowd registers", || registered() >= f64::from((piece + 1) * 1_000));
    }
    let phone = || client.within(|| UdpSocket::bind("192.0.2.9:0").unwrap());
    let witnesses = [(); 8].map(|()| Witness::new(phone(), at(STAYS, PORT)));
    let moved = Witness::new(phone(), at(MOVES, PORT));
    server.run("ip address del 192.0.2.2/24 dev wire");
    witnesses[0].sees(10);
    for witness in &witnesses {
        witness.missed_nothing(&daemon);
    }
    server.run("ip address add 192.0.2.2/24 dev wire");
    moved.comes_back(&daemon);
    std::thread::sleep(Duration::from_secs(1));
    let lines = daemon.stop();
    assert_eq!(number(&lines, "failed_pings"), 0, "the kernel chose another address");
}
