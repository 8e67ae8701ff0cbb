//! `wakeupd-bench`.

use std::ffi::OsStr;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bench_cleanup::daemon_of;
use crate::support::daemon::{Daemon, PATIENCE, PROGRAM, output};
use crate::support::needs::Need;
use crate::support::scene::undisturbed;

pub const WIRE_NEEDS: [Need; 3] = [Need::Root, Need::Program("ip"), Need::Program("nft")];

/// The program, which cargo builds with the tests' profile: it belongs to another package than these tests.
fn bench_program() -> &'static Path {
    static PROGRAM_OF_BENCH: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = Path::new(PROGRAM);
        let (profile, target) = (program.parent().unwrap(), program.ancestors().nth(2).unwrap());
        let profile = profile.file_name().and_then(OsStr::to_str).unwrap();
        let profile = if profile == "debug" { "test" } else { profile };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "wakeupd-bench", "--profile", profile]);
        assert!(cargo.arg("--target-dir").arg(target).status().unwrap().success());
        program.with_file_name("wakeupd-bench")
    });
    &PROGRAM_OF_BENCH
}

pub fn bench(arguments: &str) -> Command {
    // The wire's programs are found by the path.
    let path = std::env::var("PATH").unwrap();
    // A script's background job starts with SIGINT ignored, and its children inherit that.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(bench_program());
    command.args(arguments.split_ascii_whitespace()).env_clear().env("PATH", path);
    command
}

/// Many of these clients leave. The others heartbeat so often that they do not expire in 4 s.
pub const CHURN: &str = "--json --clients 100 --register-in 1s --heartbeat-every 1500ms --churn 10";

/// A program that is the daemon with another variable.
pub fn program_with(variable: &str) -> String {
    let name = variable.to_lowercase().replace('=', "-");
    script(&name, &format!("exec env {variable} {PROGRAM} \"$@\""))
}

