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
    impact: "The settings that they should change have their defaults.",
    remedy: "Correct the names or remove the variables.",
    commands: "",
    more: Some("change-a-setting"),
};

/// Another process holds the port.
pub const PORT_HELD: Problem = Problem {
    id: "port_in_use",
    severity: Critical,
    summary: "{port} is in use by {holders}.",
    impact: "The daemon needs the port for itself, so it does not start.",
    remedy: "Set another {variable}, or stop the service that holds the port. If the process is not a service, end it.",
    commands: "sudo kill {pids}",
    more: Some("down"),
};

/// Docker forwards the port to a container.
pub const PORT_HELD_BY_DOCKER: Problem = Problem {
    remedy: "If wakeupd runs in the container behind the port, there is no problem: run the doctor there with `docker exec CONTAINER /wakeupd doctor`. Otherwise stop that container or set another {variable}.",
    commands: "",
    ..PORT_HELD
};

/// A socket unit holds the port.
pub const PORT_HELD_BY_SYSTEMD: Problem = Problem {
    remedy: "If the list shows the port for wakeupd.service, there is no problem: the service starts at the first heartbeat. Otherwise stop the socket unit or set another {variable}.",
    commands: "systemctl list-sockets",
    ..PORT_HELD
};

/// The kernel refuses the port.
pub const PORT_UNAVAILABLE: Problem = Problem {
    id: "port_unavailable",
    severity: Critical,
    summary: "{port} cannot be bound: {error}.",
    impact: "The daemon does not start.",
    remedy: "Set another {variable}.",
    commands: "",
    more: Some("down"),
};

/// The port needs a privilege.
pub const PORT_PRIVILEGED: Problem = Problem {
    remedy: "Set {variable} to a port from 1024 up, or grant the privilege: add `AmbientCapabilities=CAP_NET_BIND_SERVICE` and `CapabilityBoundingSet=CAP_NET_BIND_SERVICE` below `[Service]` in the editor.",
    commands: "sudo systemctl edit wakeupd",
    ..PORT_UNAVAILABLE
};

/// The address of `HTTP_ADDR` cannot be bound.
pub const HTTP_ADDRESS_UNAVAILABLE: Problem = Problem {
    id: "http_address_unavailable",
    severity: Critical,
    summary: "{ip} cannot be bound: {error}.",
    impact: "The daemon does not start.",
    remedy: "Set HTTP_ADDR to 127.0.0.1:7561, to another address that `ip address` shows, or to none.",
    commands: "",
    more: Some("from-another-machine"),
};

/// The daemon's user cannot write the snapshot. `remedy` is the end of a sentence.
pub const SNAPSHOT_NOT_WRITABLE: Problem = Problem {
    id: "snapshot_not_writable",
    severity: Warning,
    summary: "The folder {folder} is not writable by {user}: {error}.",
    impact: "The daemon starts but cannot write the snapshot, so a restart loses the clients.",
    remedy: "To fix this, {remedy}.",
    commands: "{commands}",
    more: Some("snapshot-old"),
};

/// `SNAPSHOT_PATH` itself is mounted.
pub const SNAPSHOT_MOUNT_POINT: Problem = Problem {
    id: "snapshot_mount_point",
    summary: "{path} is a mount point, so the daemon cannot replace it.",
    remedy: "Mount the folder of SNAPSHOT_PATH instead of the file.",
    commands: "",
    ..SNAPSHOT_NOT_WRITABLE
};

/// The daemon's user cannot read `DENY_FILE`.
pub const DENY_FILE_UNREADABLE: Problem = Problem {
    id: "deny_file_unreadable",
    severity: Critical,
    summary: "The file {path} is not readable by {user}: {error}.",
    impact: "The daemon does not start, or keeps denying the networks that it read before.",
    remedy: "Let every user read the file and enter the folders above it.",
    commands: "sudo chmod a+r {word}\nsudo namei -l {word}",
    more: Some("deny-file-stale"),
};

/// The running daemon has findings, of which at least one is critical.
pub const DAEMON_REPORTS: Problem = Problem {
    id: "daemon_reports",
    severity: Critical,
    summary: "The running daemon reports: {findings}",
    impact: "Clients miss pings or are turned away.",
    remedy: "{advice}",
    commands: "",
    more: Some("what-is-wrong"),
};

/// The running daemon has findings, but no critical one.
pub const DAEMON_WARNS: Problem = Problem {
    severity: Warning,
    impact: "Clients may soon miss pings or be turned away.",
    ..DAEMON_REPORTS
};

/// A gateway translates the clients' addresses.
pub const CLIENTS_BEHIND_GATEWAY: Problem = Problem {
    id: "clients_behind_gateway",
    severity: Warning,
    summary: "Nearly all of {clients} clients have the private address {ip}, so a gateway such as Docker's hides their addresses.",
    impact: "The caps per address do not apply to private addresses, and stale entries of the gateway's translation may mix up clients or lose their pings.",
    remedy: "Run the container with `--network host` (Compose: `network_mode: host`). Or publish the port with the same number on both sides, and delete the stale entries on the host after each restart.",
    commands: "sudo conntrack -D -p udp --dport {port}",
    more: None,
};

/// `HOST` is a name without an address.
pub const HOST_UNRESOLVED: Problem = Problem {
    id: "host_unresolved",
    severity: Critical,
    summary: "HOST={host} does not resolve to an address: {error}.",
    impact: "The daemon does not start.",
    remedy: "Check the spelling and the name server (`getent ahosts`), or set HOST to an IP address.",
    commands: "",
    more: None,
};

