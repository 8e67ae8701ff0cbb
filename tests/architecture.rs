//! Compares the module structure and the documents with the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use wakeupd::catalogue;
use wakeupd::net::SocketOption;

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The code of each top-level module, without comments and tests: `src/net.rs` and `src/net/` are `net`.
fn rooms(folder: &str) -> BTreeMap<String, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut rooms = BTreeMap::<String, String>::new();
    for file in rust_files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["main", "lib"].contains(&room) && !folder.starts_with("crates")
            || inside.ends_with("tests.rs")
        {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        let room = rooms.entry(room.to_owned()).or_default();
        code.filter(|line| !line.trim().starts_with("//")).for_each(|line| {
            room.push_str(line);
            room.push('\n');
        });
    }
    rooms
}

/// The modules after `library` that the code of a module names, besides itself, and the protocol crate.
fn imports(code: &str, room: &str, library: &str) -> BTreeSet<String> {
    let identifier = |text: &str| -> String {
        text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let protocol = code.contains("wakeupd_protocol::").then(|| "protocol".to_owned());
    code.split(library)
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(identifier).collect(),
            None => vec![identifier(rest)],
        })
        .filter(|name| !name.is_empty() && name != room)
        .chain(protocol)
        .collect()
}

#[test]
fn the_modules_match_the_import_table() {
    let plan = read("docs/architecture.md");
    let (_, plan) = plan.split_once("## Import table\n").unwrap();
    let plan: BTreeMap<String, BTreeSet<String>> = plan
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let room = cells.next().unwrap().trim_end_matches('`').to_owned();
            let imports = cells.nth(1).unwrap().split_ascii_whitespace();
            (room, imports.map(|name| name.trim_matches('`').to_owned()).collect())
        })
        .collect();
    let daemon = rooms("src").into_iter();
    let mut house: BTreeMap<_, _> =
        daemon.map(|(room, code)| (room.clone(), imports(&code, &room, "crate::"))).collect();
    let bench: String = rooms("crates/bench/src").into_values().collect();
    house.insert("crates/bench".to_owned(), imports(&bench, "", " wakeupd::"));
    assert_eq!(house, plan);
}

/// A cycle of imports through `module`, if there is one.
fn circle(
    module: &str,
    path: &[String],
    imports: &BTreeMap<String, BTreeSet<String>>,
) -> Option<Vec<String>> {
    let path = [path, &[module.to_owned()]].concat();
    if path[1..].contains(&path[0]) {
        return Some(path);
    }
    let next = imports.get(module)?.iter().filter(|next| !path[1..].contains(next));
    next.into_iter().find_map(|next| circle(next, &path, imports))
}

#[test]
fn the_modules_have_no_import_cycles() {
    for (folder, parent) in
        [("src", "crate::"), ("src/http", "super::"), ("crates/bench/src", "crate::")]
    {
        let modules = rooms(folder).into_iter();
        let imports: BTreeMap<_, _> = modules
            .map(|(module, code)| (module.clone(), imports(&code, &module, parent)))
            .collect();
        for module in imports.keys() {
            assert_eq!(circle(module, &[], &imports), None, "in {folder}");
        }
    }
}

#[test]
fn the_engine_is_pure() {
    let engine = &rooms("src")["engine"];
    for impurity in ["tokio", "tracing", "now()", "Instant", "SystemTime", "async", "Socket::"] {
        assert!(!engine.contains(impurity), "the engine has {impurity}");
    }
}

#[test]
fn engine_modules_do_not_import_each_other() {
    let parts = ["guard", "registry", "schedule"];
    for part in parts {
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
        let folder = engine.join(part);
        let inner = if folder.is_dir() { rust_files(&folder) } else { Vec::new() };
        let files = inner.into_iter().chain([folder.with_extension("rs")]);
        let code: String = files
            .map(read)
            .map(|code| code.split("#[cfg(test)]").next().unwrap().to_owned())
            .collect();
        for other in parts {
            assert!(!code.contains(&format!("engine::{other}")), "{part} imports {other}");
            assert!(!code.contains(&format!("super::{other}")), "{part} imports {other}");
        }
    }
}

