//! Snapshots that cannot be written or read, and `wakeupd snapshot show`.

use std::fs;
use std::path::PathBuf;

use wakeupd::snapshot::Snapshot;

use crate::restart::{Home, crowd};
use crate::support::daemon::{count, output, wait_until, wakeupd as program};
use crate::support::needs::OWN_MOUNT;
use crate::support::web;

#[test]
fn an_unusable_snapshot_is_put_aside() {
    let home = Home::new(7);
    let daemon = home.start(&[]);
    let clients = crowd(&daemon, 3);
    daemon.stop();
    let whole = fs::read(home.snapshot()).unwrap();
    let changed = |position: usize| {
        let mut changed = whole.clone();
        changed[position] ^= 0x10;
        changed
    };
    for (bytes, reason) in [
        (whole[..whole.len() - 1].to_vec(), "the file is truncated"),
        (changed(whole.len() - 1), "the file is damaged"),
        (changed(8), "the format version of the file is 18"),
        (b"{}\n".to_vec(), "the file is not a wakeupd snapshot"),
        (Vec::new(), "the file is not a wakeupd snapshot"),
    ] {
        fs::write(home.snapshot(), &bytes).unwrap();
        let daemon = home.start(&[]);
        let line = daemon.wait_for_line("could not use the snapshot");
        assert!(line.contains("WARN") && line.contains(reason), "{line}");
        assert_eq!(fs::read(home.beside(".bad")).unwrap(), bytes);
        clients[0].forget_pings();
        clients[0].heartbeat(&[]);
        clients[0].ping();
        daemon.stop();
        assert_eq!(home.read().unwrap().len(), 1);
    }
}

#[test]
fn the_clients_of_another_port_are_not_restored() {
    let home = Home::new(8);
    let daemon = home.start(&[]);
    let _clients = crowd(&daemon, 1);
    daemon.stop();
    let daemon = home.start(&[("PORT", "27562")]);
    let line = daemon.wait_for_line("could not use the snapshot");
    assert!(line.contains("UDP port 27561"), "{line}");
}

#[test]
fn a_snapshot_that_cannot_be_written_is_reported_and_costs_no_ping() {
    let home = Home::new(9);
    let missing = home.folder.join("missing");
    let path = missing.join("snapshot");
    let variables = [("SNAPSHOT_PATH", path.to_str().unwrap()), ("HTTP_ADDR", "127.0.0.1:0")];
    let daemon = home.start(&variables);
    let _clients = crowd(&daemon, 2);
    let findings = || web::get(daemon.http(), "/status").json()["findings"].to_string();
    wait_until("/status reports snapshot_old", || findings().contains("snapshot_old"));
    let metrics = web::get(daemon.http(), "/metrics").body;
    let failed =
        metrics.lines().find_map(|line| line.strip_prefix("wakeupd_failed_snapshots_total "));
    assert!(failed.unwrap().parse::<u32>().unwrap() > 0, "{metrics}");

    fs::create_dir(&missing).unwrap();
    daemon.wait_for_line("the daemon can write the snapshot again");
    wait_until("/status no longer reports snapshot_old", || !findings().contains("snapshot_old"));
    let metrics = web::get(daemon.http(), "/metrics").body;
    assert!(metrics.contains("\nwakeupd_snapshot_bytes "), "{metrics}");
    let lines = daemon.stop();
    assert_eq!(count(&lines, "cannot write the snapshot"), 1, "{lines:#?}");
    assert!(path.exists());
}

#[test]
fn a_full_disk_keeps_the_last_snapshot_and_costs_no_ping() {
    require!(OWN_MOUNT);
    let home = Home::new(10);
    // Two pages of 4 KiB: the first snapshot takes one, and the next needs two.
    let daemon = home.start_on_a_disk("size=8k");
    let few = crowd(&daemon, 3);
    let view = PathBuf::from(format!("/proc/{}/root", daemon.pid()))
        .join(home.snapshot().strip_prefix("/").unwrap());
    let kept = || Snapshot::parse(fs::read(&view).ok()?).ok();
    wait_until("the snapshot has the first clients", || {
        kept().is_some_and(|snapshot| snapshot.len() == 3)
    });
    let _many = crowd(&daemon, 300);
    let line = daemon.wait_for_line("cannot write the snapshot");
    assert!(line.contains("free space on the disk of SNAPSHOT_PATH"), "{line}");
    assert!(kept().is_some_and(|snapshot| snapshot.len() < 303), "the previous snapshot is intact");
    few[0].forget_pings();
    few[0].ping();
    daemon.stop();
}

#[test]
fn a_read_only_disk_costs_no_ping() {
    require!(OWN_MOUNT);
    let home = Home::new(15);
    let daemon = home.start_on_a_disk("ro");
    let clients = crowd(&daemon, 3);
    let line = daemon.wait_for_line("cannot write the snapshot");
    assert!(line.contains("remount the disk of SNAPSHOT_PATH read-write"), "{line}");
    for client in &clients {
        client.pings(3);
    }
    let lines = daemon.stop();
    assert_eq!(count(&lines, "cannot write the snapshot"), 1, "{lines:#?}");
}

#[test]
fn snapshot_show_omits_addresses_by_default() {
    let home = Home::new(11);
    let daemon = home.start(&[]);
    let clients = crowd(&daemon, 2);
    daemon.stop();
    let path = home.snapshot();
    let show = |arguments: &[&str]| {
        let mut command = program(&[]);
        output(command.args(["snapshot", "show"]).arg(&path).args(arguments))
    };
    let (status, shown, _) = show(&[]);
    assert!(status.success());
    assert!(shown.contains("2 (IPv4 2, IPv6 0), 0 muted"), "{shown}");
    assert!(shown.contains("on UDP port 27561, at shutdown"), "{shown}");
    let addresses: Vec<_> = clients.iter().map(|client| client.address().to_string()).collect();
    assert!(!addresses.iter().any(|address| shown.contains(address)), "{shown}");
    let (_, shown, _) = show(&["--clients"]);
    assert!(addresses.iter().all(|address| shown.contains(address)), "{shown}");

    fs::write(&path, "something else").unwrap();
    let (status, shown, error) = show(&[]);
    assert_eq!((status.code(), &*shown), (Some(1), ""));
    assert!(error.contains("the file is not a wakeupd snapshot"), "{error}");
    fs::remove_file(&path).unwrap();
    let (status, _, error) = show(&[]);
    assert_eq!(status.code(), Some(1));
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn no_snapshot_is_written_without_a_path() {
    let home = Home::new(12);
    let daemon = home.start(&[("SNAPSHOT_PATH", "none")]);
    let _clients = crowd(&daemon, 1);
    daemon.stop();
    assert_eq!(home.files(), [""; 0]);
}