pub fn script(name: &str, commands: &str) -> String {
    let path = format!("{}/{name}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    // Another process writes it, lest a child of this one have it open, which keeps it from running.
    let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
    let mut shell = Command::new("sh");
    assert!(shell.args(["-c", write, "sh", &path, commands]).status().unwrap().success());
    path
}

/// An empty folder for what a bench must not leave behind.
pub fn temporary_folder(name: &str) -> String {
    let path = format!("{}/{name}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    path
}

/// Runs a bench to its end and returns its exit code and its report. No flood makes it miss anything.
pub fn report(arguments: &str) -> (Option<i32>, Value) {
    let _undisturbed = undisturbed();
    let (status, stdout, stderr) = output(bench(arguments).arg("--json"));
    let report = serde_json::from_str(&stdout);
    (status.code(), report.unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
}

/// A run without a miss in which each client got about a ping a second.
pub fn assert_complete(report: &Value, clients: u64, seconds: u64) {
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    assert_eq!(count("/clients"), Some(clients), "{report:#}");
    assert_eq!(count("/pings/missed"), Some(0), "{report:#}");
    let expected = count("/pings/expected").unwrap();
    assert!(expected.abs_diff(clients * seconds) <= clients * seconds / 20, "{report:#}");
    assert!(count("/pings/delivered").unwrap() > 0, "{report:#}");
    assert_eq!(count("/kernel_drops/bench"), Some(0), "{report:#}");
}

#[test]
fn a_small_bench_misses_no_pings() {
    let (code, report) = report("--clients 200 --for 2s --register-in 1s --baseline");
    assert_eq!(code, Some(0), "{report:#}");
    assert_complete(&report, 200, 2);
    assert_eq!(report["daemon"]["clients_at_end"], 200);
    assert_eq!(report["kernel_drops"]["daemon"], 0);
    assert_eq!(report["timeline"].as_array().map(Vec::len), Some(2));
    let baseline = &report["baseline"];
    assert!(baseline["datagrams_per_second"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(baseline["wakeup_lateness_ms"]["max"].as_f64().unwrap() > 0.0, "{report:#}");
}

#[test]
fn scraping_during_a_bench_costs_no_ping() {
    let (code, report) = report("--clients 200 --for 2s --register-in 1s --scrape");
    assert_eq!(code, Some(0), "{report:#}");
    assert_complete(&report, 200, 2);
    assert!(report["daemon"]["http_answers"].as_u64().unwrap() >= 10, "{report:#}");
}

#[test]
fn half_of_the_clients_go_silent_and_expire() {
    let arguments = "--json --clients 20 --register-in 1s --heartbeat-every 2s";
    for (expiration, length, is_halved) in [("4", "12s", true), ("60", "3s", false)] {
        let (_, stdout, stderr) = output(
            bench(&format!("{arguments} --halve-after 1s --for {length}"))
                .env("CLIENT_EXPIRATION_SECONDS", expiration),
        );
        let report: Value = serde_json::from_str(&stdout).expect(&stderr);
        let halving = &report["halving"];
        assert!(halving["pinged_on_seconds"].as_f64().unwrap() > 0.5, "{report:#}");
        assert_eq!(report["daemon"]["clients_at_end"], if is_halved { 10 } else { 20 });
        assert_eq!(halving["recovered_in_seconds"].is_number(), is_halved, "{report:#}");
    }
}

#[test]
fn the_bench_prints_a_table() {
    let (status, stdout, stderr) = output(&mut bench("--clients 20 --for 1s --register-in 1s"));
    assert!(status.success() && stderr.is_empty(), "{stdout}{stderr}");
    assert!(stdout.starts_with("20 clients over loopback (IPv4), "), "{stdout}");
    for line in ["pings expected", "  missed", "  p99.9", "  clients at the end"] {
        assert!(stdout.contains(&format!("\n{line}")), "{line} is missing in {stdout}");
    }
}

#[test]
fn the_bench_also_writes_json_to_a_file() {
    let name = format!("bench-{}.json", std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let arguments = format!("--clients 20 --for 1s --register-in 1s --json={}", file.display());
    let (status, stdout, stderr) = output(&mut bench(&arguments));
    assert!(status.success() && stdout.contains("\npings expected"), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["clients"], 20);
    fs::remove_file(file).unwrap();

    let (status, _, stderr) = output(&mut bench(&arguments.replace("--json=", "--json=/nowhere")));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("cannot write /nowhere/"), "{stderr}");
}

#[test]
fn a_restarted_daemon_keeps_pinging_its_clients() {
    for signal in ["term", "kill"] {
        let temporary = temporary_folder(&format!("bench-{signal}"));
        let arguments =
            format!("--clients 100 --for 4s --register-in 1s --restart {signal} --json");
        let mut bench = bench(&arguments);
        let variables = [("SNAPSHOT_INTERVAL_SECONDS", "1"), ("TMPDIR", &temporary)];
        let (status, stdout, stderr) = output(bench.envs(variables));
        let report: Value = serde_json::from_str(&stdout).expect(&stderr);
        assert_eq!(status.code(), Some(0), "{report:#}");
        let restart = &report["restart"];
        assert_eq!(restart["signal"], format!("SIG{}", signal.to_uppercase()));
        assert_eq!(restart["clients_pinged_before"], 100, "{report:#}");
        assert_eq!(restart["clients_lost"], 0, "{report:#}");
        assert_eq!(restart["restored"]["clients"], 100, "{report:#}");
        assert!(restart["gap_seconds"]["max"].as_f64().unwrap() > 0.5, "{report:#}");
        assert_eq!(report["daemon"]["clients_at_end"], 100, "{report:#}");
        assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
    }
}

#[test]
fn clients_lost_in_a_restart_are_reported() {
    let program = program_with("SNAPSHOT_PATH=");
    let arguments = format!("--clients 50 --register-in 1s --restart term --program {program}");
    // Until its next heartbeat each client is forgotten.
    for (times, lost) in
        [("--heartbeat-every 300s --for 4s", 50), ("--heartbeat-every 2s --for 8s", 0)]
    {
        let (code, report) = report(&format!("{arguments} {times}"));
        assert_eq!(code, Some(i32::from(lost > 0)), "{report:#}");
        let restart = &report["restart"];
        assert!(restart["restored"].is_null(), "{report:#}");
        assert_eq!(restart["clients_pinged_before"], 50, "{report:#}");
        assert_eq!(restart["clients_lost"], lost, "{report:#}");
        assert_eq!(restart["gap_seconds"]["max"].is_null(), lost > 0, "{report:#}");
    }
}

#[test]
fn churned_clients_are_pinged_until_they_expire() {
    let report = churn("--for 6s");
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap();
    // A tenth of 100 leaves in each of the 12 s, settling included.
    assert!((100..150).contains(&count("/churn/clients_left")), "{report:#}");
    // Clients that have left and have not expired yet still get pings.
    assert!((660..1_000).contains(&count("/pings/expected")), "{report:#}");
    assert!((101..150).contains(&count("/daemon/clients_at_end")), "{report:#}");
    assert!(count("/churn/first_resident_bytes") > 100_000, "{report:#}");
    assert_eq!(report["churn"]["is_growth_judged"], false);
}

/// Runs a bench with churn, in which each client gets its pings until it expires.
pub fn churn(arguments: &str) -> Value {
    let mut bench = bench(&format!("{CHURN} {arguments}"));
    let (status, stdout, stderr) = output(bench.env("CLIENT_EXPIRATION_SECONDS", "4"));
    let report: Value = serde_json::from_str(&stdout).expect(&stderr);
    assert_eq!(report["pings"]["missed"], 0, "{report:#}");
    assert_eq!(report["first_ping_seconds"]["clients_never_pinged"], 0, "{report:#}");
    // A heartbeat may wait for longer than the tolerance where others have the processor.
    assert!(report["churn"]["worst_overrun_ms"].as_f64().unwrap() < 1_000.0, "{report:#}");
    let is_good = report["churn"]["overdue_pings"] == 0;
    assert_eq!(status.code(), Some(i32::from(!is_good)), "{report:#}");
    report
}

#[test]
fn a_daemon_that_cannot_handle_churn_is_reported() {
    let cases = [
        ("CLIENT_EXPIRATION_SECONDS=60", "/churn/overdue_pings"),
        ("CLIENT_EXPIRATION_SECONDS=2", "/pings/missed"),
        ("MAX_CLIENTS=50", "/first_ping_seconds/clients_never_pinged"),
    ];
    let runs = cases.map(|(variable, wrong)| {
        let arguments = format!("{CHURN} --for 4s --program {}", program_with(variable));
        let mut bench = bench(&arguments);
        bench.env("CLIENT_EXPIRATION_SECONDS", "4").stdout(Stdio::piped());
        (bench.spawn().unwrap(), wrong)
    });
    for (bench, wrong) in runs {
        let output = bench.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report.pointer(wrong).unwrap().as_u64().unwrap() > 0, "{wrong}: {report:#}");
    }
}

#[test]
fn a_daemon_that_goes_silent_is_reported() {
    let daemon = Daemon::start(&[]);
    let arguments = format!("--target {} --clients 50 --for 4s --json", daemon.address);
    let child = bench(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    daemon.wait_for_lines("registered", 50);
    thread::sleep(Duration::from_secs(1));
    daemon.freeze();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["pings"]["missed"].as_u64().unwrap() >= 50, "{report:#}");
    assert!(report["daemon"].is_null(), "{report:#}");
}

#[test]
fn a_target_that_never_pings_is_reported() {
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let arguments =
        format!("--target {} --clients 10 --for 2s --register-in 1s", mute.local_addr().unwrap());
    let (status, stdout, _) = output(&mut bench(&arguments));
    assert_eq!(status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("No ping arrived"), "{stdout}");

    let (code, report) = report(&arguments);
    assert_eq!(code, Some(1));
    assert_eq!(
        (&report["pings"]["delivered"], &report["pings"]["missed"]),
        (&0.into(), &20.into())
    );
    assert!(report["deviation_ms"]["p99_9"].is_null(), "{report:#}");
}

#[test]
fn another_machine_gets_no_traffic_without_consent() {
    require!([Need::Program("strace")]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-e", "trace=sendmsg,sendto,sendmmsg"]).arg(bench_program());
    traced.args(["--target", "192.0.2.1", "--clients", "10"]);
    let (status, _, stderr) = output(&mut traced);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains("192.0.2.1\")"), "{stderr}");
    let refusal = "wakeupd-bench: 192.0.2.1:7561 is another machine. Add --yes";
    assert!(stderr.contains(refusal), "{stderr}");
}

#[test]
fn an_ipv6_target_gets_a_socket_for_each_client() {
    require!([Need::Ipv6]);
    let daemon = Daemon::start(&[("HOST", "::1")]);
    let arguments = format!("--target {} --clients 20 --for 2s --register-in 1s", daemon.address);
    let (code, report) = report(&arguments);
    assert_eq!(code, Some(0), "{report:#}");
    assert_complete(&report, 20, 2);
    assert_eq!(report["server"], daemon.address.to_string());
}

#[test]
fn an_invalid_command_line_exits_with_code_2() {
    for (arguments, complaint) in [
        ("--clients 0", "--clients"),
        ("--clients 10000001", "--clients"),
        ("--for 0s", "--for"),
        ("--for 5", "--for"),
        ("--ipv6", "--wire"),
        ("--baseline --target localhost", "--baseline"),
        ("--ramp --target localhost", "--ramp"),
        ("--wire --target localhost", "--wire"),
        ("--yes", "--target"),
        ("--register-in 33s", "--register-in must be at most 32s"),
        ("--halve-after 30s", "--halve-after must be less than --for"),
        ("--restart hup", "term"),
        ("--restart term --target localhost", "--restart"),
        ("--restart term --ramp", "--restart"),
        ("--restart kill --halve-after 1s", "--restart"),
        ("--restart kill --for 3s", "--for must be at least 4s"),
        ("--churn 0", "above 0, up to 100"),
        ("--churn 101", "above 0, up to 100"),
        ("--churn 10 --target localhost", "--churn"),
        ("--churn 10 --restart term", "--churn"),
        ("--churn 10 --heartbeat-every 100s", "--heartbeat-every times 1.2 must be less"),
        ("--churn 10 --clients 1000000", "too few addresses"),
    ] {
        let (status, stdout, stderr) = output(&mut bench(arguments));
        assert_eq!(status.code(), Some(2), "{arguments}: {stderr}");
        assert!(stdout.is_empty() && stderr.contains(complaint), "{arguments}: {stderr}");
    }
}

#[test]
fn a_program_that_does_not_start_as_a_daemon_is_reported() {
    for (program, complaint) in [
        ("/nonexistent", "cannot run /nonexistent"),
        ("/bin/true", "the daemon did not start. It logged: nothing"),
    ] {
        let (status, _, stderr) = output(&mut bench(&format!("--program {program}")));
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(complaint), "{stderr}");
    }
    let mute = script("mute", "exec sleep 60");
    let (_, _, stderr) = output(&mut bench(&format!("--program {mute}")));
    assert!(stderr.contains("the daemon did not start. It logged: nothing"), "{stderr}");

    let (status, _, stderr) = output(bench("").env("WORKER_POOL_SIZE", "none"));
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("WORKER_POOL_SIZE"), "{stderr}");
}

#[test]
fn a_daemon_that_exits_is_reported() {
    let mut bench = bench("--clients 10 --for 60s");
    let child = bench.stderr(Stdio::piped()).spawn().unwrap();
    let daemon = daemon_of(&child);
    // Besides the first there is one that reads the daemon's log, and then two that are the crowd.
    let threads = format!("/proc/{}/task", child.id());
    wait_until("the crowd is there", || (fs::read_dir(&threads).ok()?.count() == 4).then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the daemon exited: signal: 9"), "{stderr}");
}

pub fn wait_until<T>(event: &str, mut happened: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(value) = happened() {
            return value;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("not within {PATIENCE:?}: {event}");
}
