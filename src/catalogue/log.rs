//! Problems that appear in the log only: they prevent the start, or pass by themselves.

use super::Severity::{Critical, Warning};
use super::{Problem, daemon, machine};

/// All problems that appear in the log only.
pub const ALL: &[Problem] =
    &[PORT_IN_USE, SLOTS_SKIPPED, ICMP_ERRORS_IGNORED, SOCKET_OPTION_REFUSED, INTERFACE_LOST];

/// The port is in use at the start. The doctor reports the same problem with the processes.
pub const PORT_IN_USE: Problem = Problem {
    remedy: "Find the process with `sudo ss -lunp 'sport = :{number}'` and stop it (two daemons cannot share a port), or set another {variable}.",
    commands: "",
    ..machine::PORT_HELD
};

/// A worker skips whole seconds now; the status reports it for the next minute.
pub const SLOTS_SKIPPED: Problem = Problem {
    summary: "A worker was late by a whole second or more, so the daemon skipped slots.",
    impact: "The clients of these slots miss a ping for each skipped second.",
    ..daemon::PINGS_SKIPPED
};

/// The rate limit on ICMP errors applies.
pub const ICMP_ERRORS_IGNORED: Problem = Problem {
    id: "icmp_errors_ignored",
    severity: Warning,
    summary: "The daemon received more than {limit} ICMP errors in a second, and ignores them for {pause} s.",
    impact: "During this time, clients with a closed port are not muted, and get pings until they expire.",
    remedy: "If many of your own clients close their ports at once, raise MAX_ICMP_ERRORS_PER_SECOND.",
    commands: "",
    more: None,
};

/// The kernel or a sandbox refuses a socket option.
pub const SOCKET_OPTION_REFUSED: Problem = Problem {
    id: "socket_option_refused",
    severity: Warning,
    summary: "The kernel refuses the socket option {option}, so the daemon serves without it.",
    impact: "The cost: {cost}.",
    remedy: "Allow the option in the seccomp filter or the sandbox, or use a newer kernel.",
    commands: "",
    more: Some("socket-options"),
};

/// A network interface to which the sockets were bound is gone.
pub const INTERFACE_LOST: Problem = Problem {
    id: "interface_lost",
    severity: Critical,
    summary: "The daemon cannot bind the sockets to their network interface again: {error}.",
    impact: "No client is served.",
    remedy: "Create the interface again, and restart the daemon if it lacks CAP_NET_RAW.",
    commands: "",
    more: None,
};
