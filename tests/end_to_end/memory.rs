//! Limits on memory, and whether `MAX_CLIENTS` fits within them.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::crowd::Crowd;
use crate::doctor::after;
use crate::support::control_group::ControlGroup;
use crate::support::daemon::{Client, Daemon, SERVING, field, output};
use crate::support::needs::Need;

/// The program with this `MAX_CLIENTS`, after some preparation in a shell.
fn program(preparation: &str, max_clients: &str) -> Command {
    let mut command = after(preparation, &SERVING);
    command.envs([
        ("MAX_CLIENTS", max_clients),
        ("LOG_LEVEL", "INFO"),
        ("HTTP_ADDR", "127.0.0.1:0"),
    ]);
    command
}

/// The error message of a daemon that does not start because the memory limit is too low.
fn complaint(preparation: &str, max_clients: &str) -> String {
    let (status, _, stderr) = output(&mut program(preparation, max_clients));
    // This exit code keeps a service manager from retrying.
    assert_eq!(status.code(), Some(78), "{stderr}");
    let line = stderr.lines().find(|line| line.contains("ERROR")).unwrap();
    assert!(line.contains(&format!("MAX_CLIENTS={max_clients} needs up to ")), "{line}");
    line.to_owned()
}

/// The limit that the message asks for, in megabytes.
fn enough(complaint: &str) -> u64 {
    let (_, figure) = complaint.split_once("Raise the limit to ").unwrap();
    figure.split_once(" MB (").unwrap().0.parse().unwrap()
}

/// Checks that a daemon serves this many clients.
fn serve(daemon: &Daemon, clients: u32) {
    let SocketAddr::V4(server) = daemon.address else { panic!("the daemon is bound to 127.0.0.1") };
    let addresses: Vec<_> = (0..clients).map(|n| Ipv4Addr::from_bits(0x7F10_0000 + n)).collect();
    Crowd::new(server).register(daemon.http(), &addresses);
}

#[test]
fn a_process_memory_limit_that_is_too_small_is_reported_at_the_start() {
    for (option, name) in [("v", "address space (`ulimit -v`)"), ("d", "data (`ulimit -d`)")] {
        let limited = |megabytes: u64| format!("ulimit -{option} {}", megabytes * 1_000_000 / 1024);
        let most = "3000000";
        let told = complaint(&limited(300), most);
        let (status, _, stderr) = output(program(&limited(300), most).arg("--check-config"));
        assert_eq!(status.code(), Some(78), "{stderr}");
        assert!(stderr.contains("MAX_CLIENTS=3000000 needs up to "), "{stderr}");
        assert!(told.contains(name) && told.contains("unlimited"), "{told}");
        let enough = enough(&told);
        complaint(&limited(enough - 1), most);
        let daemon = Daemon::start_command(&mut program(&limited(enough), most));
        let client = Client::of(&daemon);
        client.heartbeat(&[]);
        client.ping();
        daemon.stop();
    }
}

#[test]
fn a_control_group_limit_that_is_too_small_is_reported_at_the_start() {
    require!([Need::Root, Need::ControlGroup]);
    let group = ControlGroup::with_memory(36_000_000).unwrap();
    let told = complaint(&group.preparation(), "30000");
    assert!(
        told.contains("the limit of the control group") && told.contains("MemoryMax="),
        "{told}"
    );

    // With the limit that it asks for, the daemon serves them all.
    let larger = ControlGroup::with_memory(enough(&told) * 1_000_000).unwrap();
    let daemon = Daemon::start_command(&mut program(&larger.preparation(), "30000"));
    serve(&daemon, 30_000);
    daemon.stop();

    let (_, fewer) = told.split_once("set MAX_CLIENTS=").unwrap();
    let (fewer, _) = fewer.split_once(' ').unwrap();
    let daemon = Daemon::start_command(&mut program(&group.preparation(), fewer));
    serve(&daemon, fewer.parse().unwrap());
    let lines = daemon.stop();
    let starting = lines.iter().find(|line| line.contains(" starting ")).unwrap();
    assert_eq!(field(starting, "max_clients"), fewer);
}
