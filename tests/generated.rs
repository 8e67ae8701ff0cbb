//! Compares generated documents, or parts of documents, with the code.
//!
//! `UPDATE_GENERATED=1 cargo test --test generated` writes them.

use std::fmt::Write as _;
use std::{env, fs};

use wakeupd::config::{ENV_FILE, Group, SETTINGS, Setting};

/// The longest line of `.env.example`.
const WIDTH: usize = 100;

/// Compares a file with `expected`, or writes it.
fn compare(path: &str, expected: &str) {
    let file = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(file, expected).unwrap();
        return;
    }
    let actual = fs::read_to_string(file).unwrap_or_default();
    assert!(
        actual == expected,
        "{path} differs from the code. Run `UPDATE_GENERATED=1 cargo test --test generated`"
    );
}

/// Compares the part of a file between `<!-- name -->` and `<!-- end of name -->` with `expected`, or writes it.
fn compare_part(path: &str, name: &str, expected: &str) {
    let file = fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = file.split_once(&begin).expect("the beginning of the part");
    let (_, after) = rest.split_once(&end).expect("the end of the part");
    compare(path, &format!("{before}{begin}{expected}{end}{after}"));
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
fn the_example_of_an_env_file_lists_the_settings() {
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
    compare(".env.example", &text);
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
    compare_part("README.md", "settings", &(text + "\n"));
}
