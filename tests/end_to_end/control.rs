//! A handed-over socket with options that add control messages to each datagram.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};

use crate::support::daemon::{Client, Daemon};
use crate::support::needs::Need;
use crate::support::scene::undisturbed;
use crate::support::web::{get, metric, wait_for};
use crate::systemd::handed_over;

/// From asm-generic/socket.h; libc lacks both.
const SO_RCVMARK: i32 = 75;
const SO_RCVPRIORITY: i32 = 82;

const TRUNCATED: &str = "wakeupd_truncated_control_messages_total";

/// Defines options that nix lacks, and a function that enables them.
macro_rules! switches {
    ($name:ident: $($option:ident = $level:path, $number:path;)*) => {
        $(sockopt_impl!($option, SetOnly, $level, $number, bool);)*

        fn $name(socket: &UdpSocket) {
            // The kernel may be too old for some options.
            $(match setsockopt(socket, $option, &true) {
                Ok(()) | Err(Errno::ENOPROTOOPT) => {}
                Err(error) => panic!("{}: {error}", stringify!($option)),
            })*
        }
    };
}

switches! {
    tell_everything:
    Timestamp = libc::SOL_SOCKET, libc::SO_TIMESTAMP;
    RxqOvfl = libc::SOL_SOCKET, libc::SO_RXQ_OVFL;
    RcvMark = libc::SOL_SOCKET, SO_RCVMARK;
    RcvPriority = libc::SOL_SOCKET, SO_RCVPRIORITY;
    RecvTtl = libc::IPPROTO_IP, libc::IP_RECVTTL;
    RecvTos = libc::IPPROTO_IP, libc::IP_RECVTOS;
    RecvOpts = libc::IPPROTO_IP, libc::IP_RECVOPTS;
    RetOpts = libc::IPPROTO_IP, libc::IP_RETOPTS;
    PassSec = libc::IPPROTO_IP, libc::IP_PASSSEC;
    OrigDst = libc::IPPROTO_IP, libc::IP_ORIGDSTADDR;
    Checksum = libc::IPPROTO_IP, libc::IP_CHECKSUM;
    RecvFragSize = libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE;
}

switches! {
    tell_everything_of_ipv6:
    PacketInfo2292 = libc::IPPROTO_IPV6, libc::IPV6_2292PKTINFO;
    HopLimit = libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT;
    HopLimit2292 = libc::IPPROTO_IPV6, libc::IPV6_2292HOPLIMIT;
    TrafficClass = libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS;
    FlowInfo = libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO;
    HopOptions = libc::IPPROTO_IPV6, libc::IPV6_RECVHOPOPTS;
    RoutingHeader = libc::IPPROTO_IPV6, libc::IPV6_RECVRTHDR;
    OrigDstV6 = libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR;
    RecvFragSizeV6 = libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE;
}

switches! {
    tell_destination_options:
    DestinationOptions = libc::IPPROTO_IPV6, libc::IPV6_RECVDSTOPTS;
}

sockopt_impl!(IpOptions, SetOnly, libc::IPPROTO_IP, libc::IP_OPTIONS, [u8; 40]);
sockopt_impl!(SentDestinationOptions, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, [u8; 608]);

/// Serves a socket at this address with all of these options.
fn serve(address: &str, tell: &[fn(&UdpSocket)]) -> Daemon {
    let socket = UdpSocket::bind(address).unwrap();
    for tell in tell {
        tell(&socket);
    }
    let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE;
    setsockopt(&socket, sockopt::Timestamping, &stamps).unwrap();
    let mut command = handed_over(vec![socket.into()]);
    Daemon::start_command(command.env("HTTP_ADDR", "127.0.0.1:0"))
}

/// A client that sends to this address of the daemon.
fn client(daemon: &Daemon, called: &str) -> Client {
    let server = SocketAddr::new(called.parse().unwrap(), daemon.address.port());
    let own: IpAddr =
        if server.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { [127, 0, 0, 1].into() };
    let socket = UdpSocket::bind((own, 0)).unwrap();
    if server.is_ipv4() {
        // The longest record-route option fills the most control room.
        let mut options = [0; 40];
        (options[0], options[1], options[2]) = (7, 39, 4);
        setsockopt(&socket, IpOptions, &options).unwrap();
    }
    Client::new(socket, server)
}

fn truncated(daemon: &Daemon) -> f64 {
    metric(&get(daemon.http(), "/metrics").body, TRUNCATED)
}

#[test]
fn extra_control_messages_hide_no_address_and_no_icmp_error() {
    require!([Need::Ipv6]);
    let _undisturbed = undisturbed();
    for (address, tell, called) in [
        ("0.0.0.0:0", &[tell_everything as fn(&UdpSocket)][..], &["127.0.0.2"][..]),
        ("[::]:0", &[tell_everything, tell_everything_of_ipv6], &["127.0.0.2", "::1"]),
    ] {
        let daemon = serve(address, tell);
        for called in called {
            let client = client(&daemon, called);
            client.heartbeat(&[]);
            client.pings(2);
            let gone = client.address();
            drop(client);
            daemon.wait_for_line(&format!("muted a client with a closed port client={gone}"));
        }
        assert!(truncated(&daemon).abs() < 0.5);
        daemon.stop();
    }
}

#[test]
fn truncated_control_messages_are_counted_and_reported() {
    // Only a privileged process can send IPv6 options.
    require!([Need::Root, Need::Ipv6]);
    let _undisturbed = undisturbed();
    let daemon = serve("[::]:0", &[tell_destination_options]);
    let client = client(&daemon, "::1");
    client.heartbeat(&[]);
    client.ping();
    assert!(truncated(&daemon).abs() < 0.5);

    // Three options of an unknown type that receivers skip, in a header of 76 times 8 bytes.
    let mut options = [0; 608];
    options[1] = 75;
    for option in options[2..].chunks_exact_mut(202) {
        (option[0], option[1]) = (0x1e, 200);
    }
    let lavish = UdpSocket::bind("[::1]:0").unwrap();
    setsockopt(&lavish, SentDestinationOptions, &options).unwrap();
    let lavish = Client::new(lavish, (Ipv6Addr::LOCALHOST, daemon.address.port()).into());
    lavish.heartbeat(&[]);
    lavish.ping();
    let status = wait_for(daemon.http(), "/status", |status| {
        status["findings"].to_string().contains("control_truncated")
    });
    assert!(status["findings"].to_string().contains("control messages of 1 datagram"), "{status}");
    assert!((truncated(&daemon) - 1.0).abs() < 0.5);
    daemon.stop();
}
