//! What the kernel tells of processes and their sockets.

use std::time::Duration;
use std::{fs, io};

use nix::unistd::{SysconfVar, sysconf};

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    /// In bytes.
    pub(super) resident: u64,
}

/// Reads the usage of a process from `/proc`.
pub(super) fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|n| u64::try_from(n).ok());
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|n| u64::try_from(n).ok());
    let read = || {
        // The second field is the program's name, in parentheses and with anything in it.
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
        let user: u64 = fields.nth(11)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let cpu = Duration::from_millis((user + system) * 1_000 / per_second?);
        Some(Usage { cpu, resident: pages * page? })
    };
    read().ok_or_else(|| io::Error::other("/proc tells the use of a process in an unknown form"))
}

/// How many datagrams the kernel dropped at the UDP sockets on these ports, in the network of the
/// process or of the calling thread.
pub(super) fn drops(pid: Option<u32>, ports: &[u16]) -> io::Result<u64> {
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

/// The drops of the socket that a line tells of, if it is on one of the ports.
fn drops_of(line: &str, ports: &[u16]) -> Option<u64> {
    let (_, port) = line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    ports.contains(&port).then(|| line.split_ascii_whitespace().next_back()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident > 100_000);
    }

    #[test]
    fn drops_stand_at_the_end_of_a_sockets_line() {
        let line = "  533: 0100007F:1D89 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 17";
        assert_eq!(drops_of(line, &[80, 7561]), Some(17));
        assert_eq!(drops_of(line, &[80]), None);
        let title = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
        assert_eq!(drops_of(title, &[7561]), None);
    }
}
