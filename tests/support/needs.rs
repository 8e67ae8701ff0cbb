//! What a test needs of the machine it runs on.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio, id};

use wakeupd_test_support::{self as skips, Skips};

#[cfg(target_os = "linux")]
use super::control_group::ControlGroup;

/// Something that not every machine has.
#[derive(Clone, Copy)]
pub enum Need {
    /// The test makes network namespaces, raw sockets or processes of another user.
    Root,
    /// A program of this name, mostly from the Debian package of that name.
    Program(&'static str),
    /// The loopback interface has `::1`.
    Ipv6,
    /// The test makes control groups with limits on memory and on threads.
    #[cfg(target_os = "linux")]
    ControlGroup,
}

/// The needs of a test that runs a daemon with a mount of its own.
pub const OWN_MOUNT: [Need; 3] = [Need::Root, Need::Program("unshare"), Need::Program("mount")];

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => nix::unistd::geteuid().is_root(),
            Self::Program(name) => Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok(),
            Self::Ipv6 => UdpSocket::bind("[::1]:0").is_ok(),
            #[cfg(target_os = "linux")]
            Self::ControlGroup => {
                ControlGroup::with_memory(1 << 30).is_some()
                    && ControlGroup::with_threads(1 << 10).is_some()
            }
        }
    }

    /// The name by which the summary knows how to meet the need.
    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Program(name) => name,
            Self::Ipv6 => "IPv6",
            #[cfg(target_os = "linux")]
            Self::ControlGroup => "control groups",
        }
    }
}

/// Ends the test here, as skipped, unless the machine meets all its needs: one or more arrays of [`Need`].
macro_rules! require {
    ($($needs:expr),+) => {
        let needs = [$(&$needs[..]),+].concat();
        if !$crate::support::needs::met(std::any::type_name_of_val(&|| {}), &needs) {
            return;
        }
    };
}

/// Whether the test can run here. If not, records the skip for the summary that closes `cargo test` and prints
/// a line on standard error; in CI a skip is a failure. The test is named by the type of a closure in it.
pub fn met(closure: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else {
        return true;
    };
    let missing = missing.name();
    let test = closure.trim_end_matches("::{{closure}}");
    let test = test.split_once("::").map_or(test, |(_binary, test)| test);
    let reason = format!("skipped {test}: it needs {missing}");
    assert!(env::var_os("CI").is_none(), "{reason}");
    skips::record(missing);
    // The test harness would keep what eprintln! writes to itself.
    io::stderr().write_all(format!("{reason}\n").as_bytes()).unwrap();
    false
}

/// Runs a test of this program that needs bash, with this search path.
fn run_test_with(path: &str) {
    let mut test = Command::new(env::current_exe().unwrap());
    test.args(["--exact", "manual::bash_completes_the_subcommands"]);
    let output = test.env("PATH", path).env_remove("CI").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_run_counts_its_skips_once() {
    run_test_with(&env::var("PATH").unwrap());
    assert_eq!(skips::take(id()), Skips::new());
    let stale = skips::file_of(id()).with_file_name(format!("skips-{}-0", id()));
    fs::write(&stale, "left by an earlier process with this id\n").unwrap();
    for _ in 0..2 {
        run_test_with("/nonexistent");
    }
    assert_eq!(skips::take(id()), Skips::from([("bash".to_owned(), 2)]));
    assert_eq!(skips::take(id()), Skips::new());
    assert!(!stale.exists());
}

#[test]
fn the_summary_states_the_number_of_skips_and_how_to_run_the_tests() {
    let skips = [("root", 2), ("nft", 1), ("strace", 1)];
    let text = skips::summary(&skips.map(|(need, count)| (need.to_owned(), count)).into());
    for part in
        ["4 tests were skipped", "2 need root: sudo ", "1 needs nft: apt-get install nftables"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(skips::summary(&Skips::new()).starts_with("0 tests were skipped"));
}
