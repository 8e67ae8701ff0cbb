//! Behaviour that only shows between several hosts.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use crate::crowd::Crowd;
use crate::support::daemon::{Client, PROGRAM, count, field, output, summary};
use crate::support::needs::Need;
use crate::support::network::{Host, NEEDS};

/// Two hosts on a wire. The server has two addresses of each family, the client one.
fn server_and_client() -> (Host, Host) {
    let (server, client) = (Host::new(), Host::new());
    server.wire("wire", &client, "wire");
    server.run(
        "ip address add 10.9.0.1/24 dev wire
         ip address add 10.9.0.2/24 dev wire
         ip address add fd09::1/64 dev wire nodad
         ip address add fd09::2/64 dev wire nodad
         ip address add fe80::2/64 dev wire nodad",
    );
    client.run(
        "ip address add 10.9.0.9/24 dev wire
         ip address add fd09::9/64 dev wire nodad",
    );
    (server, client)
}

fn probe(host: &Host, target: &str, count: &str) -> Command {
    let mut command = host.command(PROGRAM);
    command.args(["probe", target, "--count", count]);
    command
}

#[test]
fn a_ping_leaves_from_the_address_the_heartbeat_was_sent_to() {
    require!(NEEDS);
    let (server, client) = server_and_client();
    for (host, targets) in [
        ("fe80::2%wire", &["fe80::2%wire"][..]),
        ("0.0.0.0", &["10.9.0.1", "10.9.0.2"]),
        ("::", &["10.9.0.1", "10.9.0.2", "fd09::1", "fd09::2", "fe80::2%wire"]),
    ] {
        let daemon = server.serve(&[("HOST", host)]);
        for target in targets {
            // A probe accepts pings only from its target address.
            let (status, stdout, _) = output(&mut probe(&client, target, "2"));
            assert!(status.success(), "HOST={host}, {target}: {stdout}");
        }
        daemon.stop();
    }
}

#[test]
fn a_ping_leaves_from_another_address_once_the_original_is_gone() {
    require!(NEEDS);
    for (host, any, gone, left) in [
        ("0.0.0.0", "0.0.0.0:0", "10.9.0.2", "10.9.0.1"),
        ("::", "0.0.0.0:0", "10.9.0.2", "10.9.0.1"),
        ("::", "[::]:0", "fd09::2", "fd09::1"),
    ] {
        let (server, client) = server_and_client();
        let daemon = server.serve(&[("HOST", host)]);
        let [gone, left] = [gone, left].map(|ip| SocketAddr::new(ip.parse().unwrap(), 7561));
        let phone = Client::new(client.within(|| UdpSocket::bind(any).unwrap()), gone);
        phone.heartbeat(&[]);
        assert_eq!(phone.ping_from(), gone, "HOST={host}");
        let length = if gone.is_ipv6() { 64 } else { 24 };
        server.run(&format!("ip address del {}/{length} dev wire", gone.ip()));
        // A ping that left earlier may still arrive.
        let next = (0..3).map(|_| phone.ping_from()).find(|source| *source != gone);
        assert_eq!(next, Some(left), "HOST={host}");
        assert_eq!(field(summary(&daemon.stop()), "failed_pings"), "0");
    }
}

#[test]
fn a_dual_stack_daemon_serves_ipv4_on_a_host_without_ipv6() {
    require!(NEEDS);
    let (server, client) = server_and_client();
    server.run("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
    let daemon = server.serve(&[("HOST", "::")]);
    let (status, stdout, _) = output(&mut probe(&client, "10.9.0.2", "2"));
    assert!(status.success(), "{stdout}");
    daemon.stop();
}

#[test]
fn a_client_behind_a_nat_is_pinged() {
    require!(NEEDS, [Need::Program("nft")]);
    let (server, nat) = server_and_client();
    let phone = Host::new();
    nat.wire("inside", &phone, "wire");
    nat.run(
        "ip address add 192.168.7.1/24 dev inside
         echo 1 > /proc/sys/net/ipv4/ip_forward
         nft add table ip nat
         nft add chain ip nat out '{ type nat hook postrouting priority 100; }'
         nft add rule ip nat out oifname wire masquerade",
    );
    phone.run(
        "ip address add 192.168.7.2/24 dev wire
         ip route add default via 192.168.7.1",
    );
    let daemon = server.serve(&[("HOST", "0.0.0.0")]);
    let (status, stdout, _) = output(&mut probe(&phone, "10.9.0.1", "3"));
    assert!(status.success() && stdout.contains("0 missed, 0 duplicated"), "{stdout}");
    assert!(field(&daemon.wait_for_line("registered"), "client").starts_with("10.9.0.9:"));
}

#[test]
fn unreachable_clients_cost_no_other_client_a_ping() {
    require!(NEEDS, [Need::Program("nft")]);
    let (server, client) = server_and_client();
    client.run("ip route add local 10.20.0.0/16 dev lo");
    server.run("ip route add 10.20.0.0/16 via 10.9.0.9");
    let daemon = server.serve(&[("HOST", "0.0.0.0")]);
    let crowd = client.within(|| Crowd::new("10.9.0.1:7561".parse().unwrap()));
    // A thousand of each kind, so that most healthy clients share batches with unreachable ones.
    let network =
        |octet: u32| (0..1_000).map(move |n| Ipv4Addr::from_bits(0x0A14_0000 + (octet << 8) + n));
    let (healthy, sick) = (network(0), [64, 128, 192, 224].map(network));
    let everybody: Vec<_> = healthy.clone().chain(sick.into_iter().flatten()).collect();
    crowd.heartbeats(&everybody);
    crowd.listen(|pings| pings.len() == everybody.len());

    server.run(
        "ip route add unreachable 10.20.64.0/18
         ip route add prohibit 10.20.128.0/18
         ip route add blackhole 10.20.192.0/19
         nft add table ip filter
         nft add chain ip filter out '{ type filter hook output priority 0; }'
         nft add rule ip filter out ip daddr 10.20.224.0/19 drop",
    );
    for reason in ["host_unreachable", "prohibited", "invalid", "not_permitted"] {
        daemon.wait_for_line(&format!("reason=\"{reason}\""));
    }
    // Healthy clients are still pinged. Other clients are not, apart from pings already on their way.
    let is_healthy = |address: &Ipv4Addr| address.octets()[2] < 64;
    let each_healthy = |times: u32| {
        move |pings: &HashMap<Ipv4Addr, u32>| {
            let often = pings.iter().filter(|(address, n)| is_healthy(address) && **n >= times);
            often.count() == 1_000
        }
    };
    crowd.forget_pings();
    crowd.listen(each_healthy(2));
    let pings = crowd.listen(each_healthy(5));
    assert!(pings.keys().all(is_healthy), "only healthy clients are pinged");
    let lines = daemon.stop();
    let warnings = count(&lines, "cannot send");
    let summary = summary(&lines);
    let failed: usize = field(summary, "failed_pings").parse().unwrap();
    assert!(failed >= 10_000, "{summary}");
    assert!(warnings < failed / 100, "{warnings} lines");
    // Apart from skipped slots, ping counts differ by at most one, which the end of the window may cut off.
    let (least, most) = (pings.values().min().unwrap(), pings.values().max().unwrap());
    let skipped: u32 = field(summary, "skipped_slots").parse().unwrap();
    assert!(most - least <= 1 + skipped, "between {least} and {most} pings");
}
