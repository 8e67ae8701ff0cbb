//! Problems of the running daemon, which `status::find` detects.

use super::Problem;
use super::Severity::{Critical, Warning};

/// All problems that the status can report.
pub const ALL: &[Problem] = &[
    STUCK,
    PINGS_SKIPPED,
    RECEIVE_DROPS,
    RECEIVE_DROPS_SMALL_BUFFER,
    PINGS_FAILED,
    PINGS_FAILED_ROUTE,
    PINGS_FAILED_FIREWALL,
    PINGS_FAILED_ROOM,
    CLIENTS_NEAR_CAP,
    CLIENTS_AT_CAP,
    CLIENTS_ABOVE_CAP,
    CLIENTS_TURNED_AWAY,
    LOCAL_ADDRESSES_FULL,
    PINGS_LATE,
    CONTROL_TRUNCATED,
    SNAPSHOT_OLD,
    SNAPSHOT_FAILED,
    SNAPSHOT_UNUSED,
    DENY_FILE_STALE,
    DENY_FILE_UNREAD,
    DENY_FILE_INVALID,
    RECEIVE_BUFFER_SMALL,
    SEND_BUFFER_SMALL,
    NOT_ENFORCING,
];

/// The loop of a task does not run.
pub const STUCK: Problem = Problem {
    id: "stuck",
    severity: Critical,
    summary: "These tasks have not responded for more than 3 s: {tasks}.",
    impact: "The clients of a stuck worker get no pings, and without the listener all clients expire.",
    remedy: "Restart the daemon: `systemctl restart wakeupd` or `docker restart wakeupd`. If it happens again, check whether the machine lacks CPU time or memory.",
    commands: "",
    more: Some("stuck"),
};

/// A worker skipped whole seconds.
pub const PINGS_SKIPPED: Problem = Problem {
    id: "pings_skipped",
    severity: Critical,
    summary: "The daemon skipped up to {pings} in the last minute, {percent} % of all, because a worker was late by a whole second or more.",
    impact: "Each client misses that share of its pings.",
    remedy: "Find the threads that use the CPU with `top -H`. Give the daemon more CPU time or lower MAX_CLIENTS; `wakeupd-bench`, built from source, measures the capacity of the machine. After a suspend of the machine, ignore a single occurrence.",
    commands: "",
    more: Some("pings-skipped"),
};

/// The receive buffer has its full size and overflows.
pub const RECEIVE_DROPS: Problem = Problem {
    id: "receive_drops",
    severity: Critical,
    summary: "The kernel dropped {datagrams} in the last minute, because the receive buffer was full.",
    impact: "A client that loses several heartbeats in a row gets no pings until its next heartbeat.",
    remedy: "The buffer has its full size, so either the daemon lacks CPU time, or the port is flooded. Check the CPU with `top -H`, and look at the refused datagrams and the largest prefixes.",
    commands: "",
    more: Some("receive-drops"),
};

/// The receive buffer is small and overflows.
pub const RECEIVE_DROPS_SMALL_BUFFER: Problem = Problem {
    remedy: "The buffer is small. Raise its limit on the host, then restart the daemon.",
    commands: "{raise}\nsudo systemctl restart wakeupd\n# in a container: docker restart wakeupd",
    ..RECEIVE_DROPS
};

/// Sends fail for a reason that needs a look at the log.
pub const PINGS_FAILED: Problem = Problem {
    id: "pings_failed",
    severity: Critical,
    summary: "The kernel did not accept {pings} in the last minute. The most frequent reason is {reason}.",
    impact: "Each failure costs one client one ping.",
    remedy: "The log names some of the clients with the error, and `wakeupd doctor` looks for causes.",
    commands: "",
    more: Some("pings-failed"),
};

/// Sends fail for lack of a route or of the source address.
pub const PINGS_FAILED_ROUTE: Problem = Problem {
    remedy: "Check with `ip address` and `ip route` that the machine still has its address and a route.",
    ..PINGS_FAILED
};

