//! The network of a running daemon fails and recovers.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::{Client, Daemon, count};
use crate::support::needs::Need;
use crate::support::network::Host;
use crate::support::network::NEEDS;
use crate::support::scene::{PORT, SERVER, SERVER_V6, at, number, undisturbed};
use crate::support::witness::Witness;

/// The length of an outage, far shorter than the expiration.
const WHILE: Duration = Duration::from_secs(4);

/// Addresses of the client that the server reaches through a route.
const FAR: &str = "198.51.100.9";
const FAR_V6: &str = "2001:db8:9::9";

const ADDRESSES: &str = "ip address add 192.0.2.1/24 dev wire
                         ip address add 2001:db8::1/64 dev wire";
const ROUTES: &str = "ip route replace default via 192.0.2.9
                      ip route replace default via 2001:db8::9";

/// The commands that break the network at the server, and those that repair it.
struct Outage {
    begin: &'static str,
    end: &'static [&'static str],
    /// Whether the server's own firewall answers pings with ICMP port unreachable. The daemon believes it. A
    /// client that sends no heartbeat during the outage is muted until its next one.
    mutes: bool,
}

/// Removes the route to the clients, so that pings hit a route of last resort.
macro_rules! last_resort {
    ($kind:literal) => {
        Outage {
            begin: concat!(
                "ip route add ",
                $kind,
                " default metric 4000\n",
                "ip -6 route add ",
                $kind,
                " default metric 4000\n",
                "ip route del default via 192.0.2.9\n",
                "ip -6 route del default via 2001:db8::9",
            ),
            end: &[ROUTES],
            mutes: false,
        }
    };
}

const OUTAGES: [Outage; 9] = [
    // VPN kill switches, mwan3 and systemd-networkd install such a route.
    last_resort!("prohibit"),
    last_resort!("unreachable"),
    last_resort!("blackhole"),
    // If a firewall drops an outgoing ping, the send fails with EPERM.
    Outage {
        begin: "nft add table inet fault
                nft add chain inet fault out '{ type filter hook output priority 0; }'
                nft add rule inet fault out oifname wire meta l4proto udp drop",
        end: &["nft delete table inet fault"],
        mutes: false,
    },
    // An interface that goes down loses its routes and its IPv6 address.
    Outage {
        begin: "ip link set wire down",
        end: &["ip link set wire up", "ip address add 2001:db8::1/64 dev wire", ROUTES],
        mutes: false,
    },
    Outage {
        begin: "ip address del 192.0.2.1/24 dev wire
                ip address del 2001:db8::1/64 dev wire",
        end: &[ADDRESSES, ROUTES],
        mutes: false,
    },
    Outage {
        begin: "ip route del default
                ip -6 route del default",
        end: &[ROUTES],
        mutes: false,
    },
    Outage {
        begin:
            "nft add table inet fault
                nft add chain inet fault in '{ type filter hook input priority 0; policy drop; }'
                nft add chain inet fault out '{ type filter hook output priority 0; policy drop; }'",
        end: &["nft delete table inet fault"],
        mutes: false,
    },
    Outage {
        begin: "nft add table inet fault
                nft add chain inet fault out '{ type filter hook output priority 0; }'
                nft add rule inet fault out oifname wire meta l4proto udp reject",
        end: &["nft delete table inet fault"],
        mutes: true,
    },
];

/// The address that each daemon is bound to, and for each of its witnesses the server's address and its own.
const ENDS: [(&str, &[(&str, &str)]); 3] = [
    ("::", &[(SERVER, FAR), (SERVER_V6, FAR_V6)]),
    (SERVER, &[(SERVER, FAR)]),
    (SERVER_V6, &[(SERVER_V6, FAR_V6)]),
];

/// Two hosts on a wire. The client also has addresses that the server reaches through a route.
fn server_and_client() -> (Host, Host) {
    let (server, client) = (Host::new(), Host::new());
    server.wire("wire", &client, "wire");
    server.run(ADDRESSES);
    server.run(ROUTES);
    client.run(
        "ip address add 192.0.2.9/24 dev wire
         ip address add 2001:db8::9/64 dev wire",
    );
    for far in [FAR, FAR_V6] {
        client.run(&format!("ip address add {far} dev lo"));
    }
    (server, client)
}

#[test]
fn pings_resume_when_the_network_returns() {
    require!(NEEDS, [Need::Program("nft")]);
    let _undisturbed = undisturbed();
    thread::scope(|scope| {
        for outage in &OUTAGES {
            scope.spawn(|| go_through(outage));
        }
    });
}

/// A daemon, its witnesses, and a client that sends a single heartbeat.
struct Served {
    daemon: Daemon,
    witnesses: Vec<Witness>,
    quiet: Client,
}

impl Served {
    fn new(server: &Host, client: &Host, port: u16, host: &str, ends: &[(&str, &str)]) -> Self {
        let daemon = server.serve(&[("HOST", host), ("PORT", &port.to_string())]);
        let phone = |far| client.within(|| UdpSocket::bind(at(far, 0)).unwrap());
        let witnesses = ends.iter().map(|(hit, far)| Witness::new(phone(far), at(hit, port)));
        let witnesses = witnesses.collect();
        let (hit, far) = ends[0];
        let quiet = Client::new(phone(far), at(hit, port));
        quiet.heartbeat(&[]);
        quiet.ping();
        Self { daemon, witnesses, quiet }
    }

    /// Checks that pings resume and that no client had to register again. Returns the number of failed pings.
    fn comes_back(self, mutes: bool, time: Duration) -> u64 {
        let Self { daemon, witnesses, quiet } = self;
        if mutes {
            quiet.heartbeat(&[]);
        }
        for witness in &witnesses {
            witness.comes_back(&daemon);
        }
        quiet.forget_pings();
        quiet.pings(2);
        for witness in &witnesses {
            witness.missed_nothing(&daemon);
        }
        is_readable(&daemon.lines(), time);
        let lines = daemon.stop();
        for client in witnesses.iter().map(Witness::address).chain([quiet.address()]) {
            assert_eq!(count(&lines, &format!("registered client={client}")), 1, "{lines:#?}");
        }
        number(&lines, "failed_pings")
    }
}

fn go_through(outage: &Outage) {
    let (server, client) = server_and_client();
    let daemons: Vec<_> = (PORT..)
        .zip(ENDS)
        .map(|(port, (host, ends))| Served::new(&server, &client, port, host, ends))
        .collect();
    let start = Instant::now();
    server.run(outage.begin);
    thread::sleep(WHILE);
    outage.end.iter().for_each(|commands| server.run(commands));
    let time = start.elapsed();
    let failed_pings = thread::scope(|scope| {
        let checks =
            daemons.into_iter().map(|one| scope.spawn(|| one.comes_back(outage.mutes, time)));
        let checks: Vec<_> = checks.collect();
        checks.into_iter().map(|check| check.join().unwrap()).sum::<u64>()
    });
    // Only the sum: with IPv6, pings can leave from an address that is gone.
    assert!(failed_pings > 0, "{}", outage.begin);
}

/// Checks that the log has at most about one line of each kind a second.
fn is_readable(lines: &[String], time: Duration) {
    let mut kinds = BTreeMap::<String, u64>::new();
    for line in lines {
        let words = line.split_ascii_whitespace().skip(1);
        let kind = words.filter(|word| !word.contains('=') || word.starts_with("reason="));
        *kinds.entry(kind.collect()).or_default() += 1;
    }
    assert!(kinds.values().all(|count| *count <= time.as_secs() + 2), "{lines:#?}");
}
