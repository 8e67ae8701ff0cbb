//! Reads the kernel's figures of processes and their sockets.

use std::time::Duration;
use std::{fs, io};

use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// The resource usage of a process so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
}

/// Reads the resource usage of a process.
pub(crate) fn usage(pid: u32) -> io::Result<Usage> {
    let cpu = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()))?.now()?.into();
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok());
    let resident = pages.zip(page).map(|(pages, size)| pages * size);
    let unknown = || io::Error::other(format!("cannot parse /proc/{pid}/statm"));
    Ok(Usage { cpu, resident: resident.ok_or_else(unknown)? })
}

/// Datagrams that the kernel dropped at the UDP sockets on these ports, in the network namespace of the
/// process or, if `pid` is `None`, of the calling thread.
pub(crate) fn drops(pid: Option<u32>, ports: &[u16]) -> io::Result<u64> {
    let process = pid.map_or("thread-self".to_owned(), |pid| pid.to_string());
    let mut drops = 0;
    for table in ["udp", "udp6"] {
        let sockets = match fs::read_to_string(format!("/proc/{process}/net/{table}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            sockets => sockets?,
        };
        drops += sockets.lines().filter_map(|line| drops_of(line, ports)).sum::<u64>();
    }
    Ok(drops)
}

/// The drops in a line of `/proc/net/udp`, if its socket is on one of the ports.
fn drops_of(line: &str, ports: &[u16]) -> Option<u64> {
    let (_, port) = line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    ports.contains(&port).then(|| line.split_ascii_whitespace().next_back()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_this_process_is_readable() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident > 100_000);
    }

    #[test]
    fn drops_are_the_last_field_of_a_socket_line() {
        let line = "  533: 0100007F:1D89 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 17";
        assert_eq!(drops_of(line, &[80, 7561]), Some(17));
        assert_eq!(drops_of(line, &[80]), None);
        let title = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
        assert_eq!(drops_of(title, &[7561]), None);
    }
}