/// Sends fail because a firewall drops them.
pub const PINGS_FAILED_FIREWALL: Problem = Problem {
    remedy: "Check the firewall rules with `nft list ruleset`. If none drops the pings, the connection tracking table may be full: run `wakeupd doctor`.",
    ..PINGS_FAILED
};

/// Sends fail because a queue is full.
pub const PINGS_FAILED_ROOM: Problem = Problem {
    remedy: "The queue of a network device, the send buffer or the neighbour table is full: check `tc -s qdisc` and `wakeupd doctor`. If `dmesg` reports a neighbour table overflow, raise net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3 above the number of clients on the local network.",
    ..PINGS_FAILED
};

/// Most of `MAX_CLIENTS` are registered.
pub const CLIENTS_NEAR_CAP: Problem = Problem {
    id: "clients_near_cap",
    severity: Warning,
    summary: "The daemon has {clients} of at most {max} clients (MAX_CLIENTS).",
    impact: "At the cap, the daemon refuses new clients.",
    remedy: "If the clients are yours, raise MAX_CLIENTS; `wakeupd-bench`, built from source, measures how many clients the machine can serve. If they are not, find their networks among the largest prefixes and add them to DENY_FILE.",
    commands: "",
    more: Some("clients-near-cap"),
};

/// `MAX_CLIENTS` are registered, and others are refused.
pub const CLIENTS_AT_CAP: Problem = Problem {
    severity: Critical,
    impact: "In the last minute it refused {heartbeats} of new clients.",
    ..CLIENTS_NEAR_CAP
};

/// `MAX_CLIENTS` are registered, and the guard only observes.
pub const CLIENTS_ABOVE_CAP: Problem = Problem {
    impact: "With GUARD_MODE=enforce it would have refused {heartbeats} of new clients in the last minute.",
    ..CLIENTS_NEAR_CAP
};

/// A cap of an address or a network refuses new clients.
pub const CLIENTS_TURNED_AWAY: Problem = Problem {
    id: "clients_turned_away",
    severity: Warning,
    summary: "The daemon refused {heartbeats} in the last minute, because the client's address or network has reached its cap.",
    impact: "New clients behind these addresses get no pings.",
    remedy: "The log names some of the addresses. If they belong to your clients, such as many behind one NAT, raise MAX_CLIENTS_PER_ADDRESS or MAX_CLIENTS_PER_PREFIX, or add a gateway of your own to LOCAL_NETS. If they do not, the cap protects them from pings that a forger requests.",
    commands: "",
    more: Some("clients-turned-away"),
};

/// Clients of further local addresses are pinged from an address of the kernel's choice.
pub const LOCAL_ADDRESSES_FULL: Problem = Problem {
    id: "local_addresses_full",
    severity: Critical,
    summary: "The table of local addresses has no room for the addresses that {clients} sent heartbeats to.",
    impact: "The kernel chooses the source address of their pings, and a client that expects pings from the address it sends to may not receive them.",
    remedy: "Set HOST to the address that clients use, or route a smaller network to this machine: check `ip route show table local type local`.",
    commands: "",
    more: Some("local-addresses-full"),
};

/// Pings are late, but not skipped.
pub const PINGS_LATE: Problem = Problem {
    id: "pings_late",
    severity: Warning,
    summary: "In the last minute, {pings}, at least one in a hundred, were more than {limit} ms late.",
    impact: "The machine has no headroom: with more clients the daemon skips pings.",
    remedy: "Find the other threads that use the CPU with `top -H`, and check the steal time of a virtual machine (`st` in `top`).",
    commands: "",
    more: Some("pings-late"),
};

/// A handed-over socket has options that the daemon does not expect.
pub const CONTROL_TRUNCATED: Problem = Problem {
    id: "control_truncated",
    severity: Warning,
    summary: "The kernel truncated the control messages of {datagrams} in the last minute.",
    impact: "Pings to these clients may leave from an address that the clients did not send to.",
    remedy: "The socket of wakeupd.socket attaches more to each datagram than the daemon has room for. Remove options such as PassSecurity= from wakeupd.socket, then restart both units.",
    commands: "",
    more: Some("control-truncated"),
};

