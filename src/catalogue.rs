//! The problems that the daemon and the doctor report, each with its consequence and its remedy.
//!
//! The status page, `wakeupd status`, the log and `wakeupd doctor` describe a problem in the words of its entry, and
//! `docs/findings.md` lists all entries. A judge, such as `status::find` or a check of the doctor, decides whether a
//! problem exists, and fills the entry with the values that it found:
//!
//! ```ignore
//! daemon::STUCK.with(&[("tasks", &tasks.join(", "))])
//! ```

pub mod daemon;
pub mod log;
pub mod machine;

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// How urgent a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The daemon does not start, or clients miss pings or are turned away.
    Critical,
    /// Clients could soon miss pings or be turned away.
    Warning,
}

/// A kind of problem. Its texts are sentences with placeholders, such as `{clients}`, for the values of an
/// occurrence.
///
/// Several entries can share an `id` if the severity or the remedy depends on the circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable identifier in `/status`, in the doctor's JSON and in `docs/findings.md`.
    pub id: &'static str,
    /// How urgent the problem is.
    pub severity: Severity,
    /// The fact.
    pub summary: &'static str,
    /// The consequence for the daemon or its clients.
    pub impact: &'static str,
    /// The remedy as prose, with short commands in backticks. If there are `commands`, the last sentence
    /// introduces them.
    pub remedy: &'static str,
    /// The remedy's shell commands, one per line, with comment lines between alternatives. Empty if there are none.
    pub commands: &'static str,
    /// The anchor of the section in `docs/operations.md` about the problem. `None` if only `docs/findings.md`
    /// describes the problem.
    pub more: Option<&'static str>,
}

/// A problem that exists, with its texts filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The entry of the catalogue.
    pub problem: Problem,
    /// The fact.
    pub summary: String,
    /// The consequence.
    pub impact: String,
    remedy: String,
    commands: String,
}

/// The command that restarts the service.
const RESTART: &str = "sudo systemctl restart wakeupd";

impl Problem {
    /// Fills the placeholders of all texts. `values` must contain exactly the placeholders of the texts,
    /// which tests and debug builds assert. A value in `commands` must be quoted for the shell if it comes
    /// from outside.
    #[must_use]
    pub fn with(self, values: &[(&str, &dyn Display)]) -> Occurrence {
        let templates = [self.summary, self.impact, self.remedy, self.commands];
        for (name, _) in values {
            let placeholder = format!("{{{name}}}");
            let is_used = templates.iter().any(|template| template.contains(&placeholder));
            debug_assert!(is_used, "{} has no {placeholder}", self.id);
        }
        let [summary, impact, remedy, commands] = templates.map(|template| fill(template, values));
        Occurrence { problem: self, summary, impact, remedy, commands }
    }

    /// The path of the document about the problem, with the anchor of its section.
    #[must_use]
    pub fn more(&self) -> String {
        match self.more {
            Some(anchor) => format!("docs/operations.md#{anchor}"),
            None => format!("docs/findings.md#{}", self.id),
        }
    }
}

impl Occurrence {
    /// The remedy as prose on one line. It includes the commands before the first comment, which introduces an
    /// alternative, but not a restart of the service: the prose says to restart the daemon, and a container has no
    /// such service.
    #[must_use]
    pub fn advice(&self) -> String {
        let commands = self.commands.lines().take_while(|line| !line.starts_with('#'));
        let commands = commands.filter(|line| *line != RESTART);
        let commands: Vec<_> = commands.map(|command| format!("`{command}`")).collect();
        if commands.is_empty() {
            return self.remedy.clone();
        }
        format!("{}: {}.", self.remedy.trim_end_matches('.'), commands.join(", then "))
    }

    /// The remedy as a shell script, with the prose in comments.
    #[must_use]
    pub fn script(&self) -> String {
        let prose = self.remedy.lines().map(|line| format!("# {line}"));
        prose.chain(self.commands.lines().map(str::to_owned)).collect::<Vec<_>>().join("\n")
    }
}

/// Fact, consequence and remedy on one line, for the log.
impl Display for Occurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.summary, self.impact, self.advice())
    }
}

fn fill(template: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut parts = template.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let placeholder = part.split_once('}').filter(|(name, _)| is_name(name));
        let value = |name| values.iter().find(|(other, _)| *other == name);
        match placeholder.map(|(name, rest)| (value(name), rest)) {
            Some((Some((_, value)), rest)) => text.extend([&value.to_string(), rest]),
            // A brace of a command, or a placeholder without a value: a mistake.
            other => {
                debug_assert!(other.is_none(), "no value for {{{part}");
                text.extend(["{", part]);
            }
        }
    }
    text
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAK: Problem = Problem {
        id: "leak",
        severity: Severity::Warning,
        summary: "{pipe} leaks.",
        impact: "The {room} gets wet.",
        remedy: "Close the valve.",
        commands: "sudo close {pipe}\n# or\nsudo sh -c '{ mop; }'",
        more: None,
    };

    #[test]
    fn placeholders_in_values_are_not_expanded() {
        let leak = LEAK.with(&[("pipe", &"{room}"), ("room", &7)]);
        let remedy = "Close the valve: `sudo close {room}`.";
        assert_eq!(leak.to_string(), format!("{{room}} leaks. The 7 gets wet. {remedy}"));
        let script = "# Close the valve.\nsudo close {room}\n# or\nsudo sh -c '{ mop; }'";
        assert_eq!(leak.script(), script);
        assert_eq!(LEAK.more(), "docs/findings.md#leak");
    }

    #[test]
    #[should_panic(expected = "no value for {room}")]
    fn a_missing_value_panics() {
        let _ = LEAK.with(&[("pipe", &"a")]);
    }

    #[test]
    #[should_panic(expected = "leak has no {tap}")]
    fn an_unused_value_panics() {
        let _ = LEAK.with(&[("pipe", &"a"), ("room", &"b"), ("tap", &"c")]);
    }

    #[test]
    fn each_entry_is_listed_and_written_in_sentences() {
        for (list, source) in [
            (daemon::ALL, include_str!("catalogue/daemon.rs")),
            (log::ALL, include_str!("catalogue/log.rs")),
            (machine::ALL, include_str!("catalogue/machine.rs")),
        ] {
            let defined = |problem: &&Problem| list.contains(problem);
            let shared = [&daemon::RECEIVE_BUFFER_SMALL, &daemon::SEND_BUFFER_SMALL];
            let foreign = match list {
                machine::ALL => shared.into_iter().filter(defined).count(),
                _ => 0,
            };
            let entries = source.matches(": Problem =").count();
            assert_eq!(list.len(), entries + foreign, "an entry is missing in a list");
            for problem in list {
                assert!(is_name(problem.id), "{problem:?}");
                for text in [problem.summary, problem.impact, problem.remedy] {
                    assert!(text.ends_with(['.', '}']), "{text}");
                }
            }
        }
    }
}