/// The address of `HOST` cannot be bound.
pub const HOST_UNAVAILABLE: Problem = Problem {
    id: "host_unavailable",
    severity: Critical,
    summary: "{ip} cannot be bound: {error}.",
    impact: "The daemon does not start.",
    remedy: "Set HOST to an address that `ip address` shows, to 0.0.0.0 for all IPv4 addresses or to :: for all addresses.",
    commands: "",
    more: None,
};

/// `HOST` is a name with several addresses.
pub const HOST_AMBIGUOUS: Problem = Problem {
    id: "host_ambiguous",
    severity: Warning,
    summary: "HOST={host} resolves to {ip} and {others}, but the daemon binds only {ip}.",
    impact: "Clients that use another address of that name get no pings.",
    remedy: "Set HOST to the one address that clients use, to 0.0.0.0 for all IPv4 addresses or to :: for all addresses.",
    commands: "",
    more: None,
};

/// `HOST` is a name of this machine that resolves to a loopback address.
pub const HOST_LOOPBACK: Problem = Problem {
    id: "host_loopback",
    severity: Critical,
    summary: "HOST={host} resolves to the loopback address {ip}.",
    impact: "Only clients on this machine get pings.",
    remedy: "Set HOST to an address that `ip address` shows, to 0.0.0.0 for all IPv4 addresses or to :: for all addresses. Often a line in /etc/hosts maps the machine's own name to a loopback address.",
    commands: "",
    more: None,
};

/// Strict reverse-path filtering on a machine with several interfaces.
pub const REVERSE_PATH_STRICT: Problem = Problem {
    id: "reverse_path_strict",
    severity: Warning,
    summary: "Reverse-path filtering is strict (rp_filter is 1) on {strict}, and heartbeats can arrive on several interfaces: {interfaces}.",
    impact: "If the route back to a client leaves by another interface, the kernel drops the client's heartbeats silently.",
    remedy: "Set the filter to loose (2); the larger value of `all` and the interface applies.",
    commands: "{set}",
    more: None,
};

/// The connection tracking table cannot hold `MAX_CLIENTS`.
pub const CONNECTION_TABLE_SMALL: Problem = Problem {
    id: "connection_table_small",
    severity: Warning,
    summary: "The connection tracking table holds at most {limit} connections, but MAX_CLIENTS is {clients}.",
    impact: "Each client takes a connection. When the table is full, the kernel drops the heartbeats of new clients and logs \"nf_conntrack: table full\".",
    remedy: "Raise the limit on the host; a connection takes about 300 bytes of kernel memory. Or, if no NAT serves the port, exempt it from tracking; a firewall that accepts only established connections must then accept UDP port {port} explicitly.",
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

/// The limit was raised after the daemon's start.
pub const RECEIVE_BUFFER_OUTDATED: Problem = Problem {
    summary: "The receive buffer of the running daemon has {granted} of {wanted} bytes, although {parameter} is {limit} by now.",
    remedy: "Restart the daemon, because a socket keeps the size that it got when it was opened.",
    commands: "sudo systemctl restart wakeupd\n# in a container: docker restart wakeupd",
    ..RECEIVE_BUFFER_SMALL
};

/// The limit was raised after the daemon's start.
pub const SEND_BUFFER_OUTDATED: Problem = Problem {
    summary: "The send buffer of the running daemon has {granted} of {wanted} bytes, although {parameter} is {limit} by now.",
    remedy: RECEIVE_BUFFER_OUTDATED.remedy,
    commands: RECEIVE_BUFFER_OUTDATED.commands,
    ..SEND_BUFFER_SMALL
};

/// The limit on open files is too small for the sockets.
pub const OPEN_FILES_LIMIT_SMALL: Problem = Problem {
    id: "open_files_limit_small",
    severity: Critical,
    summary: "The limit on open files of {process} is {limit}, but it needs up to {needed}.",
    impact: "Each worker and each HTTP connection needs a socket, so the daemon does not start, or does not answer HTTP requests.",
    remedy: "Raise the limit. systemd: add `LimitNOFILE={enough}` below `[Service]` with `sudo systemctl edit wakeupd`. Docker: `docker run --ulimit nofile={enough}`. In a shell, run this before you start the daemon.",
    commands: "ulimit -n {enough}",
    more: None,
};

/// A memory limit has room for fewer clients than `MAX_CLIENTS`.
pub const MEMORY_LIMIT_SMALL: Problem = Problem {
    id: "memory_limit_small",
    severity: Critical,
    summary: "MAX_CLIENTS={clients} needs up to {needed} of memory, but {limit} leaves {room}.",
    impact: "The daemon does not start, because the kernel would OOM-kill it after a flood.",
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
    remedy: "Switch to {faster}; `sudo dmesg | grep -i clocksource` shows why the kernel does not use it.",
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
    impact: "Workers sleep until each slot is due, so every ping may be late by that time.",
    remedy: "Boot the kernel without `highres=off`, and build it with CONFIG_HIGH_RES_TIMERS. Check the clock source too.",
    commands: "",
    more: Some("pings-late"),
};

/// The timer slack delays the workers.
pub const TIMER_SLACK_LARGE: Problem = Problem {
    id: "timer_slack_large",
    summary: "The timer slack lets a thread wake up to {slack} late.",
    remedy: "systemd: add `TimerSlackNSec=50us` below `[Service]` with `sudo systemctl edit wakeupd`. Otherwise remove the setting from the program that starts the daemon.",
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
