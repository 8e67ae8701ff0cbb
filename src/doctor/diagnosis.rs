//! The result of a check, and its presentation.

use std::fmt::{self, Display};

use clap::builder::styling::{AnsiColor, Effects, Style};
use serde::Serialize;

use crate::catalogue::{Occurrence, Severity};
use crate::output::printable;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// The check found no problem.
    Ok,
    /// The check found a problem, present or imminent.
    Finding,
    /// The check cannot run here.
    Unknown,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Row")]
pub(super) struct Diagnosis {
    pub(super) check: &'static str,
    pub(super) result: Outcome,
    /// The observation, or the reason why there is none.
    pub(super) seen: String,
    /// The problem of a finding.
    pub(super) problem: Option<Occurrence>,
}

/// A result as JSON. Only findings have the fields after `seen`.
#[derive(Serialize)]
struct Row {
    check: &'static str,
    result: Outcome,
    seen: String,
    id: Option<&'static str>,
    severity: Option<Severity>,
    why: Option<String>,
    mend: Option<String>,
    more: Option<String>,
}

impl From<Diagnosis> for Row {
    fn from(Diagnosis { check, result, seen, problem }: Diagnosis) -> Self {
        Self {
            check,
            result,
            seen,
            id: problem.as_ref().map(|it| it.problem.id),
            severity: problem.as_ref().map(|it| it.problem.severity),
            why: problem.as_ref().map(|it| it.impact.clone()),
            mend: problem.as_ref().map(Occurrence::script),
            more: problem.as_ref().map(|it| it.problem.more()),
        }
    }
}

impl Diagnosis {
    pub(super) fn ok(check: &'static str, seen: impl Display) -> Self {
        Self { check, result: Outcome::Ok, seen: seen.to_string(), problem: None }
    }

    pub(super) fn unknown(check: &'static str, seen: impl Display) -> Self {
        Self { result: Outcome::Unknown, ..Self::ok(check, seen) }
    }

    pub(super) fn finding(check: &'static str, problem: Occurrence) -> Self {
        #[cfg(test)]
        tests::assert_runnable(&problem.script());
        let seen = problem.summary.clone();
        Self { check, result: Outcome::Finding, seen, problem: Some(problem) }
    }

    /// The remedy of a finding, as a shell script.
    #[cfg(test)]
    pub(super) fn mend(&self) -> String {
        self.problem.as_ref().map(Occurrence::script).unwrap_or_default()
    }
}

/// A human-readable report of all results.
pub(super) struct Report<'a> {
    pub(super) diagnoses: &'a [Diagnosis],
    pub(super) is_coloured: bool,
}

/// The column at which the text starts.
const INDENT: usize = 9;

impl Report<'_> {
    fn style(&self, outcome: Outcome) -> Style {
        if !self.is_coloured {
            return Style::new();
        }
        match outcome {
            Outcome::Ok => AnsiColor::Green.on_default(),
            Outcome::Finding => AnsiColor::Red.on_default().effects(Effects::BOLD),
            Outcome::Unknown => AnsiColor::Yellow.on_default(),
        }
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Diagnosis { check, result, seen, problem } in self.diagnoses {
            let style = self.style(*result);
            let label = match result {
                Outcome::Ok => "ok",
                Outcome::Finding => "FINDING",
                Outcome::Unknown => "unknown",
            };
            let width = INDENT - 1;
            writeln!(f, "{style}{label:<width$}{style:#} {check}: {}", printable(seen))?;
            let Some(problem) = problem else { continue };
            for (name, text) in [("why:", &problem.impact), ("mend:", &problem.script())] {
                for (number, line) in text.lines().enumerate() {
                    let name = if number == 0 { name } else { "" };
                    writeln!(f, "{:INDENT$}{name:<6}{}", "", printable(line))?;
                }
            }
        }
        let count = |outcome| self.diagnoses.iter().filter(|d| d.result == outcome).count();
        match count(Outcome::Finding) {
            0 => write!(f, "no findings")?,
            1 => write!(f, "1 finding")?,
            findings => write!(f, "{findings} findings")?,
        }
        match count(Outcome::Unknown) {
            0 => writeln!(f),
            unknown => writeln!(f, ", {unknown} unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Problem;

    /// Checks that each line is a comment or a command that a shell can parse. Every finding that a test
    /// produces passes through here.
    pub(super) fn assert_runnable(mend: &str) {
        const COMMANDS: [&str; 4] = ["docker ", "sudo ", "systemctl ", "ulimit "];
        for line in mend.lines() {
            let is_command = COMMANDS.iter().any(|command| line.starts_with(command));
            assert!(is_command || line.starts_with("# "), "neither command nor comment: {line}");
        }
        let parsed = std::process::Command::new("sh").args(["-n", "-c", mend]).output().unwrap();
        assert!(parsed.status.success() && parsed.stderr.is_empty(), "{mend}");
    }

    const SMALL: Problem = Problem {
        id: "small",
        severity: Severity::Warning,
        summary: "There is too little {what}.",
        impact: "It ends.",
        remedy: "Buy {more}.",
        commands: "sudo rent some",
        more: None,
    };

    fn diagnoses() -> [Diagnosis; 3] {
        let small = SMALL.with(&[("what", &"memory"), ("more", &"some")]);
        [
            Diagnosis::ok("port", "it is free"),
            Diagnosis::finding("memory", small),
            Diagnosis::unknown("clock", "no /sys"),
        ]
    }

    #[test]
    fn the_report_shows_the_remedies() {
        let diagnoses = diagnoses();
        let text = Report { diagnoses: &diagnoses, is_coloured: false }.to_string();
        let expected = "\
ok       port: it is free
FINDING  memory: There is too little memory.
         why:  It ends.
         mend: # Buy some.
               sudo rent some
unknown  clock: no /sys
1 finding, 1 unknown
";
        assert_eq!(text, expected);
        let text = Report { diagnoses: &diagnoses[..1], is_coloured: false }.to_string();
        assert!(text.ends_with("\nno findings\n"), "{text}");
        let text = Report { diagnoses: &diagnoses, is_coloured: true }.to_string();
        assert!(text.contains("\u{1b}[32mok      \u{1b}[0m port: it is free\n"), "{text:?}");
    }

    #[test]
    fn control_characters_in_a_report_are_escaped() {
        let values: [(&str, &dyn Display); 2] =
            [("what", &"\u{1b}[2J'a'\n"), ("more", &"two\rlines\nare two\u{9b}")];
        let diagnoses = [Diagnosis::finding("port", SMALL.with(&values))];
        let text = Report { diagnoses: &diagnoses, is_coloured: false }.to_string();
        let expected = "FINDING  port: There is too little \\u{1b}[2J'a'\\n.
         why:  It ends.
         mend: # Buy two\\rlines
               # are two\\u{9b}.
               sudo rent some
1 finding
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_json_has_all_fields() {
        let json = serde_json::to_value(diagnoses()).unwrap();
        let other = |check, result, seen| {
            serde_json::json!({"check": check, "result": result, "seen": seen, "id": null,
                "severity": null, "why": null, "mend": null, "more": null})
        };
        let expected = serde_json::json!([
            other("port", "ok", "it is free"),
            {"check": "memory", "result": "finding", "seen": "There is too little memory.",
             "id": "small", "severity": "warning", "why": "It ends.",
             "mend": "# Buy some.\nsudo rent some", "more": "docs/findings.md#small"},
            other("clock", "unknown", "no /sys"),
        ]);
        assert_eq!(json, expected);
    }
}
