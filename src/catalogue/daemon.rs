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
    summary: "These tasks of the daemon have not responded for more than 3 s: {tasks}.",
    impact: "A stuck worker sends no pings to its clients. While the listener is stuck, the daemon receives no heartbeats, so all clients expire.",
    remedy: "Restart the daemon: `systemctl restart wakeupd` or `docker restart wakeupd`. If a task gets stuck again, check whether the machine lacks CPU time or memory.",
    commands: "",
    more: Some("stuck"),
};

/// A worker skipped whole seconds.
pub const PINGS_SKIPPED: Problem = Problem {
    id: "pings_skipped",
    severity: Critical,
    summary: "The daemon skipped up to {pings} in the last minute, {percent} % of all pings, because a worker was late by a whole second or more.",
    impact: "Each client missed about {percent} % of its pings.",
    remedy: "Find the threads that use the CPU with `top -H`. Give the daemon more CPU time, or lower MAX_CLIENTS so that the daemon has fewer clients to ping; `wakeupd-bench`, built from source, measures how many clients the machine can serve. If the machine was suspended or paused, ignore a single occurrence.",
    commands: "",
    more: Some("pings-skipped"),
};

/// The receive buffer has its full size and overflows.
pub const RECEIVE_DROPS: Problem = Problem {
    id: "receive_drops",
    severity: Critical,
    summary: "The kernel dropped {datagrams} in the last minute, because the daemon's receive buffer was full.",
    impact: "A client that loses several heartbeats in a row expires, and gets no pings until the daemon receives its next heartbeat.",
    remedy: "The receive buffer already has its full size, so either the daemon lacks CPU time, or the port is flooded. Check the CPU usage with `top -H`. Check the status page for a flood: it shows the refused datagrams and the prefixes with the most clients.",
    commands: "",
    more: Some("receive-drops"),
};

/// The receive buffer is small and overflows.
pub const RECEIVE_DROPS_SMALL_BUFFER: Problem = Problem {
    remedy: "The receive buffer is smaller than the daemon requests, and an open socket keeps its size. Raise the kernel's limit on the host, then restart the daemon.",
    commands: "{raise}\nsudo systemctl restart wakeupd\n# in a container: docker restart wakeupd",
    ..RECEIVE_DROPS
};

/// Sends fail for a reason that needs a look at the log.
pub const PINGS_FAILED: Problem = Problem {
    id: "pings_failed",
    severity: Critical,
    summary: "The kernel did not accept {pings} in the last minute. The most frequent reason is {reason}.",
    impact: "Each failure costs one client one ping.",
    remedy: "Search the log for `cannot send a ping`: these lines name some of the clients and the error. Then run `wakeupd doctor`, which checks the machine for causes.",
    commands: "",
    more: Some("pings-failed"),
};

/// Sends fail for lack of a route or of the source address.
pub const PINGS_FAILED_ROUTE: Problem = Problem {
    remedy: "Check with `ip address` and `ip route` that the machine still has the address that clients send to, and a route to the clients.",
    ..PINGS_FAILED
};

/// Sends fail because a firewall drops them.
pub const PINGS_FAILED_FIREWALL: Problem = Problem {
    remedy: "Check the firewall rules with `nft list ruleset`. If no rule drops the pings, the connection tracking table is probably full: run `wakeupd doctor`, which checks the table.",
    ..PINGS_FAILED
};

/// Sends fail because a queue is full.
pub const PINGS_FAILED_ROOM: Problem = Problem {
    remedy: "The queue of a network device, the send buffer or the neighbour table is full. Check the queues with `tc -s qdisc`, and the send buffer with `wakeupd doctor`. If `dmesg` reports a neighbour table overflow, raise net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3 above the number of clients on the local network.",
    ..PINGS_FAILED
};

/// Most of `MAX_CLIENTS` are registered.
pub const CLIENTS_NEAR_CAP: Problem = Problem {
    id: "clients_near_cap",
    severity: Warning,
    summary: "The daemon has {clients} of at most {max} clients (MAX_CLIENTS).",
    impact: "When the daemon has MAX_CLIENTS clients, it refuses new clients.",
    remedy: "If the clients are real, raise MAX_CLIENTS; `wakeupd-bench`, built from source, measures how many clients the machine can serve. If the clients are forged, find their networks among the largest prefixes on the status page, and add these networks to DENY_FILE.",
    commands: "",
    more: Some("clients-near-cap"),
};

