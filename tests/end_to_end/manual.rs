//! Help, manual page and completions.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use wakeupd::cli::Cli;
use wakeupd::config::SETTINGS;

use crate::daemon::{output, wakeupd};
use crate::needs::{self, Need};

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
fn help_fits_a_terminal() {
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
fn the_manual_page_tells_of_each_variable_and_subcommand() {
    let page = printed(&["man"]);
    let has = |line: &str| page.lines().any(|other| other == line);
    for variable in SETTINGS {
        assert!(has(&format!("\\fB{}\\fR", variable.name)), "{}: {page}", variable.name);
    }
    for name in subcommands() {
        let heading = format!(".SS \"wakeupd {name}");
        assert!(page.lines().any(|line| line.starts_with(&heading)), "{name}: {page}");
    }
    assert!(!page.contains("ends\\-with"), "this option is hidden: {page}");
}

#[test]
fn the_manual_page_is_sound() {
    let needs = [Need::Program("groff"), Need::Program("mandoc")];
    if !needs::met("the_manual_page_is_sound", &needs) {
        return;
    }
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
    if !needs::met("bash_completes_the_subcommands", &[Need::Program("bash")]) {
        return;
    }
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
fn there_are_completions_for_other_shells() {
    for (shell, beginning) in [("zsh", "#compdef wakeupd"), ("fish", "# Print an optspec")] {
        assert!(printed(&["completions", shell]).starts_with(beginning), "{shell}");
    }
    let (status, ..) = output(wakeupd(&[]).args(["completions", "abacus"]));
    assert_eq!(status.code(), Some(2));
}
