//! The process reaches its limit on open files.

use std::io::{Read, Write};
use std::time::Instant;

use crate::doctor::after;
use crate::restart::Home;
use crate::support::daemon::{Client, Daemon, SERVING, count, wait_until};
use crate::support::scene::undisturbed;
use crate::support::web::connect;
use crate::support::witness::Witness;

/// The number of connections, which is fewer than the endpoint would serve.
const CONNECTIONS: usize = 60;

#[test]
fn pings_go_on_when_connections_exhaust_the_file_descriptors() {
    let _undisturbed = undisturbed();
    let home = Home::new(201);
    let settings = [("HTTP_ADDR", "127.0.0.1:0"), ("LOG_LEVEL", "DEBUG")];
    let mut command = after("ulimit -n 60", &SERVING);
    let daemon = Daemon::start_command(command.envs(home.variables()).envs(settings));
    let http = daemon.http();
    let witness = Witness::of(&daemon);
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| connect(http)).collect();
    daemon.wait_for_line("cannot accept an HTTP connection");
    let began = Instant::now();
    let worked_before = daemon.cpu_time();
    daemon.wait_for_line("cannot write the snapshot");
    let newcomer = Client::of(&daemon);
    newcomer.heartbeat(&[]);
    newcomer.pings(4);
    let (time, worked) = (began.elapsed(), daemon.cpu_time().saturating_sub(worked_before));
    assert!(worked < time / 4, "the daemon used {worked:?} of CPU time in {time:?}");

    let lines = daemon.lines();
    let told = count(&lines, "cannot accept an HTTP connection") as u64;
    assert!((2..=time.as_secs() + 2).contains(&told), "{lines:#?}");
    assert_eq!(count(&lines, "cannot write the snapshot"), 1, "{lines:#?}");

    connections.clear();
    daemon.wait_for_line("the daemon can write the snapshot again");
    wait_until("the endpoint answers", || {
        let mut answer = String::new();
        let mut stream = connect(http);
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).is_ok_and(|_| answer.contains(r#"{"ready":true}"#))
    });
    witness.missed_nothing(&daemon);
    daemon.stop();
}
