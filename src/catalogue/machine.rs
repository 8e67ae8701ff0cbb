//! Problems of the machine and the set-up, which `wakeupd doctor` detects. Some of them also prevent the start.

use super::Problem;
use super::Severity::{Critical, Warning};
pub use super::daemon::{RECEIVE_BUFFER_SMALL, SEND_BUFFER_SMALL};

/// All problems that the doctor can report.
pub const ALL: &[Problem] = &[
    SETTING_MISSPELT,
    PORT_HELD,
    PORT_HELD_BY_DOCKER,
    PORT_HELD_BY_SYSTEMD,
    PORT_UNAVAILABLE,
    PORT_PRIVILEGED,
    HTTP_ADDRESS_UNAVAILABLE,
    SNAPSHOT_NOT_WRITABLE,
    SNAPSHOT_MOUNT_POINT,
    DENY_FILE_UNREADABLE,
    DAEMON_REPORTS,
    DAEMON_WARNS,
    CLIENTS_BEHIND_GATEWAY,
    HOST_UNRESOLVED,
    HOST_UNAVAILABLE,
    HOST_AMBIGUOUS,
    HOST_LOOPBACK,
    REVERSE_PATH_STRICT,
    CONNECTION_TABLE_SMALL,
    CONNECTION_TABLE_FULL,
    RECEIVE_BUFFER_SMALL,
    RECEIVE_BUFFER_OUTDATED,
    SEND_BUFFER_SMALL,
    SEND_BUFFER_OUTDATED,
    OPEN_FILES_LIMIT_SMALL,
    MEMORY_LIMIT_SMALL,
    MEMORY_LIMIT_TINY,
    MEMORY_SHORT,
    CLOCK_SOURCE_SLOW,
    CLOCK_SOURCE_MISSING,
    TIMERS_COARSE,
    TIMER_SLACK_LARGE,
    WALL_CLOCK_WRONG,
];

/// An environment variable resembles a setting.
pub const SETTING_MISSPELT: Problem = Problem {
    id: "setting_misspelt",
    severity: Warning,
    summary: "The environment has unknown variables that look like settings: {variables}.",
    impact: "These variables have no effect, so they do not change the settings that they were meant to change.",
    remedy: "Correct the names of these variables, or remove the variables.",
    commands: "",
    more: Some("change-a-setting"),
};

/// Another process holds the port.
pub const PORT_HELD: Problem = Problem {
    id: "port_in_use",
    severity: Critical,
    summary: "{port} is in use by {holders}.",
    impact: "The daemon cannot share the port with another process, so it does not start.",
    remedy: "Choose another port with {variable}, or stop the service that holds the port. If the process does not belong to a service, end the process.",
    commands: "sudo kill {pids}",
    more: Some("down"),
};

/// Docker forwards the port to a container.
pub const PORT_HELD_BY_DOCKER: Problem = Problem {
    remedy: "If wakeupd runs in the container that Docker forwards the port to, ignore this finding, and run the doctor in the container with `docker exec CONTAINER /wakeupd doctor`. Otherwise stop the container, or choose another port with {variable}.",
    commands: "",
    ..PORT_HELD
};

/// A socket unit holds the port.
pub const PORT_HELD_BY_SYSTEMD: Problem = Problem {
    remedy: "systemd holds the port for a socket unit. If the unit activates wakeupd.service, ignore this finding: systemd starts the daemon at the first heartbeat. Otherwise stop the socket unit, or choose another port with {variable}. List the socket units.",
    commands: "systemctl list-sockets",
    ..PORT_HELD
};

/// The kernel refuses the port.
pub const PORT_UNAVAILABLE: Problem = Problem {
    id: "port_unavailable",
    severity: Critical,
    summary: "{port} cannot be bound: {error}.",
    impact: "The daemon does not start, because it needs this port.",
    remedy: "Choose another port with {variable}.",
    commands: "",
    more: Some("down"),
};

/// Only a privileged process can bind the port.
pub const PORT_PRIVILEGED: Problem = Problem {
    remedy: "Ports below 1024 need a privilege. Choose a port from 1024 up with {variable}, or grant the daemon the privilege: add `AmbientCapabilities=CAP_NET_BIND_SERVICE` and `CapabilityBoundingSet=CAP_NET_BIND_SERVICE` below `[Service]` in the editor that this command opens.",
    commands: "sudo systemctl edit wakeupd",
    ..PORT_UNAVAILABLE
};