/// The last snapshot is old, although no write failed.
pub const SNAPSHOT_OLD: Problem = Problem {
    id: "snapshot_old",
    severity: Warning,
    summary: "The snapshot is {age} s old, because the disk is slow or does not answer.",
    impact: "Pings continue, but a restart loses the clients that registered since.",
    remedy: "Check the disk of SNAPSHOT_PATH with `findmnt` and the kernel's log with `dmesg`.",
    commands: "",
    more: Some("snapshot-old"),
};

/// The last write of the snapshot failed. `remedy` is the end of a sentence.
pub const SNAPSHOT_FAILED: Problem = Problem {
    summary: "The daemon cannot write the snapshot: {reason}.",
    impact: "Pings continue, but a restart loses the clients that registered since the last snapshot.",
    remedy: "To fix this, {remedy}.",
    ..SNAPSHOT_OLD
};

/// The daemon started without the clients of its snapshot.
pub const SNAPSHOT_UNUSED: Problem = Problem {
    id: "snapshot_unused",
    severity: Warning,
    summary: "The daemon could not use the snapshot at its start: {reason}.",
    impact: "Each client of the snapshot gets no pings until its next heartbeat.",
    remedy: "Check the file with `wakeupd snapshot show`. It has the ending .bad, or is still at SNAPSHOT_PATH if the daemon could not rename it. This finding ends an hour after the start.",
    commands: "",
    more: Some("snapshot-unused"),
};

/// A reload of `DENY_FILE` failed.
pub const DENY_FILE_STALE: Problem = Problem {
    id: "deny_file_stale",
    severity: Warning,
    summary: "The daemon cannot reload DENY_FILE: {reason}.",
    impact: "The networks of the last successful read stay denied, but a restart may fail.",
    remedy: "Correct the file, then reload it: `systemctl reload wakeupd` or `docker kill --signal HUP wakeupd`. The log shows the text of an invalid line.",
    commands: "",
    more: Some("deny-file-stale"),
};

/// `DENY_FILE` has not been read since the start.
pub const DENY_FILE_UNREAD: Problem = Problem {
    severity: Critical,
    summary: "The daemon cannot load DENY_FILE: {reason}.",
    impact: "None of its networks is denied.",
    remedy: "Check the disk of DENY_FILE with `findmnt` and the kernel's log with `dmesg`. The daemon retries, and applies the file as soon as it can read it.",
    ..DENY_FILE_STALE
};

/// `DENY_FILE` has not been read since the start, because of its content.
pub const DENY_FILE_INVALID: Problem = Problem {
    remedy: "Correct the file; the log shows the text of the invalid line. The daemon retries, and applies the file as soon as it can read it.",
    ..DENY_FILE_UNREAD
};

/// The receive buffer is smaller than requested.
pub const RECEIVE_BUFFER_SMALL: Problem = Problem {
    id: "receive_buffer_small",
    severity: Warning,
    summary: "The kernel limits the receive buffer to {granted} bytes, but the daemon requests {wanted}.",
    impact: "A burst of heartbeats may overflow the buffer, and a client that loses all its heartbeats gets no more pings.",
    remedy: "Raise the limit on the host, then restart the daemon.",
    commands: "{raise}\nsudo systemctl restart wakeupd\n# in a container: docker restart wakeupd",
    more: Some("receive-buffer-small"),
};

/// The send buffer is smaller than requested.
pub const SEND_BUFFER_SMALL: Problem = Problem {
    id: "send_buffer_small",
    summary: "The kernel limits the send buffer to {granted} bytes, but the daemon requests {wanted}.",
    impact: "Pings that are due while the buffer is full wait or are lost.",
    more: Some("send-buffer-small"),
    ..RECEIVE_BUFFER_SMALL
};

/// The guard only observes.
pub const NOT_ENFORCING: Problem = Problem {
    id: "not_enforcing",
    severity: Warning,
    summary: "GUARD_MODE is observe, so the caps and the denied networks do not apply.",
    impact: "A forger can make the daemon ping any address.",
    remedy: "Check in the log which heartbeats the guard would refuse, then set GUARD_MODE=enforce and restart the daemon.",
    commands: "",
    more: Some("not-enforcing"),
};
