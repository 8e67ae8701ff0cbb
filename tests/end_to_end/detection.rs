//! Duplicate address detection, as after a boot: until it completes, no socket can be bound to the IPv6
//! address.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::daemon::{Client, Daemon, PROGRAM, count, output, send_signal, wait_until};
use crate::support::network::Host;
use crate::support::network::NEEDS;

/// Two hosts on a wire. For each address of the first host, the kernel sends `probes` detection probes, one a
/// second.
fn hosts(probes: u32) -> (Host, Host) {
    let (server, neighbour) = (Host::new(), Host::new());
    server.wire("wire", &neighbour, "wire");
    server.run(&format!(
        "echo 1 > /proc/sys/net/ipv6/conf/wire/accept_dad
         echo {probes} > /proc/sys/net/ipv6/conf/wire/dad_transmits"
    ));
    neighbour.run("ip address add 2001:db8::9/64 dev wire nodad");
    (server, neighbour)
}

fn serve(server: &Host, host: &str, http: &str) -> Daemon {
    server.serve(&[("HOST", host), ("HTTP_ADDR", http), ("PORT", "7561")])
}

#[test]
fn the_start_waits_for_a_tentative_address() {
    require!(NEEDS);
    let (server, neighbour) = hosts(3);
    server.run("ip address add 2001:db8::1/64 dev wire");
    let daemon = serve(&server, "2001:db8::1", "");
    daemon.wait_for_line("waiting for duplicate address detection, up to 10s ip=2001:db8::1");
    let client = neighbour.within(|| UdpSocket::bind("[2001:db8::9]:0").unwrap());
    let client = Client::new(client, daemon.address);
    client.heartbeat(&[]);
    client.ping();
    assert_eq!(count(&daemon.stop(), "waiting for"), 1);

    server.run("ip address add 2001:db8::2/64 dev wire");
    let daemon = serve(&server, "0.0.0.0", "[2001:db8::2]:7562");
    daemon.wait_for_line("listening for HTTP");
    assert_eq!(count(&daemon.stop(), "waiting for"), 1);
}

#[test]
fn a_stop_does_not_wait_for_a_tentative_address() {
    require!(NEEDS);
    let (server, _neighbour) = hosts(1_000);
    server.run("ip address add 2001:db8::1/64 dev wire");
    let mut command = server.command(PROGRAM);
    command.env_clear().env("ENV_FILE", "none");
    command.envs([("HOST", "2001:db8::1"), ("HTTP_ADDR", "")]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("waiting for duplicate address detection")));
    send_signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rest: Vec<_> = log.collect();
    assert_eq!(count(&rest, "stopping during startup"), 1, "{rest:?}");
}

#[test]
fn a_duplicate_address_is_an_error() {
    require!(NEEDS);
    let (server, _neighbour) = hosts(1);
    server.run("ip address add 2001:db8::9/64 dev wire");
    wait_until("the kernel detects the duplicate", || {
        let mut command = server.command("ip");
        let shown = output(command.args(["-6", "address", "show", "dev", "wire"])).1;
        shown.contains("dadfailed")
    });
    for (host, http) in [("2001:db8::9", ""), ("::", "[2001:db8::9]:7562")] {
        let mut command = server.command(PROGRAM);
        command.env_clear().env("ENV_FILE", "none");
        command.envs([("HOST", host), ("HTTP_ADDR", http)]);
        let (status, _, stderr) = output(&mut command);
        assert_eq!(status.code(), Some(1));
        assert!(stderr.contains("Another machine on the link has this address"), "{stderr}");
    }
}