/// The address of `HTTP_ADDR` cannot be bound.
pub const HTTP_ADDRESS_UNAVAILABLE: Problem = Problem {
    id: "http_address_unavailable",
    severity: Critical,
    summary: "The address {ip} of HTTP_ADDR cannot be bound: {error}.",
    impact: "The daemon does not start, because it cannot open its HTTP endpoint.",
    remedy: "Set HTTP_ADDR to 127.0.0.1:7561, to another address that `ip address` shows, or to none, which turns the HTTP endpoint off.",
    commands: "",
    more: Some("from-another-machine"),
};

/// The daemon's user cannot write the snapshot. `remedy` is the end of a sentence.
pub const SNAPSHOT_NOT_WRITABLE: Problem = Problem {
    id: "snapshot_not_writable",
    severity: Warning,
    summary: "The folder {folder} of the snapshot is not writable by {user}: {error}.",
    impact: "The daemon starts, but cannot write the snapshot. After a restart, clients get no pings until their next heartbeat.",
    remedy: "To let the daemon write the snapshot, {remedy}.",
    commands: "{commands}",
    more: Some("snapshot-old"),
};

/// `SNAPSHOT_PATH` itself is mounted.
pub const SNAPSHOT_MOUNT_POINT: Problem = Problem {
    id: "snapshot_mount_point",
    summary: "SNAPSHOT_PATH ({path}) is a mount point, so the daemon cannot replace the file with a new snapshot.",
    remedy: "Mount the folder of SNAPSHOT_PATH instead of the file.",
    commands: "",
    ..SNAPSHOT_NOT_WRITABLE
};

/// The daemon's user cannot read `DENY_FILE`.
pub const DENY_FILE_UNREADABLE: Problem = Problem {
    id: "deny_file_unreadable",
    severity: Critical,
    summary: "DENY_FILE ({path}) is not readable by {user}: {error}.",
    impact: "The daemon does not start. A running daemon cannot reload the file, and keeps denying the networks that it read before.",
    remedy: "Let every user read the file, and check with `namei` that every user can also enter (x) each folder above the file.",
    commands: "sudo chmod a+r {word}\nsudo namei -l {word}",
    more: Some("deny-file-stale"),
};

/// The running daemon reports findings, and at least one of them is critical.
pub const DAEMON_REPORTS: Problem = Problem {
    id: "daemon_reports",
    severity: Critical,
    summary: "The running daemon reports: {findings}",
    impact: "Clients miss pings or are turned away.",
    remedy: "{advice}",
    commands: "",
    more: Some("what-is-wrong"),
};

/// The running daemon reports findings, but none of them is critical.
pub const DAEMON_WARNS: Problem = Problem {
    severity: Warning,
    impact: "Clients could soon miss pings or be turned away.",
    ..DAEMON_REPORTS
};

/// A gateway translates the clients' addresses.
pub const CLIENTS_BEHIND_GATEWAY: Problem = Problem {
    id: "clients_behind_gateway",
    severity: Warning,
    summary: "Nearly all of the {clients} clients have the private address {ip}, so a gateway such as Docker's hides their real addresses.",
    impact: "By default, no cap per address or prefix limits these clients, because LOCAL_NETS contains the private networks. Also, outdated entries in the gateway's translation table can mix up clients or lose their pings.",
    remedy: "Run the container with `--network host` (Compose: `network_mode: host`), so that the daemon sees the real addresses. Or publish the port with the same number on both sides, and after each restart of the container, delete the outdated translation entries on the host.",
    commands: "sudo conntrack -D -p udp --dport {port}",
    more: None,
};

/// `HOST` is a name without an address.
pub const HOST_UNRESOLVED: Problem = Problem {
    id: "host_unresolved",
    severity: Critical,
    summary: "HOST={host} does not resolve to an address: {error}.",
    impact: "The daemon does not start, because it has no address to bind.",
    remedy: "Check the spelling of the name, and check the name server with `getent ahosts NAME`, or set HOST to an IP address.",
    commands: "",
    more: None,
};

/// The address of `HOST` cannot be bound.
pub const HOST_UNAVAILABLE: Problem = Problem {
    id: "host_unavailable",
    severity: Critical,
    summary: "The address {ip} of HOST cannot be bound: {error}.",
    impact: "The daemon does not start, because it cannot receive heartbeats on this address.",
    remedy: "Set HOST to an address that `ip address` shows, to 0.0.0.0 for all IPv4 addresses or to :: for all addresses.",
    commands: "",
    more: None,
};

