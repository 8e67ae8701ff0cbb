//! A network out of room: a full queue, and a full connection table in a firewall.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::daemon::count;
use crate::support::needs::Need;
use crate::support::network::NEEDS;
use crate::support::scene::{SERVER, Scene, address, number};

#[test]
fn a_full_queue_costs_only_the_clients_behind_it_a_ping() {
    require!(NEEDS, [Need::Program("tc")]);
    let scene = Scene::new(&[]);
    // Clients behind the narrow wire share batches with the others.
    scene.server.wire("narrow", &scene.client, "narrow");
    scene.server.run(
        "ip route add 203.0.113.0/24 dev narrow
         ip neighbour add 203.0.113.7 lladdr 02:00:00:00:00:01 dev narrow nud permanent
         tc qdisc add dev narrow root pfifo limit 0",
    );
    for n in 0..500 {
        for ip in [[203, 0, 113, 7], [198, 51, 100, 7]] {
            let source = SocketAddr::new(Ipv4Addr::from(ip).into(), 10_000 + n);
            scene.stranger.heartbeat(source, address(SERVER));
        }
    }
    scene.daemon.wait_for_line("reason=\"no_buffers\"");
    let _ = scene.wire.pings(Duration::ZERO);
    let pings = scene.wire.pings(Duration::from_millis(4_500));
    let open = pings.iter().filter(|(client, _)| client.ip() == Ipv4Addr::new(198, 51, 100, 7));
    let open: Vec<_> = open.map(|(_, pings)| *pings).collect();
    assert_eq!(open.len(), 500);
    assert!(open.iter().all(|pings| (4..=5).contains(pings)), "{open:?}");
    let lines = scene.end();
    assert!(number(&lines, "failed_pings") > 1_000);
}

#[test]
fn a_full_connection_table_costs_no_client_a_ping() {
    require!(NEEDS, [Need::Program("nft")]);
    let scene = Scene::flooded(&[("MAX_CLIENTS", "1000")]);
    let table = |name: &str| -> u32 {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        let output = scene.server.command("cat").arg(path).output().unwrap().stdout;
        String::from_utf8(output).unwrap().trim().parse().unwrap()
    };
    scene.server.run(
        "nft add table ip filter
         nft add chain ip filter in '{ type filter hook input priority 0; }'
         nft add rule ip filter in ct state new accept",
    );
    // The table keeps a connection with traffic in both directions.
    std::thread::sleep(Duration::from_secs(3));
    let size = table("max");
    for n in 0..size + size / 8 {
        let source = SocketAddr::new(
            Ipv4Addr::from_bits(0xC633_0000 + n / 50_000).into(),
            u16::try_from(10_000 + n % 50_000).unwrap(),
        );
        scene.stranger.heartbeat(source, address(SERVER));
    }
    let count_now = table("count");
    assert!(count_now > size - size / 10, "{count_now} of {size}");
    std::thread::sleep(Duration::from_secs(3));
    let lines = scene.end();
    assert_eq!(count(&lines, "cannot receive"), 0);
}
