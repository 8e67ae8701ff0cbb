//! Help, manual page and completions.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use wakeupd::cli::Cli;
use wakeupd::config::SETTINGS;

use crate::support::daemon::{output, wakeupd};
use crate::support::needs::Need;

/// The program's output for these arguments.
fn printed(arguments: &[&str]) -> String {
    let (status, stdout, stderr) = output(wakeupd(&[("COLUMNS", "80")]).args(arguments));
    assert!(status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
    stdout
}

fn subcommands() -> Vec<String> {
    let program = Cli::command();
    program.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Runs a program with `input`. Returns whether it succeeded, and its output.
fn fed(command: &mut Command, input: &str) -> (bool, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    (output.status.success(), said.concat())
}

#[test]
fn help_fits_in_80_columns() {
    let subcommands = subcommands();
    for flag in ["-h", "--help"] {
        let of_subcommands = subcommands.iter().map(|name| vec![name.as_str(), flag]);
        for arguments in of_subcommands.chain([vec![flag]]) {
            let help = printed(&arguments);
            let longest = help.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(80), "{arguments:?}: {help}");
        }
    }
}

#[test]
fn the_manual_page_lists_each_variable_subcommand_and_option() {
    let page = printed(&["man"]);
    for variable in SETTINGS {
        let tag = format!("\\fB{}\\fR", variable.name);
        assert!(page.lines().any(|line| line == tag), "{}: {page}", variable.name);
    }
    let (program, subcommands) = page.split_once("\n.SH SUBCOMMANDS\n").expect(&page);
    let (subcommands, _) = subcommands.split_once("\n.SH ENVIRONMENT\n").expect(&page);
    assert_has_options(program, &Cli::command());
    for command in Cli::command().get_subcommands() {
        let nested: Vec<_> = command.get_subcommands().collect();
        let name = command.get_name();
        if nested.is_empty() {
            assert_has_options(subsection(subcommands, name), command);
        }
        for inner in nested {
            let name = format!("{name} {}", inner.get_name());
            assert_has_options(subsection(subcommands, &name), inner);
        }
    }
    assert!(!page.contains("ends\\-with"), "this option is hidden: {page}");
}

/// The part of the page about a subcommand.
fn subsection<'a>(page: &'a str, name: &str) -> &'a str {
    let heading = format!(".SS \"wakeupd {name}\"\n\\fBwakeupd {name}\\fR");
    let (_, rest) = page.split_once(&heading).expect(&heading);
    rest.split(".SS").next().unwrap()
}

/// Asserts that each visible option or value of a command begins an entry with its help.
fn assert_has_options(page: &str, command: &clap::Command) {
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let tag = match (argument.get_long(), argument.get_value_names()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some([value])) => format!("<{value}>"),
            _ => panic!("{argument}"),
        };
        let help = argument.get_help().unwrap().to_string().replace('`', "");
        let page = page.replace(r"\-", "-").replace(r"\fB", "").replace(r"\fR", "");
        let page = page.replace(r"\fI", "").replace(r"\*(Aq", "'");
        let mut entries = page.split(".TP\n").skip(1).filter_map(|entry| entry.split_once('\n'));
        let is_listed = entries.any(|(head, text)| head.contains(&tag) && text.starts_with(&help));
        assert!(is_listed, "{tag}: {page}");
    }
}

#[test]
fn the_manual_page_is_ascii_with_the_standard_sections() {
    let page = printed(&["man"]);
    assert!(page.is_ascii(), "{page}");
    assert!(!page.contains('`'), "code is bold: {page}");
    assert!(page.contains(r"\fBwakeupd man | man \-l \-\fR"), "code is bold: {page}");
    assert_eq!(page.matches(".ds Aq").count(), 2, "one preamble: {page}");
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let expected = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "SUBCOMMANDS",
        "ENVIRONMENT",
        "SIGNALS",
        "FILES",
        "\"EXIT STATUS\"",
        "EXAMPLES",
        "\"SEE ALSO\"",
    ];
    assert_eq!(sections, expected);
}

#[test]
fn groff_and_mandoc_accept_the_manual_page() {
    require!([Need::Program("groff"), Need::Program("mandoc")]);
    let page = printed(&["man"]);
    for device in ["utf8", "ps"] {
        let groff = fed(Command::new("groff").args(["-ww", "-man", "-z", "-T", device]), &page);
        assert_eq!(groff, (true, String::new()), "{page}");
    }
    let (_, said) = fed(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]), &page);
    // The page has no date, to keep builds reproducible.
    let complaints: Vec<_> = said.lines().filter(|line| !line.contains("missing date")).collect();
    assert!(complaints.is_empty(), "{complaints:#?} {page}");
}

#[test]
fn bash_completes_the_subcommands() {
    require!([Need::Program("bash")]);
    let script = printed(&["completions", "bash"]);
    let ask = r#"
        COMP_WORDS=(wakeupd "") COMP_CWORD=1
        _wakeupd wakeupd "" wakeupd
        echo "${COMPREPLY[@]}"
    "#;
    let (is_sound, said) = fed(Command::new("bash").arg("--norc"), &format!("{script}\n{ask}"));
    assert!(is_sound, "{said}");
    let offered: Vec<_> = said.split_ascii_whitespace().collect();
    for name in subcommands() {
        assert!(offered.contains(&name.as_str()), "{name} is not in {offered:?}");
    }
    assert!(offered.contains(&"--print-config"), "{offered:?}");
    assert!(!offered.contains(&"--ends-with"), "this option is hidden: {offered:?}");
}

#[test]
fn zsh_and_fish_have_completions() {
    for (shell, beginning) in [("zsh", "#compdef wakeupd"), ("fish", "# Print an optspec")] {
        assert!(printed(&["completions", shell]).starts_with(beginning), "{shell}");
    }
    let (status, ..) = output(wakeupd(&[]).args(["completions", "abacus"]));
    assert_eq!(status.code(), Some(2));
}
