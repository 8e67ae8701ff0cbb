//! Generates the manual page from the command line definition, the variables and a few texts of its own.

use clap::builder::PossibleValue;
use clap::{Arg, Command};
use roff::{Inline, Roff, bold, roman};

use crate::config::{ENV_FILE, SETTINGS, Setting};

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

/// Generates the page for `command`.
pub(super) fn of(command: Command) -> String {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let name = command.get_name().to_owned();
    let version = format!("{name} {}", command.get_version().unwrap_or_default());

    let mut page = Roff::new();
    // There is no date, to keep builds reproducible.
    let title = name.to_uppercase();
    page.control("TH", [title.as_str(), "8", r#""""#, &version, "System Administration"]);
    // Paths and names must not be hyphenated.
    page.control("nh", []);
    page.control("ad", ["l"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {}", command.get_about().unwrap_or_default()))]);

    page.control("SH", ["SYNOPSIS"]);
    page.text([bold(usage(&mut command))]);
    for subcommand in subcommands(&command) {
        page.control("br", []);
        page.text([bold(usage(&mut subcommand.clone()))]);
    }

    page.control("SH", ["DESCRIPTION"]);
    // The first paragraph is already under NAME.
    let about = command.get_long_about().unwrap_or_default().to_string();
    paragraphs(&mut page, "PP", about.split_once("\n\n").map_or("", |(_, rest)| rest));

    page.control("SH", ["OPTIONS"]);
    options(&mut page, &command);

    page.control("SH", ["COMMANDS"]);
    for subcommand in subcommands(&command) {
        page.control("SS", [subcommand.get_bin_name().unwrap_or_default()]);
        let about = subcommand.get_long_about().or_else(|| subcommand.get_about());
        paragraphs(&mut page, "PP", &about.unwrap_or_default().to_string());
        options(&mut page, subcommand);
    }

    page.control("SH", ["ENVIRONMENT"]);
    page.text(prose(
        "An empty variable has its default, but an empty HTTP_ADDR is none. `wakeupd --print-config` shows what is in force.",
    ));
    for Setting { name, default, values, about, .. } in SETTINGS.into_iter().chain([&ENV_FILE]) {
        // Lines break at spaces, so a list needs some.
        let default = default.replace(',', ", ");
        let text = format!("{about}\n\nIt must be {values}. Default: {default}");
        item(&mut page, name, &text);
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
    page.text(prose(SEE_ALSO));
    escaped(&page.render())
}

/// Lists all subcommands, with nested ones in place of their parents.
fn subcommands(command: &Command) -> Vec<&Command> {
    let all = command.get_subcommands().flat_map(|subcommand| {
        if subcommand.has_subcommands() { subcommands(subcommand) } else { vec![subcommand] }
    });
    all.collect()
}

/// The synopsis of the command.
fn usage(command: &mut Command) -> String {
    let usage = command.render_usage().to_string();
    let first = usage.lines().next().unwrap_or_default();
    first.trim_start_matches("Usage: ").to_owned()
}

fn options(page: &mut Roff, command: &Command) {
    let is_shown = |argument: &&Arg| !argument.is_hide_set() && argument.get_id() != "help";
    for argument in command.get_arguments().filter(is_shown) {
        let short = argument.get_short().map(|short| format!("-{short}, "));
        let tag = format!("{}{argument}", short.unwrap_or_default());
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let mut text = help.map(ToString::to_string).unwrap_or_default();
        if argument.get_action().takes_values() {
            let values = argument.get_possible_values();
            let values: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
            if !values.is_empty() {
                text = format!("{text}: {}", values.join(", "));
            }
            if let [default] = argument.get_default_values()
                && !argument.is_hide_default_value_set()
            {
                text = format!("{text}\n\nDefault: {}", default.display());
            }
        }
        item(page, &tag, &text);
    }
}

/// Adds a list entry with a hanging indent.
fn item(page: &mut Roff, tag: &str, text: &str) {
    page.control("TP", []);
    page.text([bold(tag)]);
    paragraphs(page, "IP", text);
}

/// Adds the paragraphs of a text, with `macro_name` before each but the first.
fn paragraphs(page: &mut Roff, macro_name: &str, text: &str) {
    for (number, paragraph) in text.split("\n\n").enumerate() {
        if number > 0 {
            page.control(macro_name, []);
        }
        page.text(prose(paragraph));
    }
}

/// Formats a text, with the parts in backticks in bold.
fn prose(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

/// Converts the page to ASCII, which every roff can read.
fn escaped(page: &str) -> String {
    let escape =
        |c: char| if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", c as u32) };
    page.chars().map(escape).collect()
}
