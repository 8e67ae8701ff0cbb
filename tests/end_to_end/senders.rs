//! The sending sockets: they have the options of the receiving socket, need no additional address to start,
//! and never take a heartbeat away from it.

use std::ffi::OsString;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::thread;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::daemon::{Client, Daemon, count, output, wait_until};
use crate::support::needs::Need;
use crate::support::network::Host;
use crate::support::network::NEEDS;
use crate::support::scene::{CLIENT, CLIENT_V6, PORT, SERVER, SERVER_V6, at, undisturbed};
use crate::support::witness::Witness;
use crate::systemd::hand_over;

/// The daemon logs this if its workers share the receiving socket.
const SHARED: &str = "so all workers send through the receiving socket";

/// An address of neither host, for which the server receives datagrams.
const FOREIGN: &str = "203.0.113.1";

/// Addresses that the server does not have yet.
const VIRTUAL: &str = "192.0.2.100";
const VIRTUAL_V6: &str = "2001:db8::100";

/// Two hosts on two wires. Only `wire` has addresses.
fn server_and_client() -> (Host, Host) {
    let (server, client) = (Host::new(), Host::new());
    server.wire("wire", &client, "wire");
    server.wire("other", &client, "other");
    for host in [&server, &client] {
        host.run("for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done");
    }
    server.run(
        "ip address add 192.0.2.1/24 dev wire
         ip address add 2001:db8::1/64 dev wire nodad
         ip address add fe80::2/64 dev wire nodad",
    );
    client.run(
        "ip address add 192.0.2.9/24 dev wire
         ip address add 2001:db8::9/64 dev wire nodad
         ip address add fe80::9/64 dev wire nodad
         ip route add default via 192.0.2.1",
    );
    (server, client)
}

fn phone(client: &Host, server: SocketAddr) -> UdpSocket {
    let ip = if server.is_ipv4() { CLIENT } else { CLIENT_V6 };
    client.within(|| UdpSocket::bind(at(ip, 0)).unwrap())
}

/// Checks that each of many heartbeats arrives, since none is repeated.
fn newcomers_are_served(client: &Host, server: SocketAddr) {
    let newcomer = |_| Client::new(phone(client, server), server);
    let newcomers: Vec<_> = (0..20).map(newcomer).collect();
    for newcomer in &newcomers {
        newcomer.heartbeat(&[]);
    }
    for newcomer in &newcomers {
        // Another daemon may still ping a client that had the port before.
        assert!((0..100).any(|_| newcomer.ping_from() == server));
    }
}

/// Runs each case in a thread of its own.
fn for_each<T: Sync>(cases: &[T], check: impl Fn(u16, &T) + Sync) {
    thread::scope(|scope| {
        for (port, case) in (PORT..).zip(cases) {
            let check = &check;
            scope.spawn(move || check(port, case));
        }
    });
}

/// A socket bound on the server, as by a service manager, with every option that affects sent datagrams.
fn socket_with_options(server: &Host, address: SocketAddr) -> UdpSocket {
    server.within(|| {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from("wire")).unwrap();
        setsockopt(&socket, sockopt::IpTransparent, &true).unwrap();
        setsockopt(&socket, sockopt::Ipv4Ttl, &33).unwrap();
        setsockopt(&socket, sockopt::Ipv4Tos, &0x20).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(false).unwrap();
            setsockopt(&socket, sockopt::Ipv6Ttl, &33).unwrap();
            setsockopt(&socket, sockopt::Ipv6TClass, &0x20).unwrap();
        }
        setsockopt(&socket, sockopt::Priority, &7).unwrap();
        setsockopt(&socket, sockopt::Mark, &7).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.into()
    })
}

/// A daemon on the server that serves this socket, with all privileges or with none.
fn serve(server: &Host, socket: &UdpSocket, is_privileged: bool) -> Daemon {
    let mut shell = server.command(if is_privileged { "/bin/sh" } else { "setpriv" });
    if !is_privileged {
        shell.args(["--bounding-set=-all", "--inh-caps=-all", "/bin/sh"]);
    }
    let mut command = hand_over(shell, vec![socket.try_clone().unwrap().into()]);
    Daemon::start_command(command.env("PATH", std::env::var_os("PATH").unwrap()))
}