/// `MAX_CLIENTS` are registered, and others are refused.
pub const CLIENTS_AT_CAP: Problem = Problem {
    severity: Critical,
    impact: "In the last minute, the daemon refused {heartbeats} from new clients, because it had reached MAX_CLIENTS. The refused clients get no pings.",
    ..CLIENTS_NEAR_CAP
};

/// `MAX_CLIENTS` are registered, and the guard only observes.
pub const CLIENTS_ABOVE_CAP: Problem = Problem {
    summary: "The daemon has {clients} clients. MAX_CLIENTS is {max}, but with GUARD_MODE=observe the daemon does not enforce this cap.",
    impact: "With GUARD_MODE=enforce, the daemon would have refused {heartbeats} from new clients in the last minute.",
    ..CLIENTS_NEAR_CAP
};

/// An address or a network has reached its cap, so the daemon refuses new clients there.
pub const CLIENTS_TURNED_AWAY: Problem = Problem {
    id: "clients_turned_away",
    severity: Warning,
    summary: "The daemon refused {heartbeats} from new clients in the last minute, because the client's address or network has reached its cap (MAX_CLIENTS_PER_ADDRESS or MAX_CLIENTS_PER_PREFIX).",
    impact: "New clients at an address or in a network that has reached its cap get no pings.",
    remedy: "The log names some of the refused addresses. If these addresses belong to real clients, for example many clients behind one NAT, raise MAX_CLIENTS_PER_ADDRESS or MAX_CLIENTS_PER_PREFIX. If the NAT is a gateway of your own, add its address to LOCAL_NETS instead, because the caps do not apply there. If you do not know the addresses, do nothing: they are probably forged, and the cap limits the pings that a forger can direct at them.",
    commands: "",
    more: Some("clients-turned-away"),
};

/// The table of local addresses is full, so the kernel chooses the source address of some pings.
pub const LOCAL_ADDRESSES_FULL: Problem = Problem {
    id: "local_addresses_full",
    severity: Critical,
    summary: "The daemon's table of local addresses is full and has no entry for the addresses that {clients} sent heartbeats to.",
    impact: "The kernel chooses the source address of the pings to these clients. A client that accepts pings only from the address that it sends heartbeats to gets none.",
    remedy: "Set HOST to the one address that clients send to, or route a smaller network to this machine; `ip route show table local type local` lists the networks that are routed to this machine.",
    commands: "",
    more: Some("local-addresses-full"),
};

/// Pings are late, but not skipped.
pub const PINGS_LATE: Problem = Problem {
    id: "pings_late",
    severity: Warning,
    summary: "In the last minute, {pings}, at least one in a hundred, were more than {limit} ms late.",
    impact: "The machine has no headroom: with more clients the daemon skips pings.",
    remedy: "Find the threads of other programs that use the CPU with `top -H`. On a virtual machine, also check the steal time (`st` in `top`): the hypervisor gives this CPU time to other virtual machines.",
    commands: "",
    more: Some("pings-late"),
};

/// A handed-over socket has options that the daemon does not expect.
pub const CONTROL_TRUNCATED: Problem = Problem {
    id: "control_truncated",
    severity: Warning,
    summary: "The kernel truncated the control messages of {datagrams} in the last minute, because they did not fit into the daemon's buffer.",
    impact: "Pings to the senders of these datagrams can leave from an address that the senders did not send to.",
    remedy: "The socket that wakeupd.socket opens attaches more control messages to each datagram than the daemon expects. Remove options such as PassSecurity= from wakeupd.socket, then restart wakeupd.socket and wakeupd.service.",
    commands: "",
    more: Some("control-truncated"),
};

/// The last snapshot is old, although no write failed.
pub const SNAPSHOT_OLD: Problem = Problem {
    id: "snapshot_old",
    severity: Warning,
    summary: "The snapshot is {age} s old, because the disk is slow or does not answer.",
    impact: "Pings continue, but clients that registered after this snapshot was written are lost at a restart, and get no pings until their next heartbeat.",
    remedy: "Check with `findmnt` how the disk of SNAPSHOT_PATH is mounted, and search the kernel's log for disk errors with `dmesg`.",
    commands: "",
    more: Some("snapshot-old"),
};

