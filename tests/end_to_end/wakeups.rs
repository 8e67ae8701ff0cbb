//! How often the daemon's threads wake up. Each wake-up costs CPU time, and on a small machine it is most of the cost.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::restart::Home;
use crate::support::daemon::{Client, Daemon, wait_until};

/// Long enough to count the threads' periodic wake-ups.
const WINDOW: Duration = Duration::from_secs(10);

/// How often the threads with names that begin with `name` have gone to sleep.
fn sleeps(daemon: &Daemon, name: &str) -> u32 {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let threads = threads.map(|thread| thread.unwrap().path());
    let named =
        threads.filter(|thread| fs::read_to_string(thread.join("comm")).unwrap().starts_with(name));
    let counts = named.map(|thread| {
        let status = fs::read_to_string(thread.join("status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse::<u32>().unwrap()
    });
    counts.sum()
}

/// Counts the wake-ups of these threads for a while. Returns the counts and the time in seconds.
fn count<const N: usize>(daemon: &Daemon, names: [&str; N]) -> ([u32; N], f64) {
    let (start, before) = (Instant::now(), names.map(|name| sleeps(daemon, name)));
    thread::sleep(WINDOW);
    let after = names.map(|name| sleeps(daemon, name));
    (std::array::from_fn(|n| after[n] - before[n]), start.elapsed().as_secs_f64())
}

#[test]
fn an_idle_daemon_wakes_up_less_than_five_times_a_second() {
    let home = Home::new(120);
    let default = ("SNAPSHOT_INTERVAL_SECONDS", "5");
    let daemon = home.start(&[("HTTP_ADDR", "127.0.0.1:0"), default]);
    wait_until("the workers sleep", || {
        (0..10).all(|worker| sleeps(&daemon, &format!("worker-{worker}")) > 0)
    });
    let ([all, workers], seconds) = count(&daemon, ["", "worker"]);
    let rate = f64::from(all) / seconds;
    assert!(rate < 5.0, "{rate} wake-ups a second");
    assert_eq!(workers, 0, "wake-ups of workers");
}

#[test]
fn one_worker_serves_a_hundred_clients_with_eight_wake_ups_a_second() {
    let daemon = Daemon::start(&[("WORKER_POOL_SIZE", "4")]);
    let clients: Vec<_> = (0..100).map(|_| Client::of(&daemon)).collect();
    for client in &clients {
        client.heartbeat(&[]);
    }
    clients.iter().for_each(Client::ping);
    let workers = ["worker-0", "worker-1", "worker-2", "worker-3"];
    let ([first, others @ ..], seconds) = count(&daemon, workers);
    let rate = f64::from(first) / seconds;
    // The worker can also wake up at the end of each second.
    assert!((4.0..10.0).contains(&rate), "{rate} wake-ups a second");
    assert_eq!(others, [0; 3], "wake-ups of the other workers");
    clients.iter().for_each(Client::ping);
}
