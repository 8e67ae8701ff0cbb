//! Renders one manual page: `clap_mangen` renders the program and its subcommands, and sections from the settings and
//! a few texts follow.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::config::{ENV_FILE, SETTINGS, Setting};

/// Each signal and its effect.
const SIGNALS: [(&str, &str); 3] = [
    ("SIGTERM, SIGINT", "Stop gracefully. A second signal ends the program at once."),
    (
        "SIGHUP",
        "Reload DENY_FILE. Clients in networks that the file now denies get no more pings. If the controlling terminal has closed, stop instead. Ignored under nohup.",
    ),
    (
        "SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPIPE, SIGPWR, real-time signals",
        "Ignored. Log rotation needs no signal.",
    ),
];

const FILES: [(&str, &str); 5] = [
    (
        ".env",
        "Additional variables, read from the working directory unless a service manager started the program. ENV_FILE names another file.",
    ),
    (
        "/etc/default/wakeupd",
        "The variables of the systemd service, one NAME=value per line. Restart the service after a change.",
    ),
    (
        "/var/lib/wakeupd/snapshot",
        "The snapshot, which preserves the clients across a restart of the service. If the daemon cannot use a snapshot, it renames the file to snapshot.bad.",
    ),
    (
        "/usr/lib/systemd/system/wakeupd.service",
        "The systemd service that the Debian package installs.",
    ),
    (
        "/usr/lib/systemd/system/wakeupd.socket",
        "The socket of the service. If it is enabled, heartbeats wait while the service restarts, and HOST and PORT have no effect: set the address with `systemctl edit wakeupd.socket`.",
    ),
];

const EXIT_CODES: [(&str, &str); 6] = [
    (
        "0",
        "Success: the daemon stopped on request, the probe received a ping, the doctor has no finding, or the command completed.",
    ),
    (
        "1",
        "Failure: standard error explains it, or the probe received no ping, the daemon is unhealthy, or the status or the doctor reports a problem.",
    ),
    ("2", "Invalid command line."),
    ("69", "The daemon did not answer `wakeupd status`."),
    (
        "78",
        "Invalid configuration: a variable is invalid (standard error lists each one), the env file cannot be used, a memory limit is too small for MAX_CLIENTS, or the service manager handed over an unsuitable socket.",
    ),
    ("130, 143", "A second SIGINT or SIGTERM ended the program."),
];

const EXAMPLES: [(&str, &str); 5] = [
    ("PORT=7000 LOG_LEVEL=DEBUG wakeupd", "Serve on another port, and log every client."),
    ("wakeupd probe localhost --count 3", "Check that pings arrive, and how punctual they are."),
    ("wakeupd status --watch", "Show the state of the daemon every second."),
    ("systemctl reload wakeupd", "Reload DENY_FILE, for example after a complaint about pings."),
    ("journalctl --unit wakeupd --grep summary", "Show the summary of each minute."),
];

const SEE_ALSO: &str = "`systemctl`(1), `journalctl`(1), `systemd.exec`(5), `ss`(8)";

/// A function of `clap_mangen` that renders a section.
type Render = fn(&Man, &mut dyn Write) -> io::Result<()>;

/// Renders the page for `command`.
pub(super) fn of(command: Command) -> String {
    let mut command = command
        .disable_help_subcommand(true)
        .subcommand_value_name("SUBCOMMAND")
        .mut_subcommands(|subcommand| subcommand.disable_help_flag(true));
    command.build();
    // There is no date, to keep builds reproducible.
    let man = Man::new(command.clone())
        .title(command.get_name().to_uppercase())
        .section("8")
        .date(r#""""#)
        .manual("System Administration");

    let mut page = rendered(&man, Man::render_title);
    // Paths and names must not be hyphenated.
    page.push_str(".nh\n.ad l\n");
    let sections: [Render; 4] = [
        Man::render_name_section,
        Man::render_synopsis_section,
        Man::render_description_section,
        Man::render_options_section,
    ];
    for render in sections {
        page.push_str(without_preamble(&rendered(&man, render)));
    }
    page.push_str(".SH SUBCOMMANDS\n");
    for subcommand in subcommands(&command) {
        page.push_str(&subsection(subcommand));
    }
    page.push_str(without_preamble(&own_sections().render()));
    finished(&page)
}

/// Lists all subcommands, with nested ones in place of their parents.
fn subcommands(command: &Command) -> Vec<&Command> {
    let all = command.get_subcommands().flat_map(|subcommand| {
        if subcommand.has_subcommands() { subcommands(subcommand) } else { vec![subcommand] }
    });
    all.collect()
}

/// Renders the synopsis, the description and the options of a subcommand under one heading.
fn subsection(command: &Command) -> String {
    let man = Man::new(with_values_in_usage(command.clone()));
    let body = |render: Render| {
        let section = rendered(&man, render);
        let body = without_preamble(&section).split_once('\n').map(|(_heading, body)| body);
        body.unwrap_or_default().to_owned()
    };
    format!(
        ".SS \"{}\"\n{}.PP\n{}{}",
        command.get_bin_name().unwrap_or_default(),
        body(Man::render_synopsis_section),
        body(Man::render_description_section),
        body(Man::render_options_section)
    )
}

/// Replaces the synopsis of `clap_mangen`, which omits the values of options, by the usage of clap.
fn with_values_in_usage(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage)
}

fn rendered(man: &Man, render: Render) -> String {
    let mut page = Vec::new();
    render(man, &mut page).expect("a vector takes all that is written to it");
    String::from_utf8(page).expect("roff renders texts")
}

/// Cuts off the macros that roff defines before each text that it renders. A page needs them once.
fn without_preamble(page: &str) -> &str {
    page.find(".SH ").map_or("", |start| &page[start..])
}

/// The sections that the command line definition does not contain.
fn own_sections() -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["ENVIRONMENT"]);
    page.text([roman(
        "An empty variable means its default, but an empty HTTP_ADDR means none. `wakeupd --print-config` prints the effective settings.",
    )]);
    for setting in SETTINGS.into_iter().chain([&ENV_FILE]) {
        let Setting { name, values, about, .. } = setting;
        let default = setting.prose_default();
        item(&mut page, name, &format!("{about}\n\nIt must be {values}. Default: {default}"));
    }
    for (heading, items) in [
        ("SIGNALS", SIGNALS.as_slice()),
        ("FILES", &FILES),
        ("EXIT STATUS", &EXIT_CODES),
        ("EXAMPLES", &EXAMPLES),
    ] {
        page.control("SH", [heading]);
        for (tag, text) in items {
            item(&mut page, tag, text);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(SEE_ALSO)]);
    page
}

/// Adds a list entry with a hanging indent.
fn item(page: &mut Roff, tag: &str, text: &str) {
    page.control("TP", []).text([bold(tag)]).text([roman(text)]);
}

/// Polishes the roff: blank lines become paragraphs, text in backticks becomes bold, and other characters than ASCII
/// become escapes, which every roff can read.
fn finished(page: &str) -> String {
    // clap_mangen puts a blank line between two breaks before a list of possible values.
    let page = page.replace(".br\n\n.br\n", "\n").replace("\n\n", "\n.IP\n").replace(" \n", "\n");
    let parts = page.split('`').enumerate();
    let page = parts.map(|(number, part)| match number % 2 {
        1 => format!(r"\fB{part}\fR"),
        _ => part.to_owned(),
    });
    let escape =
        |c: char| if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", c as u32) };
    page.collect::<String>().chars().map(escape).collect()
}