#[test]
fn every_ping_has_the_options_of_the_handed_over_socket() {
    require!(NEEDS, [Need::Program("nft")]);
    let _undisturbed = undisturbed();
    let (server, client) = server_and_client();
    // Unless the socket is bound to its interface, pings take the more specific route. Without
    // IP_TRANSPARENT, no ping may leave from the foreign address.
    server.run(
        "ip route add 192.0.2.9 dev other
         ip route add 2001:db8::9 dev other
         ip rule add iif wire lookup 100
         ip route add local 203.0.113.0/24 dev lo table 100
         nft add table inet options
         nft add chain inet options out '{ type filter hook output priority 0; }'
         nft add rule inet options out meta l4proto != udp accept
         nft add rule inet options out oifname != wire drop
         nft add rule inet options out meta mark != 7 drop
         nft add rule inet options out meta priority != 0:7 drop
         nft add rule inet options out ip ttl != 33 drop
         nft add rule inet options out ip dscp != cs1 drop
         nft add rule inet options out ip6 hoplimit != 33 drop
         nft add rule inet options out ip6 dscp != cs1 drop",
    );
    let hosts: [(&str, &[&str]); 5] = [
        ("0.0.0.0", &[SERVER]),
        (SERVER, &[SERVER]),
        ("::", &[SERVER, SERVER_V6]),
        (SERVER_V6, &[SERVER_V6]),
        (FOREIGN, &[FOREIGN]),
    ];
    for is_privileged in [true, false] {
        for_each(&hosts, |port, (host, hit)| {
            let daemon =
                serve(&server, &socket_with_options(&server, at(host, port)), is_privileged);
            let witness = |ip: &&str| Witness::new(phone(&client, at(ip, port)), at(ip, port));
            let witnesses: Vec<_> = hit.iter().map(witness).collect();
            for witness in &witnesses {
                witness.sees(3);
                witness.missed_nothing(&daemon);
            }
            assert_eq!(count(&daemon.stop(), SHARED), usize::from(!is_privileged), "{host}");
        });
    }
}

#[test]
fn a_standby_starts_before_its_address_arrives() {
    require!(NEEDS);
    let _undisturbed = undisturbed();
    let networks = [
        "ip route add default via 192.0.2.9
         ip route add default via 2001:db8::9",
        "ip link set lo up",
        "ip link set lo down",
    ];
    for_each(&networks, |_, network| {
        let (server, client) = server_and_client();
        server.run(network);
        // A service manager binds the address with FreeBind=. Otherwise a sysctl allows it.
        let handed_over = [VIRTUAL, VIRTUAL_V6].map(|ip| (free_bound(&server, ip), ip));
        let handed_over =
            handed_over.map(|(socket, ip)| (serve(&server, &socket, false), vec![ip]));
        server.run(
            "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind
             echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind",
        );
        let hosts = [
            (VIRTUAL, vec![VIRTUAL]),
            (VIRTUAL_V6, vec![VIRTUAL_V6]),
            ("::", vec![SERVER, SERVER_V6, VIRTUAL, VIRTUAL_V6]),
        ];
        let bound = (PORT + 1..).zip(hosts).map(|(port, (host, hit))| {
            (server.serve(&[("HOST", host), ("PORT", &port.to_string())]), hit)
        });
        let daemons: Vec<_> = handed_over.into_iter().chain(bound).collect();
        server.run(
            "ip address add 192.0.2.100/24 dev wire
             ip address add 2001:db8::100/64 dev wire nodad",
        );
        for (daemon, hit) in daemons {
            for ip in hit {
                let hit = at(ip, daemon.address.port());
                let witness = Witness::new(phone(&client, hit), hit);
                newcomers_are_served(&client, hit);
                witness.sees(2);
                witness.missed_nothing(&daemon);
            }
            assert_eq!(count(&daemon.stop(), SHARED), 0, "{network}");
        }
    });
}

