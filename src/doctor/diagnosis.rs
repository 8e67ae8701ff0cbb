//! The result of a check, and its presentation.

use std::fmt::{self, Display};

use clap::builder::styling::{AnsiColor, Effects, Style};
use serde::Serialize;

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
pub(super) struct Diagnosis {
    pub(super) check: &'static str,
    pub(super) result: Outcome,
    /// The observation, or the reason why there is none.
    pub(super) seen: String,
    /// The consequence of a finding.
    pub(super) why: Option<String>,
    /// The remedy as a shell script: one command per line, with advice in comments.
    pub(super) mend: Option<String>,
}

impl Diagnosis {
    pub(super) fn ok(check: &'static str, seen: impl Display) -> Self {
        Self { check, result: Outcome::Ok, seen: seen.to_string(), why: None, mend: None }
    }

    pub(super) fn unknown(check: &'static str, seen: impl Display) -> Self {
        Self { result: Outcome::Unknown, ..Self::ok(check, seen) }
    }

    pub(super) fn finding(
        check: &'static str,
        seen: impl Display,
        why: impl Display,
        mend: impl Display,
    ) -> Self {
        #[cfg(test)]
        tests::assert_runnable(&mend.to_string());
        Self {
            result: Outcome::Finding,
            why: Some(why.to_string()),
            mend: Some(mend.to_string()),
            ..Self::ok(check, seen)
        }
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
        for Diagnosis { check, result, seen, why, mend } in self.diagnoses {
            let style = self.style(*result);
            let label = match result {
                Outcome::Ok => "ok",
                Outcome::Finding => "FINDING",
                Outcome::Unknown => "unknown",
            };
            let width = INDENT - 1;
            writeln!(f, "{style}{label:<width$}{style:#} {check}: {}", printable(seen))?;
            for (name, text) in [("why:", why), ("mend:", mend)] {
                for (number, line) in text.iter().flat_map(|text| text.lines()).enumerate() {
                    let name = if number == 0 { name } else { "" };
                    writeln!(f, "{:INDENT$}{name:<6}{}", "", printable(line))?;
                }
            }
        }
        let count = |outcome| self.diagnoses.iter().filter(|d| d.result == outcome).count();
        match count(Outcome::Finding) {
            0 => write!(f, "nothing found")?,
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

    fn diagnoses() -> [Diagnosis; 3] {
        [
            Diagnosis::ok("port", "it is free"),
            Diagnosis::finding("memory", "too little", "it ends", "# buy some\nsudo rent some"),
            Diagnosis::unknown("clock", "no /sys"),
        ]
    }

    #[test]
    fn a_person_reads_what_to_do() {
        let diagnoses = diagnoses();
        let text = Report { diagnoses: &diagnoses, is_coloured: false }.to_string();
        let expected = "\
ok       port: it is free
FINDING  memory: too little
         why:  it ends
         mend: # buy some
               sudo rent some
unknown  clock: no /sys
1 finding, 1 unknown
";
        assert_eq!(text, expected);
        let text = Report { diagnoses: &diagnoses[..1], is_coloured: false }.to_string();
        assert!(text.ends_with("\nnothing found\n"), "{text}");
        let text = Report { diagnoses: &diagnoses, is_coloured: true }.to_string();
        assert!(text.contains("\u{1b}[32mok      \u{1b}[0m port: it is free\n"), "{text:?}");
    }

    #[test]
    fn nothing_that_others_wrote_moves_the_cursor() {
        let (seen, why, mend) = ("\u{1b}[2J'a'\n", "\u{7}\u{9b}", "# two\rlines\n# are two");
        let diagnoses = [Diagnosis::finding("port", seen, why, mend)];
        let text = Report { diagnoses: &diagnoses, is_coloured: false }.to_string();
        let expected = "FINDING  port: \\u{1b}[2J'a'\\n
         why:  \\u{7}\\u{9b}
         mend: # two\\rlines
               # are two
1 finding
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_machine_reads_the_same() {
        let json = serde_json::to_value(diagnoses()).unwrap();
        let expected = serde_json::json!([
            {"check": "port", "result": "ok", "seen": "it is free", "why": null, "mend": null},
            {"check": "memory", "result": "finding", "seen": "too little", "why": "it ends",
             "mend": "# buy some\nsudo rent some"},
            {"check": "clock", "result": "unknown", "seen": "no /sys", "why": null, "mend": null},
        ]);
        assert_eq!(json, expected);
    }
}