#[test]
fn restricted_apis_are_used_only_in_their_modules() {
    for (thing, only) in [
        ("dashmap", &["engine"][..]),
        ("unsafe {", &["engine"]),
        ("clock_gettime", &["clock"]),
        ("listenfd", &["supervisor"]),
        ("thread::spawn", &[]),
        ("socket2", &["net"]),
        ("sys::socket", &["net"]),
        ("env::var", &["logging", "supervisor"]),
    ] {
        for (room, code) in rooms("src") {
            assert!(only.contains(&room.as_str()) || !code.contains(thing), "{room} has {thing}");
        }
    }
}

#[test]
fn cargo_test_runs_the_summary_last() {
    let crates = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")).unwrap();
    let manifests = crates.map(|member| member.unwrap().path().join("Cargo.toml"));
    let manifests: Vec<_> = manifests.chain(["Cargo.toml".into()]).map(read).collect();
    let name = |manifest: &String| {
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        name.trim_matches('"').to_owned()
    };
    let last = manifests.iter().map(name).max();
    assert_eq!(last.as_deref(), Some("wakeupd-test-support"), "cargo runs packages by name");
    for manifest in &manifests {
        assert!(manifest.contains("\n[lib]\ndoctest = false\n"), "doc tests would follow");
    }
}

#[test]
fn the_tests_named_in_the_docs_exist() {
    let documents = read("docs/security.md") + &read("docs/reliability.md");
    let code = documents.split('`').skip(1).step_by(2);
    let named: Vec<_> = code
        .filter_map(|name| name.split_once("::"))
        .filter(|(module, _)| !module.is_empty())
        .collect();
    assert!(named.len() > 50, "{named:?}");
    for (module, test) in named {
        let code = match module {
            "simulation" => read("tests/simulation/main.rs"),
            _ => read(format!("tests/end_to_end/{module}.rs")),
        };
        // An ellipsis stands for the omitted part of a long name.
        let is_meant = |mut name: &str| {
            test.split('…').all(|part| name.split_once(part).map(|(_, rest)| name = rest).is_some())
        };
        let mut tests = code.lines().filter_map(|line| line.strip_prefix("fn "));
        assert!(tests.any(is_meant), "{module}::{test}");
    }
}

#[test]
fn the_handbook_covers_each_socket_option() {
    let handbook = read("docs/operations.md");
    let rows: Vec<_> = handbook.lines().filter(|line| line.starts_with("| `")).collect();
    for option in SocketOption::ALL {
        let name = format!("`{}`", option.name());
        let is_listed = |row: &&str| row.split('|').nth(1).unwrap_or_default().contains(&name);
        assert!(rows.iter().any(is_listed), "{name}");
    }
}

#[test]
fn the_handbook_has_a_section_for_each_finding() {
    let handbook = read("docs/operations.md");
    let headings = handbook.lines().filter_map(|line| line.strip_prefix("##"));
    let anchors: BTreeSet<_> = headings
        .map(|heading| heading.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"))
        .collect();
    let lists = [catalogue::daemon::ALL, catalogue::log::ALL, catalogue::machine::ALL];
    for problem in lists.into_iter().flatten() {
        assert!(problem.more.is_none_or(|anchor| anchors.contains(anchor)), "{problem:?}");
    }
    for problem in catalogue::daemon::ALL {
        assert!(problem.more.is_some(), "a finding needs a section of the handbook: {problem:?}");
    }
}

#[test]
fn an_end_to_end_test_provokes_each_logged_problem() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end");
    let code: String = rust_files(&folder).into_iter().map(read).collect();
    let expected: BTreeSet<_> = code
        .split('"')
        .flat_map(|text| text.split(['{', '}']))
        .map(str::trim)
        .filter(|text| text.len() > 12)
        .collect();
    for problem in catalogue::log::ALL {
        let parts = problem.summary.split(['{', '}']).step_by(2).map(str::trim);
        let longest = parts.max_by_key(|part| part.len()).unwrap();
        let is_expected =
            expected.iter().any(|text| longest.contains(text) || text.contains(longest));
        assert!(is_expected, "no test waits for {}", problem.summary);
    }
}