/// `HOST` is a name with several addresses.
pub const HOST_AMBIGUOUS: Problem = Problem {
    id: "host_ambiguous",
    severity: Warning,
    summary: "HOST={host} resolves to {ip} and {others}, but the daemon binds only {ip}.",
    impact: "Clients that send to another address of this name get no pings.",
    remedy: "Set HOST to the one address that clients use, to 0.0.0.0 for all IPv4 addresses or to :: for all addresses.",
    commands: "",
    more: None,
};

/// `HOST` is a name of this machine that resolves to a loopback address.
pub const HOST_LOOPBACK: Problem = Problem {
    id: "host_loopback",
    severity: Warning,
    summary: "HOST={host} resolves to the loopback address {ip}.",
    impact: "The daemon receives heartbeats only from this machine, so clients on other machines get no pings.",
    remedy: "Set HOST to an address that `ip address` shows, to 0.0.0.0 for all IPv4 addresses or to :: for all addresses. Often a line in /etc/hosts maps the machine's own name to a loopback address.",
    commands: "",
    more: None,
};

/// Strict reverse-path filtering on a machine with several interfaces.
pub const REVERSE_PATH_STRICT: Problem = Problem {
    id: "reverse_path_strict",
    severity: Warning,
    summary: "Reverse-path filtering is strict (rp_filter is 1) on {strict}, and heartbeats can arrive on several interfaces: {interfaces}.",
    impact: "If the route to a client does not use the interface on which its heartbeats arrive, the kernel drops these heartbeats silently.",
    remedy: "Set the filter to loose (2) for all interfaces. For each interface, the kernel applies the larger of the values of `all` and of the interface.",
    commands: "{set}",
    more: None,
};

/// The connection tracking table cannot hold `MAX_CLIENTS`.
pub const CONNECTION_TABLE_SMALL: Problem = Problem {
    id: "connection_table_small",
    severity: Warning,
    summary: "The connection tracking table holds at most {limit} connections, but MAX_CLIENTS is {clients}.",
    impact: "Each client takes an entry of the table. When the table is full, the kernel drops the heartbeats of new clients and logs \"nf_conntrack: table full\".",
    remedy: "Raise the limit on the host; a connection takes about 300 bytes of kernel memory. Or, if no NAT forwards the port, exempt the port from tracking; a firewall that accepts only established connections must then accept UDP port {port} explicitly.",
    commands: "{raise}\nsudo sh -c 'echo nf_conntrack >/etc/modules-load.d/wakeupd.conf'\n# or exempt the port, until the next reboot:\n{exempt}",
    more: None,
};

/// The connection tracking table is nearly full.
pub const CONNECTION_TABLE_FULL: Problem = Problem {
    id: "connection_table_full",
    severity: Critical,
    summary: "The connection tracking table is nearly full: it holds {count} of at most {limit} connections.",
    ..CONNECTION_TABLE_SMALL
};

/// The limit on receive buffers was raised after the daemon started.
pub const RECEIVE_BUFFER_OUTDATED: Problem = Problem {
    summary: "The receive buffer of the running daemon has only {granted} of the requested {wanted} bytes, although {parameter} now allows {limit}.",
    remedy: "Restart the daemon, because a socket keeps the buffer size that it got when it was opened.",
    commands: "sudo systemctl restart wakeupd\n# in a container: docker restart wakeupd",
    ..RECEIVE_BUFFER_SMALL
};

/// The limit on send buffers was raised after the daemon started.
pub const SEND_BUFFER_OUTDATED: Problem = Problem {
    summary: "The send buffer of the running daemon has only {granted} of the requested {wanted} bytes, although {parameter} now allows {limit}.",
    remedy: RECEIVE_BUFFER_OUTDATED.remedy,
    commands: RECEIVE_BUFFER_OUTDATED.commands,
    ..SEND_BUFFER_SMALL
};

