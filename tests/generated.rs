//! Compares generated files with the code that they are generated from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use wakeupd::catalogue::{self, Problem, Severity};
use wakeupd::config::{ENV_FILE, Group, SETTINGS, Setting};

/// The longest line of `.env.example`.
const WIDTH: usize = 100;

/// Held by a test while it updates a file of which another test may update another part.
static UPDATING: Mutex<()> = Mutex::new(());

/// The command that updates all generated files.
const UPDATE: &str = "UPDATE_GENERATED=1 cargo test --test generated";

/// Checks that a file of the repository consists of `expected`, or, with a mark, that `expected` stands between its
/// lines `<!-- mark -->` and `<!-- end of mark -->`. Updates the file instead if `UPDATE_GENERATED` is set.
fn compare(path: &str, mark: Option<&str>, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let _updating = UPDATING.lock().unwrap_or_else(PoisonError::into_inner);
    let found = fs::read_to_string(&file).unwrap_or_default();
    let expected = mark.map_or_else(|| expected.to_owned(), |mark| replace(&found, mark, expected));
    if env::var_os("UPDATE_GENERATED").is_some() {
        return fs::write(&file, expected).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let same = found.lines().zip(expected.lines()).take_while(|(one, other)| one == other).count();
    assert!(found == expected, "{path} is out of date in line {}: run {UPDATE}", same + 1);
}

/// Replaces the part of a text between two marks.
fn replace(text: &str, mark: &str, part: &str) -> String {
    let [begin, end] = [format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->\n")];
    let (before, rest) = text.split_once(&begin).expect(&begin);
    let (_, after) = rest.split_once(&end).expect(&end);
    [before, &begin, part, &end, after].concat()
}

#[test]
fn a_marked_section_is_replaced() {
    let text = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
    assert_eq!(replace(text, "x", "new\n"), text.replace("old", "new"));
}

const INTRODUCTION: &str = "\
# Findings

The problems that the status page, `wakeupd status` and `wakeupd doctor` report, many of which are also in the log: the
fact, its consequence and the remedy or, depending on the circumstances, one of several remedies. Names in braces stand
for values. This file is generated from `src/catalogue`; [operations](operations.md) explains most of the problems in
more detail.
";

const LISTS: [&[Problem]; 3] =
    [catalogue::daemon::ALL, catalogue::machine::ALL, catalogue::log::ALL];

fn findings() -> String {
    let mut by_id = BTreeMap::<_, Vec<&Problem>>::new();
    for problem in LISTS.into_iter().flatten() {
        by_id.entry(problem.id).or_default().push(problem);
    }
    let sections = by_id.iter().map(|(id, entries)| section(id, entries));
    [INTRODUCTION.to_owned()].into_iter().chain(sections).collect::<Vec<_>>().join("\n")
}

/// The section about a problem, which may have several entries.
fn section(id: &str, entries: &[&Problem]) -> String {
    let mut parts = vec![format!("## {id}\n")];
    let mut problems = entries.to_vec();
    // The doctor and the status page share some entries.
    problems.dedup();
    for (index, problem) in problems.iter().enumerate() {
        let fact = fact(problem);
        if index == 0 || self::fact(problems[index - 1]) != fact {
            parts.push(fact);
        }
        let remedy = remedy(problem);
        if problems.get(index + 1).is_none_or(|next| self::remedy(next) != remedy) {
            parts.push(remedy);
        }
    }
    let more = problems[0].more;
    parts.extend(more.map(|at| format!("More: [{}](operations.md#{at})\n", at.replace('-', " "))));
    parts.join("\n")
}

fn fact(problem: &Problem) -> String {
    let severity = match problem.severity {
        Severity::Critical => "Critical",
        Severity::Warning => "Warning",
    };
    format!("**{severity}:** {} {}\n", problem.summary, problem.impact)
}

fn remedy(problem: &Problem) -> String {
    let commands: String = problem.commands.lines().flat_map(|line| ["  ", line, "\n"]).collect();
    match commands.as_str() {
        "" => format!("- {}\n", problem.remedy),
        commands => format!("- {}\n\n  ```sh\n{commands}  ```\n", problem.remedy),
    }
}

#[test]
fn the_list_of_findings_matches_the_catalogue() {
    compare("docs/findings.md", None, &findings());
}

fn settings(group: Group) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.into_iter().filter(move |setting| setting.group == group)
}

/// Breaks a text into lines of at most [`WIDTH`] characters that begin with `# `.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        if lines[lines.len() - 1].len() + 1 + word.len() > WIDTH {
            lines.push("#".to_owned());
        }
        let line = lines.last_mut().unwrap();
        *line += " ";
        *line += word;
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_example_env_file_lists_the_settings() {
    let mut text = String::from(
        "# The settings of wakeupd with their defaults. A setting that is left out has its default.\n",
    );
    for group in Group::ALL {
        write!(text, "\n## {}\n", group.heading()).unwrap();
        for setting in settings(group) {
            let Setting { name, default, .. } = setting;
            write!(text, "\n{}{name}={default}\n", comment(&setting.plain_about())).unwrap();
        }
    }
    compare(".env.example", None, &text);
}

#[test]
fn the_readme_lists_the_settings() {
    let mut text = String::new();
    for group in Group::ALL {
        write!(
            text,
            "\n### {}\n\n| Variable | Default | Meaning |\n|---|---|---|\n",
            group.heading()
        )
        .unwrap();
        let env_file = (group == Group::Logging).then_some(&ENV_FILE);
        for Setting { name, default, about, .. } in settings(group).chain(env_file) {
            writeln!(text, "| `{name}` | `{default}` | {about} |").unwrap();
        }
    }
    compare("README.md", Some("settings"), &(text + "\n"));
}