/// A socket that a service manager has bound with `FreeBind=`.
fn free_bound(server: &Host, ip: &str) -> UdpSocket {
    server.within(|| {
        let address = at(ip, PORT);
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
        setsockopt(&socket, sockopt::IpFreebind, &true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.into()
    })
}

fn ss(server: &Host, options: &str, port: u16) -> String {
    output(server.command("ss").args([options, &format!("sport = :{port}")])).1
}

/// The UDP sockets on this port.
fn sockets(server: &Host, port: u16) -> String {
    ss(server, "-Hua", port)
}

/// Disconnects all sockets on this port.
fn disconnect(server: &Host, port: u16) {
    let disconnected = ss(server, "-HuaK", port);
    assert!(disconnected.contains(&port.to_string()), "does this kernel have INET_DIAG_DESTROY?");
}

#[test]
fn sockets_that_another_program_disconnects_keep_serving() {
    require!(NEEDS, [Need::Program("ss")]);
    let _undisturbed = undisturbed();
    let (server, client) = server_and_client();
    let hosts: [(&str, &[&str]); 4] = [
        ("0.0.0.0", &[SERVER]),
        (SERVER, &[SERVER]),
        ("::", &[SERVER, SERVER_V6]),
        (SERVER_V6, &[SERVER_V6]),
    ];
    // With PORT=0 the kernel chooses the port.
    let cases = hosts.map(|case| [(true, case), (false, case)]).concat();
    for_each(&cases, |port, (has_port, (host, hit))| {
        let port = if *has_port { port } else { 0 };
        let daemon = server.serve(&[("HOST", host), ("PORT", &port.to_string())]);
        let port = daemon.address.port();
        let witness = |ip: &&str| Witness::new(phone(&client, at(ip, port)), at(ip, port));
        let witnesses: Vec<_> = hit.iter().map(witness).collect();
        for _ in 0..3 {
            disconnect(&server, port);
            hit.iter().for_each(|ip| newcomers_are_served(&client, at(ip, port)));
        }
        for witness in &witnesses {
            witness.sees(2);
            witness.missed_nothing(&daemon);
        }
    });
}

#[test]
fn an_interface_that_is_recreated_is_served_again() {
    require!(NEEDS);
    let _undisturbed = undisturbed();
    let (server, client) = server_and_client();
    let socket = socket_with_options(&server, at("0.0.0.0", PORT));
    let daemon = serve(&server, &socket, true);
    let phone = Client::new(phone(&client, at(SERVER, PORT)), at(SERVER, PORT));
    phone.heartbeat(&[]);
    phone.ping();
    server.run("ip link del wire");
    daemon.wait_for_line("cannot bind the sockets to their network interface again");
    server.wire("wire", &client, "wire");
    server.run("ip address add 192.0.2.1/24 dev wire");
    client.run("ip address add 192.0.2.9/24 dev wire");
    daemon.wait_for_line("bound the sockets to their network interface again");
    phone.forget_pings();
    phone.ping();
    let newcomer =
        Client::new(client.within(|| UdpSocket::bind("0.0.0.0:0").unwrap()), at(SERVER, PORT));
    newcomer.heartbeat(&[]);
    newcomer.ping();
    let lines = daemon.stop();
    assert_eq!(count(&lines, "cannot bind the sockets"), 1, "{lines:#?}");
}

#[test]
fn sockets_that_lose_their_interface_are_bound_to_it_again() {
    require!(NEEDS, [Need::Program("ss")]);
    let _undisturbed = undisturbed();
    let (server, client) = server_and_client();
    let handed_over = |port, is_privileged| {
        serve(&server, &socket_with_options(&server, at("0.0.0.0", port)), is_privileged)
    };
    let index = client.within(|| if_nametoindex("wire").unwrap());
    let link_local = |port| SocketAddrV6::new("fe80::2".parse().unwrap(), port, 0, index).into();
    for_each(&[0, 1, 2], |port, case| {
        let (daemon, hit) = match case {
            0 => (handed_over(port, true), at(SERVER, port)),
            1 => (handed_over(port, false), at(SERVER, port)),
            _ => {
                let variables = [("HOST", "fe80::2%wire"), ("PORT", &port.to_string())];
                (server.serve(&variables), link_local(port))
            }
        };
        let any = if hit.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let witness = Witness::new(client.within(|| UdpSocket::bind(any).unwrap()), hit);
        disconnect(&server, port);
        daemon.wait_for_line("bound the sockets to their network interface again");
        // The daemon may have checked its sockets before all of them were disconnected.
        wait_until("all sockets are bound to the interface", || {
            let sockets = sockets(&server, port);
            !sockets.is_empty() && sockets.lines().all(|socket| socket.contains("%wire"))
        });
        witness.sees(2);
        witness.missed_nothing(&daemon);
    });
}
