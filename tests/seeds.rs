//! Replays the seeds of the fuzz targets.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "there are no seeds");
    for seed in seeds {
        println!("{}", seed.display());
        target(&fs::read(seed).unwrap());
    }
}

#[test]
fn configuration() {
    replay("configuration", targets::configuration);
}

#[test]
#[cfg(target_os = "linux")]
fn control_messages() {
    replay("control_messages", targets::control_messages);
}

#[test]
fn core() {
    replay("core", targets::core);
}

#[test]
fn deny_file() {
    replay("deny_file", targets::deny_file);
}

#[test]
fn snapshot() {
    replay("snapshot", targets::snapshot);
}
