//! What a test needs of the machine it runs on.

use std::io::{self, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

#[cfg(target_os = "linux")]
use crate::memory::ControlGroup;

/// Something that not every machine has.
#[derive(Clone, Copy)]
pub enum Need {
    /// The test makes network namespaces, raw sockets or processes of another user.
    Root,
    /// A program of this name, mostly from the Debian package of that name.
    Program(&'static str),
    /// The loopback interface has `::1`.
    Ipv6,
    /// The test makes a control group with a limit on memory.
    #[cfg(target_os = "linux")]
    ControlGroup,
}

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
            Self::ControlGroup => ControlGroup::new(1 << 30).is_some(),
        }
    }
}

/// Whether the test can run here. If not, says why on standard error; in CI that is a failure.
pub fn met(test: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else {
        return true;
    };
    let missing = match missing {
        Need::Root => "root",
        Need::Program(name) => name,
        Need::Ipv6 => "IPv6",
        #[cfg(target_os = "linux")]
        Need::ControlGroup => "control groups that it may make",
    };
    let reason = format!("skipped {test}: it needs {missing}");
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    // The test harness would keep what eprintln! writes to itself.
    io::stderr().write_all(format!("{reason}\n").as_bytes()).unwrap();
    false
}
