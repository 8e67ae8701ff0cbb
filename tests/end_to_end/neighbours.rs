//! Clients on the server's own network that no longer answer address resolution (ARP).

use std::net::{Ipv4Addr, UdpSocket};

use nix::errno::Errno;

use crate::crowd::Crowd;
use crate::options::{FORCE_SNDBUF, Refuser, SET_SNDBUF};
use crate::support::daemon::{Daemon, count};
use crate::support::needs::Need;
use crate::support::network::Host;
use crate::support::network::NEEDS;
use crate::support::scene::{at, undisturbed};
use crate::support::witness::Witness;

/// So many phones that their queued pings overflow the send buffer of one socket.
const PHONES: u32 = 600;

#[test]
fn phones_behind_a_dead_access_point_cost_no_other_client_a_ping() {
    require!(NEEDS, [Need::Program("cc")]);
    let _undisturbed = undisturbed();
    let (server, client) = (Host::new(), Host::new());
    server.wire("wire", &client, "wire");
    server.run("ip address add 10.9.0.1/16 dev wire");
    client.run(
        "ip address add 10.9.0.9/16 dev wire
         ip route add local 10.9.64.0/18 dev lo",
    );
    // The send buffers keep their default size.
    let refuser = Refuser::new("neighbours");
    let words = refuser.words(Errno::EPERM, &[SET_SNDBUF, FORCE_SNDBUF]);
    let mut command = server.command(&words[0]);
    command.args(&words[1..]).env_clear();
    command.envs([
        ("ENV_FILE", "none"),
        ("HOST", "0.0.0.0"),
        ("HTTP_ADDR", "none"),
        ("WORKER_POOL_SIZE", "1"),
    ]);
    let daemon = Daemon::start_command(&mut command);
    let crowd = client.within(|| Crowd::new("10.9.0.1:7561".parse().unwrap()));
    let phones: Vec<_> = (0..PHONES).map(|n| Ipv4Addr::from_bits(0x0A09_4001 + n)).collect();
    for some in phones.chunks(100) {
        crowd.heartbeats(some);
        crowd.listen(|pings| some.iter().all(|phone| pings.contains_key(phone)));
    }
    let phone = || client.within(|| UdpSocket::bind(at("10.9.0.9", 0)).unwrap());
    let witnesses = [(); 8].map(|()| Witness::new(phone(), at("10.9.0.1", 7561)));

    client.run("ip route del local 10.9.64.0/18 dev lo");
    server.run("ip neighbour flush dev wire");
    witnesses[0].sees(12);
    for witness in &witnesses {
        witness.missed_nothing(&daemon);
    }
    let lines = daemon.stop();
    assert_eq!(count(&lines, "cannot send"), 0, "{lines:#?}");
}
