//! Renders one manual page: `clap_mangen` renders the program and its subcommands, and sections from the settings and
//! a few texts follow.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::config::{ENV_FILE, VARIABLES, Variable};

/// Each signal and its effect.
const SIGNALS: [(&str, &str); 3] = [
    ("SIGTERM, SIGINT", "Stop. A second one ends the program at once."),
    (
        "SIGHUP",
        "Reload DENY_FILE. Clients in networks that it now denies get no more pings. Stop if the controlling terminal has closed. Ignored under nohup.",
    ),
    (
        "SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPIPE, SIGPWR, real-time signals",
        "Ignored. Log rotation needs no signal.",
    ),
];

const FILES: [(&str, &str); 5] = [
    (
        ".env",
        "More variables, read from the working directory unless a service manager started the program. ENV_FILE names another file.",
    ),
    (
        "/etc/default/wakeupd",
        "The variables of the systemd service, a line each in the form of NAME=value. After a change the service has to be restarted.",
    ),
    (
        "/var/lib/wakeupd/snapshot",
        "What keeps the clients over a restart of the service. One that could not be used lies beside it as snapshot.bad.",
    ),
    (
        "/usr/lib/systemd/system/wakeupd.service",
        "The systemd service, as the Debian package installs it.",
    ),
    (
        "/usr/lib/systemd/system/wakeupd.socket",
        "Its socket. Where that is enabled, heartbeats wait while the service restarts. HOST and PORT do not count beside it: `systemctl edit wakeupd.socket` sets the address.",
    ),
];

const EXIT_CODES: [(&str, &str); 6] = [
    (
        "0",
        "The daemon was told to stop; what was asked for is well: a probe got a ping, the doctor found nothing.",
    ),
    ("1", "It is not, or it could not be done, and then a line on standard error says why."),
    ("2", "The command line is wrong."),
    ("69", "There is no answer to `wakeupd status`."),
    (
        "78",
        "A variable is wrong, and each that is gets a line on standard error; the env file cannot be used; or a limit on memory is too small for MAX_CLIENTS.",
    ),
    ("130, 143", "A second SIGINT or SIGTERM ended it."),
];

const EXAMPLES: [(&str, &str); 5] = [
    ("PORT=7000 LOG_LEVEL=DEBUG wakeupd", "Serve on another port and tell of every client."),
    ("wakeupd probe localhost --count 3", "See whether pings come, and how punctual they are."),
    ("wakeupd status --watch", "See how the daemon is, second by second."),
    ("systemctl reload wakeupd", "Reload DENY_FILE, for example after a complaint about pings."),
    ("journalctl --unit wakeupd --grep summary", "See what the service did in each minute."),
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
    let man = Man::new(command.clone());
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
        "An empty variable has its default, but an empty HTTP_ADDR is none. `wakeupd --print-config` shows what is in force.",
    )]);
    for Variable { name, default, allowed, about } in VARIABLES.into_iter().chain([&ENV_FILE]) {
        // Lines break at spaces, so a list needs some.
        let default = default.replace(',', ", ");
        item(&mut page, name, &format!("{about}\n\nIt must be {allowed}. Default: {default}"));
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
