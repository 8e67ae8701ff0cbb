//! Counts the tests that one `cargo test` skips. A test binary records the need of each test that it skips in
//! a file, and the last test target, `tests/summary.rs`, reports them.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::parent_id;
use std::path::PathBuf;

/// The number of skipped tests for each need, such as `root` or a program.
pub type Skips = BTreeMap<String, usize>;

const PREFIX: &str = "skips-";

/// Records the need of a skipped test, such as `root` or a program. Call this only in a test binary that
/// cargo started, because the file is named after the parent process.
///
/// # Panics
/// If the file cannot be written.
pub fn record(need: &str) {
    let file = File::options().create(true).append(true).open(file_of(parent_id()));
    file.unwrap().write_all(format!("{need}\n").as_bytes()).unwrap();
}

/// Returns the file of a `cargo test` run, named after the cargo process with the id `cargo`. Each line is
/// the need of a skipped test. A run of a single target leaves its file behind, so this call also removes the
/// files of runs that have ended.
///
/// # Panics
/// If the folder of the tests cannot be read.
#[must_use]
pub fn file_of(cargo: u32) -> PathBuf {
    for file in fs::read_dir(folder()).unwrap().map(|file| file.unwrap()) {
        let name = file.file_name().into_string().unwrap_or_default();
        if name.strip_prefix(PREFIX).is_some_and(|run| !is_running(run)) {
            let _ = fs::remove_file(file.path());
        }
    }
    folder().join(format!("{PREFIX}{cargo}-{}", start_of(cargo).unwrap_or_default()))
}

/// Counts the skipped tests of a run, and removes the file of the run.
#[must_use]
pub fn take(cargo: u32) -> Skips {
    let file = file_of(cargo);
    let needs = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(file);
    let mut skips = Skips::new();
    for need in needs.lines() {
        *skips.entry(need.to_owned()).or_default() += 1;
    }
    skips
}

/// The folder that cargo keeps for temporary files of tests, `target/tmp`. A test binary is in
/// `target/debug/deps`.
fn folder() -> PathBuf {
    let program = env::current_exe().unwrap();
    let folder = program.ancestors().nth(3).unwrap().join("tmp");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// True if a run has not ended. `run` is the id of the cargo process, a hyphen and the start of the process.
fn is_running(run: &str) -> bool {
    let Some((process, start)) = run.split_once('-') else { return false };
    process.parse().is_ok_and(|process| start_of(process).is_some_and(|it| it.to_string() == start))
}

/// The start of a running process, which distinguishes it from a later process with the same id.
#[cfg(target_os = "linux")]
fn start_of(process: u32) -> Option<u64> {
    let process = procfs::process::Process::new(process.try_into().ok()?).ok()?;
    Some(process.stat().ok()?.starttime)
}

/// Zero for a running process: only Linux shows the start in procfs.
#[cfg(not(target_os = "linux"))]
fn start_of(process: u32) -> Option<u64> {
    let process = nix::unistd::Pid::from_raw(process.try_into().ok()?);
    nix::sys::signal::kill(process, None).ok().map(|()| 0)
}

/// The closing lines of a run: the number of skipped tests, and the command that runs them.
///
/// # Panics
/// Never: writing to a string cannot fail.
#[must_use]
pub fn summary(skips: &Skips) -> String {
    let total: usize = skips.values().sum();
    let mut text = match total {
        0 => return "0 tests were skipped.\n".to_owned(),
        1 => "1 test was skipped. Its line above begins with \"skipped\".\n".to_owned(),
        _ => format!("{total} tests were skipped. Their lines above begin with \"skipped\".\n"),
    };
    for (need, count) in skips {
        let verb = if *count == 1 { "needs" } else { "need" };
        writeln!(text, "{count:4} {verb} {need}: {}", remedy(need)).unwrap();
    }
    text
}

fn remedy(need: &str) -> String {
    match need {
        // Debian keeps nft and tc off an ordinary user's path. Root builds in a folder of its own, because an
        // ordinary user could not rebuild its files.
        "root" => "sudo -E env \"PATH=$PATH:/usr/sbin\" CARGO_TARGET_DIR=target/root cargo test",
        "IPv6" => "sysctl net.ipv6.conf.lo.disable_ipv6=0",
        "control groups" => "mount /sys/fs/cgroup writable",
        program => return format!("apt-get install {}", package_of(program)),
    }
    .to_owned()
}

/// The Debian package of a program.
fn package_of(program: &str) -> &str {
    match program {
        "cc" => "gcc",
        "groff" => "groff-base",
        "ip" | "tc" => "iproute2",
        "mount" | "nsenter" | "setpriv" | "unshare" => "util-linux",
        "nft" => "nftables",
        "promtool" => "prometheus",
        "systemd-socket-activate" => "systemd",
        program => program,
    }
}
