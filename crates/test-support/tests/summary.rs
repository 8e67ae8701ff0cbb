//! The closing lines of `cargo test`: the skipped tests, and how to run them. Cargo runs packages in the order
//! of their names, so this test runs last (`tests/architecture.rs` checks that).

use std::env;
use std::fs;
use std::os::unix::process::parent_id;
use std::path::Path;

use wakeupd_test_support::{summary, take};

fn main() {
    let has = |argument: &str| env::args().any(|given| given == argument);
    if has("--list") {
        return;
    }
    print!("\n{}", summary(&take(parent_id())));
    let ignored = ignored_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests"));
    if ignored > 0 && !has("--ignored") && !has("--include-ignored") {
        println!("{ignored} tests of the suite take minutes and run with: cargo test -- --ignored");
    }
}

/// The number of ignored tests in a folder.
fn ignored_below(folder: &Path) -> usize {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            if path.is_dir() {
                return ignored_below(&path);
            }
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().filter(|line| line.starts_with("#[ignore")).count()
        })
        .sum()
}