/// The last write of the snapshot failed. `remedy` is the end of a sentence.
pub const SNAPSHOT_FAILED: Problem = Problem {
    summary: "The daemon cannot write the snapshot: {reason}.",
    impact: "Pings continue, but clients that registered after the last snapshot was written are lost at a restart, and get no pings until their next heartbeat.",
    remedy: "To let the daemon write the snapshot, {remedy}.",
    ..SNAPSHOT_OLD
};

/// The daemon started without the clients of its snapshot.
pub const SNAPSHOT_UNUSED: Problem = Problem {
    id: "snapshot_unused",
    severity: Warning,
    summary: "When the daemon started, it could not use the snapshot: {reason}.",
    impact: "The daemon did not restore the clients in the snapshot, so they get no pings until their next heartbeat.",
    remedy: "Inspect the file with `wakeupd snapshot show FILE`. The daemon appends .bad to the name of a snapshot that it cannot use; if the rename failed, the file is still at SNAPSHOT_PATH. If the disk did not answer, search the kernel's log for disk errors with `dmesg`. This finding disappears an hour after the daemon started.",
    commands: "",
    more: Some("snapshot-unused"),
};

/// A reload of `DENY_FILE` failed.
pub const DENY_FILE_STALE: Problem = Problem {
    id: "deny_file_stale",
    severity: Warning,
    summary: "The daemon cannot reload DENY_FILE: {reason}.",
    impact: "The daemon keeps denying the networks that it read before. A restart can fail, because the daemon does not start with an invalid DENY_FILE.",
    remedy: "Correct DENY_FILE, or its disk if the disk did not answer, then let the daemon reload the file: `systemctl reload wakeupd` or `docker kill --signal HUP wakeupd`. The log shows the text of an invalid line.",
    commands: "",
    more: Some("deny-file-stale"),
};

/// `DENY_FILE` has not been read since the start.
pub const DENY_FILE_UNREAD: Problem = Problem {
    severity: Critical,
    summary: "The daemon cannot load DENY_FILE: {reason}.",
    impact: "The daemon serves, but denies none of the networks in DENY_FILE.",
    remedy: "Check with `findmnt` how the disk of DENY_FILE is mounted, and search the kernel's log for disk errors with `dmesg`. The daemon retries the read, and applies the file as soon as a read succeeds.",
    ..DENY_FILE_STALE
};

/// `DENY_FILE` has not been read since the start, because of its content.
pub const DENY_FILE_INVALID: Problem = Problem {
    remedy: "Correct DENY_FILE; the log shows the text of the invalid line. The daemon retries the read, and applies the file as soon as the file is valid.",
    ..DENY_FILE_UNREAD
};

/// The receive buffer is smaller than requested.
pub const RECEIVE_BUFFER_SMALL: Problem = Problem {
    id: "receive_buffer_small",
    severity: Warning,
    summary: "The kernel limits the receive buffer to {granted} bytes, but the daemon requests {wanted}.",
    impact: "A burst of heartbeats can overflow the receive buffer. A client that loses several heartbeats in a row expires, and gets no pings until the daemon receives its next heartbeat.",
    remedy: "Raise the kernel's limit on the host, then restart the daemon, because an open socket keeps its size.",
    commands: "{raise}\nsudo systemctl restart wakeupd\n# in a container: docker restart wakeupd",
    more: Some("receive-buffer-small"),
};

/// The send buffer is smaller than requested.
pub const SEND_BUFFER_SMALL: Problem = Problem {
    id: "send_buffer_small",
    summary: "The kernel limits the send buffer to {granted} bytes, but the daemon requests {wanted}.",
    impact: "Pings that are due while the send buffer is full are late or lost.",
    more: Some("send-buffer-small"),
    ..RECEIVE_BUFFER_SMALL
};

/// The guard only observes.
pub const NOT_ENFORCING: Problem = Problem {
    id: "not_enforcing",
    severity: Warning,
    summary: "GUARD_MODE is observe, so the daemon enforces neither the caps on clients nor DENY_FILE and REFUSE_NETS.",
    impact: "A sender of forged heartbeats can make the daemon ping almost any host, and can register clients without limit, which uses up the machine's memory.",
    remedy: "Search the log for `would refuse` to see which heartbeats the guard would refuse. Then set GUARD_MODE=enforce and restart the daemon.",
    commands: "",
    more: Some("not-enforcing"),
};
