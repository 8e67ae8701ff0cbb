//! Problems that appear in the log only: they prevent the start, or pass by themselves.

use super::Severity::{Critical, Warning};
use super::{Problem, daemon, machine};

/// All problems that appear in the log only.
pub const ALL: &[Problem] =
    &[PORT_IN_USE, SLOTS_SKIPPED, ICMP_ERRORS_IGNORED, SOCKET_OPTION_REFUSED, INTERFACE_LOST];

/// The port is in use when the daemon starts. The doctor reports the same problem and names the processes.
pub const PORT_IN_USE: Problem = Problem {
    remedy: "Find the process with `sudo ss -lunp 'sport = :{number}'` and stop this process, because two daemons cannot share a port. Or choose another port with {variable}.",
    commands: "",
    ..machine::PORT_HELD
};

/// A worker has just skipped whole seconds. The status reports [`daemon::PINGS_SKIPPED`] for a minute.
pub const SLOTS_SKIPPED: Problem = Problem {
    severity: Warning,
    summary: "A worker was late by a whole second or more, so the daemon skipped slots and sent no pings to the clients of these slots.",
    impact: "The clients of a skipped slot miss one ping for each skipped second.",
    ..daemon::PINGS_SKIPPED
};

/// The daemon has reached its rate limit on ICMP errors.
pub const ICMP_ERRORS_IGNORED: Problem = Problem {
    id: "icmp_errors_ignored",
    severity: Warning,
    summary: "The daemon received more than {limit} ICMP errors in a second (MAX_ICMP_ERRORS_PER_SECOND), so it ignores ICMP errors for {pause} s.",
    impact: "During this time, the daemon does not mute clients with a closed port, and pings them until they expire.",
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
    remedy: "If a seccomp filter or a sandbox refuses {option}, allow the option there. Otherwise use a newer kernel that supports the option.",
    commands: "",
    more: Some("socket-options"),
};

/// A network interface to which the sockets were bound is gone.
pub const INTERFACE_LOST: Problem = Problem {
    id: "interface_lost",
    severity: Critical,
    summary: "The daemon cannot bind the sockets to their network interface again: {error}.",
    impact: "Until the sockets are bound again, the daemon serves no clients.",
    remedy: "Create the network interface again under the same name: the daemon tries every second to bind its sockets. If the daemon lacks CAP_NET_RAW, also restart wakeupd.socket and wakeupd.service, because without this capability the kernel does not let the daemon bind its open sockets to the new interface.",
    commands: "",
    more: None,
};
