//! A restarted daemon restores its clients from the snapshot.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use wakeupd::snapshot::Snapshot;

use crate::crowd::Crowd;
use crate::deny_file::DenyFile;
use crate::support::daemon::{Client, Daemon, count, field, wait_until, with_mount};
use crate::support::needs::Need;

/// The home of successive daemons: an address that is unique to the test, and a folder removed on drop.
#[derive(Debug)]
pub struct Home {
    host: String,
    pub folder: PathBuf,
}

impl Home {
    /// The number must be unique among the tests.
    pub fn new(number: u8) -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let name = format!("wakeupd-restart-{}-{number}", std::process::id());
        let create = |place: &str| {
            let folder = Path::new(place).join(&name);
            fs::create_dir(&folder).map(|()| folder)
        };
        // On a busy disk, the last snapshot may take longer than the shutdown waits for it.
        let folder = create("/dev/shm").or_else(|_| create(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        Self { host: format!("127.{high}.{low}.{number}"), folder }
    }

    pub fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshot")
    }

    /// The variables of a daemon that writes a snapshot every second.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("HOST", self.host.clone()),
            ("PORT", "27561".to_owned()),
            ("SNAPSHOT_PATH", self.snapshot().to_str().unwrap().to_owned()),
            ("SNAPSHOT_INTERVAL_SECONDS", "1".to_owned()),
        ]
    }

    pub fn start(&self, more: &[(&str, &str)]) -> Daemon {
        let own = self.variables();
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        Daemon::start(&own.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// The snapshot, if the file is present and complete.
    pub fn read(&self) -> Option<Snapshot> {
        Snapshot::parse(fs::read(self.snapshot()).ok()?).ok()
    }

    /// Waits until the snapshot has this number of clients.
    pub fn wait_for_snapshot(&self, clients: usize) {
        wait_until("the snapshot has the clients", || {
            self.read().is_some_and(|snapshot| snapshot.len() == clients as u64)
        });
    }

    /// A file beside the snapshot.
    pub fn beside(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("snapshot{ending}"))
    }

    /// Starts a daemon that sees the folder as a disk of its own, mounted with these options.
    pub fn start_on_a_disk(&self, options: &str) -> Daemon {
        let folder = self.folder.display();
        let mut command = with_mount(&format!("-t tmpfs -o {options} tmpfs '{folder}'"));
        command.envs(self.variables());
        Daemon::start_command(command.env("HTTP_ADDR", "").env("LOG_LEVEL", "INFO"))
    }

    pub fn files(&self) -> Vec<String> {
        let files = fs::read_dir(&self.folder).unwrap();
        let mut files: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Clients that have sent one heartbeat each and received a ping.
pub fn crowd(daemon: &Daemon, size: usize) -> Vec<Client> {
    let clients: Vec<_> = (0..size).map(|_| Client::of(daemon)).collect();
    for client in &clients {
        client.heartbeat(&[]);
    }
    clients.iter().for_each(Client::ping);
    clients
}

/// The numbers of clients in the snapshot that the daemon restored, that had expired, and that it refused.
pub fn restored(daemon: &Daemon) -> [String; 3] {
    let line = daemon.wait_for_line(" restored ");
    ["clients", "expired", "refused"].map(|name| field(&line, name).to_owned())
}

#[test]
fn sigterm_and_a_start_lose_no_client() {
    let home = Home::new(1);
    let daemon = home.start(&[]);
    let clients = crowd(&daemon, 20);
    let lines = daemon.stop();
    assert_eq!(count(&lines, "wrote the final snapshot clients=20"), 1, "{lines:#?}");
    assert_eq!(home.files(), ["snapshot", "snapshot.lock"]);
    let mode = fs::metadata(home.snapshot()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    clients.iter().for_each(Client::forget_pings);
    let daemon = home.start(&[]);
    assert_eq!(restored(&daemon), ["20", "0", "0"]);
    for client in &clients {
        client.pings(2);
    }
    let lines = daemon.stop();
    assert_eq!(count(&lines, "heartbeats=0"), 1, "no client needed another heartbeat: {lines:#?}");
}

#[test]
fn sigkill_loses_no_client_of_the_last_snapshot() {
    let home = Home::new(2);
    let mut daemon = home.start(&[]);
    let clients = crowd(&daemon, 20);
    home.wait_for_snapshot(20);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    clients.iter().for_each(Client::forget_pings);
    let daemon = home.start(&[]);
    assert_eq!(restored(&daemon), ["20", "0", "0"]);
    for client in &clients {
        client.pings(2);
    }
}

#[test]
fn a_client_registered_for_an_interval_survives_sigkill() {
    let home = Home::new(13);
    let mut daemon = home.start(&[("SNAPSHOT_INTERVAL_SECONDS", "2")]);
    let early = crowd(&daemon, 1);
    home.wait_for_snapshot(1);
    // Just after a snapshot was written.
    let late = Client::of(&daemon);
    late.heartbeat(&[]);
    daemon.wait_for_lines("registered", 2);
    // The interval, doubled for a slow machine.
    thread::sleep(Duration::from_secs(4));
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let daemon = home.start(&[]);
    assert_eq!(restored(&daemon), ["2", "0", "0"]);
    for client in [&early[0], &late] {
        client.forget_pings();
        client.ping();
    }
}

#[test]
fn a_burst_during_a_snapshot_is_in_the_next_one() {
    const EARLY: u32 = 2_000;
    const LATE: u32 = 40_000;
    let home = Home::new(16);
    let mut daemon =
        home.start(&[("SNAPSHOT_INTERVAL_SECONDS", "5"), ("HTTP_ADDR", "127.0.0.1:0")]);
    let SocketAddr::V4(server) = daemon.address else { panic!("the daemon is bound to IPv4") };
    let crowd = Crowd::new(server);
    let addresses: Vec<_> =
        (0..EARLY + LATE).map(|n| Ipv4Addr::from_bits(0x7F20_0000 + n)).collect();
    let (early, late) = addresses.split_at(EARLY as usize);
    crowd.register(daemon.http(), early);
    home.wait_for_snapshot(early.len());
    // The temporary file appears when the next snapshot begins.
    wait_until("the next snapshot has begun", || home.files().len() > 2);
    crowd.register(daemon.http(), late);
    // The interval and the time of a snapshot, doubled for a slow machine.
    thread::sleep(Duration::from_secs(12));
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let daemon = home.start(&[]);
    assert_eq!(restored(&daemon), ["42000", "0", "0"]);
}

#[test]
fn a_restart_extends_no_lifetime() {
    let home = Home::new(3);
    let expiration = [("CLIENT_EXPIRATION_SECONDS", "6")];
    let daemon = home.start(&expiration);
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.pings(3);
    daemon.stop();
    let daemon = home.start(&expiration);
    // On a slow machine the client may have expired by now.
    if restored(&daemon)[0] == "1" {
        daemon.wait_for_line("removed");
    }
    let mut pings = 3;
    while client.has_ping() {
        client.ping();
        pings += 1;
    }
    // Six seconds have room for seven pings. A fresh expiration after two seconds would have room for nine.
    assert!(pings <= 7, "{pings} pings");
    daemon.stop();
    let daemon = home.start(&expiration);
    assert_eq!(restored(&daemon), ["0", "0", "0"]);
}

#[test]
fn an_expired_client_is_not_restored() {
    let home = Home::new(4);
    let daemon = home.start(&[]);
    let clients = crowd(&daemon, 3);
    daemon.stop();
    // With the next daemon's shorter expiration, this stands for two minutes.
    thread::sleep(Duration::from_millis(1_100));
    let daemon = home.start(&[("CLIENT_EXPIRATION_SECONDS", "1")]);
    assert_eq!(restored(&daemon), ["0", "3", "0"]);
    assert!(clients[0].is_left_alone_for(Duration::from_millis(1_500)));
}

#[test]
fn the_guard_refuses_denied_clients_on_restore() {
    let home = Home::new(5);
    let daemon = home.start(&[]);
    let _clients = crowd(&daemon, 5);
    daemon.stop();
    let denied = DenyFile::new("the_guard_refuses_denied_clients_on_restore", &home.host);
    let daemon = home.start(&[("DENY_FILE", denied.path())]);
    assert_eq!(restored(&daemon), ["0", "0", "5"]);
    daemon.stop();
}

#[test]
fn the_caps_apply_to_restored_clients() {
    let home = Home::new(6);
    let daemon = home.start(&[]);
    let clients = crowd(&daemon, 5);
    daemon.stop();
    let daemon = home.start(&[("MAX_CLIENTS", "3")]);
    assert_eq!(restored(&daemon), ["3", "0", "2"]);
    clients[0].heartbeat(&[]);
    daemon.stop();
}

#[test]
fn a_client_out_of_reach_is_not_restored() {
    require!([Need::Ipv6]);
    let home = Home::new(14);
    let daemon = home.start(&[("HOST", "::"), ("PORT", "27563")]);
    let client = |ip: &str| {
        let server = SocketAddr::new(ip.parse().unwrap(), 27_563);
        let client = Client::new(UdpSocket::bind((ip, 0)).unwrap(), server);
        client.heartbeat(&[]);
        client.ping();
        client
    };
    let (v4, v6) = (client(&home.host), client("::1"));
    daemon.stop();
    let daemon = home.start(&[("PORT", "27563")]);
    assert_eq!(restored(&daemon), ["1", "0", "1"]);
    v4.forget_pings();
    v4.ping();
    assert!(v6.is_left_alone_for(Duration::from_millis(1_500)));
    let lines = daemon.stop();
    assert_eq!(count(&lines, "failed_pings=0"), 1, "{lines:#?}");
}
