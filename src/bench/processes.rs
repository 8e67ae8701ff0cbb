//! What the kernel tells of processes and their sockets.

use std::time::Duration;
use std::{fs, io};

use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    /// In bytes.
    pub(super) resident: u64,
}

/// Reads the usage of a process.
pub(super) fn usage(pid: u32) -> io::Result<Usage> {
    let cpu = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()))?.now()?.into();
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok());
    let resident = pages.zip(page).map(|(pages, size)| pages * size);
    let unknown = || io::Error::other("/proc tells the memory of a process in an unknown form");
    Ok(Usage { cpu, resident: resident.ok_or_else(unknown)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident > 100_000);
    }
}
