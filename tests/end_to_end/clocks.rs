//! The clocks of a daemon jump, as when an administrator sets them or a suspended machine resumes. The
//! machine's own clocks, which the clients use, stay untouched.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::Value;

use crate::standstill;
use crate::support::daemon::{Client, Daemon, SERVING, count, wakeupd};
use crate::support::needs::Need;
use crate::support::scene::undisturbed;
use crate::support::web::{connect, get, wait_for};
use crate::support::witness::Witness;

const DAY: i64 = 24 * 3600;

/// The clock offsets of a daemon.
#[derive(Debug)]
pub struct Clocks {
    /// The folder of the preloaded library and of `file`.
    folder: PathBuf,
    file: File,
}

impl Clocks {
    /// Compiling the library needs a C compiler.
    pub const NEEDS: [Need; 1] = [Need::Program("cc")];

    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let name = format!("clocks-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&folder).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/clocks.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.join("clocks.so")).arg(source);
        assert!(compiler.status().unwrap().success());
        let file = File::create_new(folder.join("set")).unwrap();
        file.write_all_at(&[0; 24], 0).unwrap();
        Self { folder, file }
    }

    /// The variables that give a process these clocks.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.folder.join("clocks.so")), ("SET_CLOCKS", self.folder.join("set"))]
    }

    /// Starts a daemon with these clocks.
    fn start(&self, settings: &[(&str, &str)]) -> Daemon {
        let mut command = wakeupd(&SERVING);
        command.env("LOG_LEVEL", "DEBUG").envs(self.variables());
        Daemon::start_command(command.envs(settings.iter().copied()))
    }

    /// Sets the wall clock this many seconds ahead.
    fn set_wall(&self, seconds: i64) {
        self.set(0, seconds);
    }

    /// Sets the boot-time clock this many seconds ahead.
    fn set_boot(&self, seconds: i64) {
        self.set(1, seconds);
    }

    /// Makes all clock reads of this thread fail, which the daemon does not handle.
    pub fn take_from(&self, thread: Pid) {
        self.set(2, thread.as_raw().into());
    }

    fn set(&self, place: u64, number: i64) {
        self.file.write_all_at(&number.to_ne_bytes(), place * 8).unwrap();
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The event stream of `/events`.
struct Events(Box<dyn Iterator<Item = String>>);

impl Events {
    fn of(daemon: &Daemon) -> Self {
        let mut stream = connect(daemon.http());
        stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
        Self(Box::new(BufReader::new(stream).lines().map(Result::unwrap)))
    }

    /// The next event with this name, among the next thirty.
    fn next(&mut self, name: &str) -> Value {
        let event = format!("event: {name}");
        assert!(self.0.by_ref().take(90).any(|line| line == event), "no {name}");
        serde_json::from_str(self.0.next().unwrap().strip_prefix("data: ").unwrap()).unwrap()
    }
}

fn time(sample: &Value) -> f64 {
    sample["time"].as_f64().unwrap()
}

#[test]
fn setting_the_wall_clock_changes_no_ping_and_no_lifetime() {
    require!(Clocks::NEEDS);
    let _undisturbed = undisturbed();
    let began = Instant::now();
    let clocks = Clocks::new();
    let settings = [("CLIENT_EXPIRATION_SECONDS", "3"), ("HTTP_ADDR", "127.0.0.1:0")];
    let daemon = clocks.start(&settings);
    let http = daemon.http();
    let witness = Witness::of(&daemon);
    let mut events = Events::of(&daemon);
    let mut looks = 0;
    for shift in [-DAY, DAY, 0] {
        let before = events.next("status");
        let silent = Client::of(&daemon);
        silent.heartbeat(&[]);
        daemon.wait_for_line(&format!("registered client={}", silent.address()));
        let registered = Instant::now();
        clocks.set_wall(shift);

        // The daemon sends the history again, so that all of its times follow the same clock.
        let history = events.next("history");
        let now = events.next("status");
        let (from, to) = (time(&before["now"]), time(&now["now"]));
        assert!((to - from).abs() > 80_000.0, "the clock jumped: {from} {to}");
        let history = history.as_array().unwrap();
        assert!(history.is_sorted_by_key(time), "{history:?}");
        let seconds = began.elapsed().as_secs_f64();
        assert!(history.iter().all(|sample| (to - seconds..=to).contains(&time(sample))));
        assert!(history.len() > looks, "the history keeps its samples");
        looks = history.len();

        // A client lives as long as ever.
        silent.pings(2);
        daemon.wait_for_line(&format!("removed client={} reason=\"expired\"", silent.address()));
        assert!(registered.elapsed() > Duration::from_millis(2_500));
        let status = wait_for(http, "/status", |status| status["clients"]["ipv4"] == 1);
        assert!(status["uptime_seconds"].as_f64().unwrap() <= began.elapsed().as_secs_f64());
        let client = &get(http, "/clients").json()["clients"][0];
        let expires = client["expires_in_seconds"].as_f64().unwrap();
        assert!((0.0..=3.0).contains(&expires), "{client}");
        let day = |time: &Value| time.as_str().unwrap()[..10].to_owned();
        // Times follow the current clock, even if the client registered before the jump.
        let days = [day(&client["first_seen"]), day(&client["last_heartbeat"])];
        assert!(days.contains(&day(&status["started"])), "{client} {status}");
    }
    witness.missed_nothing(&daemon);
    let lines = daemon.stop();
    let told = ["skipped slots", "stuck", " ERROR "].map(|text| count(&lines, text));
    assert_eq!(told, [0, 0, 0], "{lines:#?}");
    assert_eq!(count(&lines, " registered "), 4, "{lines:#?}");
}

#[test]
fn a_queued_heartbeat_keeps_its_client_through_a_suspend() {
    require!(Clocks::NEEDS);
    let _undisturbed = undisturbed();
    let clocks = Clocks::new();
    let daemon = clocks.start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    // No thread runs and no timer advances, but these clocks do.
    standstill::stand_still(&daemon, |clients| {
        let frozen = Instant::now();
        standstill::heartbeats(clients);
        // The witness has a waiting heartbeat too.
        thread::sleep(Duration::from_secs(2));
        clocks.set_wall(300);
        clocks.set_boot(300);
        frozen.elapsed()
    });
    let status = wait_for(daemon.http(), "/status", |status| {
        status["uptime_seconds"].as_f64() > Some(300.0)
    });
    assert_eq!(status["stuck"], Value::Array(Vec::new()));
    standstill::stop(daemon);
}
