//! Start and stop.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::daemon::{Client, Daemon, PROGRAM, SERVING, output, wakeupd, with_mount};
use crate::support::needs::{Need, OWN_MOUNT};

#[test]
fn sigterm_and_sigint_stop_the_daemon_cleanly() {
    for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
        let mut daemon = Daemon::start(&[]);
        Client::of(&daemon).heartbeat(&[]);
        daemon.wait_for_line("registered");
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        daemon.wait_for_line(&format!("stopping signal=\"{name}\""));
        daemon.wait_for_line("stopped");
    }
}

#[test]
fn fifty_stops_in_a_row_do_not_wait_for_sleeping_workers() {
    // If a worker slept through the shutdown, two of five stops would take up to half a second longer.
    let longest = Duration::from_secs(6);
    let mut stops = Duration::ZERO;
    for number in 0..50 {
        let mut daemon = Daemon::start(&[]);
        let clients: Vec<_> = (0..[0, 1, 10][number % 3]).map(|_| Client::of(&daemon)).collect();
        for client in &clients {
            client.heartbeat(&[]);
        }
        daemon.wait_for_lines(" registered ", clients.len());
        let begun = Instant::now();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
        stops += begun.elapsed();
    }
    assert!(stops < longest, "{stops:?}");
}

#[test]
fn a_host_name_that_resolves_to_loopback_is_a_warning() {
    require!(OWN_MOUNT);
    let hosts = std::env::temp_dir().join(format!("wakeupd-hosts-{}", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.1.1 box.example box\n").unwrap();
    for (host, is_pointed_out) in [("box", true), ("box.example", true), ("localhost", false)] {
        let mut command = with_mount(&format!("--bind {} /etc/hosts", hosts.display()));
        command.envs(SERVING).env("HOST", host);
        let lines = Daemon::start_command(&mut command).stop();
        let warning = lines.iter().find(|line| line.contains(" resolves to the loopback address "));
        assert_eq!(warning.is_some(), is_pointed_out, "{lines:#?}");
        assert!(
            warning.is_none_or(|line| line.contains("ip=127.0.1.1") && line.contains("0.0.0.0"))
        );
    }
    std::fs::remove_file(&hosts).unwrap();
}

#[test]
fn the_daemon_stops_as_pid_1_of_a_container() {
    require!([Need::Root, Need::Program("unshare")]);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", PROGRAM]);
    command.envs(SERVING);
    let mut daemon = Daemon::start_command(&mut command);
    daemon.descend();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_for_line("stopped");
}

#[test]
fn a_second_instance_reports_that_the_port_is_in_use() {
    let daemon = Daemon::start(&[]);
    let port = daemon.address.port().to_string();
    let (status, _, stderr) = output(&mut wakeupd(&[("HOST", "127.0.0.1"), ("PORT", &port)]));
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains(&format!("UDP port {port} of 127.0.0.1 is in use by another process.")),
        "{stderr}"
    );
    assert!(stderr.contains(&format!("sudo ss -lunp 'sport = :{port}'")), "{stderr}");

    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let (status, _, stderr) = output(&mut wakeupd(&[("HOST", "192.0.2.1"), ("PORT", "0")]));
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("192.0.2.1 of HOST cannot be bound: it is not an address of this machine."),
        "{stderr}"
    );
    assert!(stderr.contains("`ip address`"), "{stderr}");
}

#[test]
fn an_unresolvable_host_name_is_an_error() {
    let (status, _, stderr) = output(&mut wakeupd(&[("HOST", "nowhere.invalid"), ("PORT", "0")]));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("HOST=nowhere.invalid does not resolve"), "{stderr}");
}

#[test]
fn a_low_port_needs_a_privilege() {
    require!([Need::Root, Need::Program("unshare")]);
    let nobody = 65_534;
    // A new network namespace has the kernel's default for unprivileged ports.
    let folder = std::env::temp_dir().join(format!("wakeupd-low-port-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("wakeupd");
    std::fs::copy(PROGRAM, &program).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "setpriv", "--reuid", &nobody.to_string(), "--clear-groups"]);
    command.arg(&program).envs([("PORT", "80")]);
    let (status, _, stderr) = output(&mut command);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("UDP port 80 of 0.0.0.0 cannot be bound: Permission denied"),
        "{stderr}"
    );
    assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
}