/// The limit on open files is too small for the sockets.
pub const OPEN_FILES_LIMIT_SMALL: Problem = Problem {
    id: "open_files_limit_small",
    severity: Critical,
    summary: "The limit on open files of {process} is {limit}, but the daemon needs up to {needed} open files.",
    impact: "Each worker and each HTTP connection needs a socket. At the limit, the daemon does not start, or does not answer HTTP requests.",
    remedy: "Raise the limit. systemd: add `LimitNOFILE={enough}` below `[Service]` with `sudo systemctl edit wakeupd`. Docker: `docker run --ulimit nofile={enough}`. In a shell, run this command before you start the daemon.",
    commands: "ulimit -n {enough}",
    more: None,
};

/// A memory limit has room for fewer clients than `MAX_CLIENTS`.
pub const MEMORY_LIMIT_SMALL: Problem = Problem {
    id: "memory_limit_small",
    severity: Critical,
    summary: "MAX_CLIENTS={clients} needs up to {needed} of memory, but {limit} leaves {room}.",
    impact: "The daemon does not start, because a flood of forged heartbeats could register that many clients, and the daemon would then run out of memory.",
    remedy: "Raise the limit to {enough} ({settings}), or set MAX_CLIENTS={fit} or less.",
    commands: "",
    more: Some("restarts"),
};

/// A memory limit has room for no client.
pub const MEMORY_LIMIT_TINY: Problem =
    Problem { remedy: "Raise the limit to {enough} ({settings}).", ..MEMORY_LIMIT_SMALL };

/// The machine has too little available memory for `MAX_CLIENTS`.
pub const MEMORY_SHORT: Problem = Problem {
    id: "memory_short",
    severity: Warning,
    summary: "MAX_CLIENTS={clients} needs up to {needed} of memory, but the machine has {room} available.",
    impact: "A flood of forged heartbeats can register that many clients. Then the kernel OOM-kills the daemon and all pings stop.",
    remedy: "Lower MAX_CLIENTS, or give the machine more memory.",
    commands: "",
    more: Some("restarts"),
};

/// The kernel uses a slow clock source although it has a fast one.
pub const CLOCK_SOURCE_SLOW: Problem = Problem {
    id: "clock_source_slow",
    severity: Warning,
    summary: "The clock source {source} is slow or coarse.",
    impact: "The daemon reads the clock for each batch of heartbeats and each slot, so pings are late and the machine can serve fewer clients.",
    remedy: "`sudo dmesg | grep -i clocksource` shows why the kernel does not use the faster source {faster}. Switch to {faster}.",
    commands: "sudo sh -c 'echo {faster} >/sys/devices/system/clocksource/clocksource0/current_clocksource'",
    more: Some("pings-late"),
};

/// The kernel has no fast clock source.
pub const CLOCK_SOURCE_MISSING: Problem = Problem {
    remedy: "Let the hypervisor offer its clock (kvm-clock, Hyper-V, Xen) or a stable TSC; `sudo dmesg | grep -i -e clocksource -e tsc` shows why the kernel has no faster source.",
    commands: "",
    ..CLOCK_SOURCE_SLOW
};

/// High-resolution timers are off.
pub const TIMERS_COARSE: Problem = Problem {
    id: "timers_coarse",
    severity: Warning,
    summary: "Timers have a resolution of {resolution}, because high-resolution timers are off.",
    impact: "The daemon's threads sleep until the next pings are due, so every ping can be up to {resolution} late.",
    remedy: "Boot the kernel without `highres=off`, and use a kernel that is built with CONFIG_HIGH_RES_TIMERS. Check the clock source too, because the kernel turns on high-resolution timers only with a suitable clock source.",
    commands: "",
    more: Some("pings-late"),
};

/// The timer slack delays the workers.
pub const TIMER_SLACK_LARGE: Problem = Problem {
    id: "timer_slack_large",
    summary: "The timer slack lets a thread wake up to {slack} late.",
    impact: "The daemon's threads sleep until the next pings are due, so every ping can be up to {slack} late.",
    remedy: "systemd: add `TimerSlackNSec=50us` below `[Service]` with `sudo systemctl edit wakeupd`. Without systemd, remove the timer slack setting from the program that starts the daemon, because the daemon inherits the setting.",
    ..TIMERS_COARSE
};

/// The wall clock shows a time in the past.
pub const WALL_CLOCK_WRONG: Problem = Problem {
    id: "wall_clock_wrong",
    severity: Warning,
    summary: "The wall clock is wrong: it shows {time}.",
    impact: "The times in the log are wrong. Pings do not depend on this clock.",
    remedy: "Turn on time synchronization.",
    commands: "sudo timedatectl set-ntp true",
    more: None,
};
