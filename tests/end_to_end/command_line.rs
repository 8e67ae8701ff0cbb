//! Command lines, and output to a standard output that is full, closed or a broken pipe.

use std::fs::OpenOptions;
use std::io;
use std::process::{Command, Output, Stdio};

use crate::support::daemon::{Client, Daemon, PROGRAM, output, wakeupd};

/// A daemon, and the arguments of every command that prints.
struct Scene {
    daemon: Daemon,
    snapshot: std::path::PathBuf,
}

impl Scene {
    fn new(name: &str) -> Self {
        let snapshot = std::env::temp_dir().join(format!("wakeupd-{name}-{}", std::process::id()));
        let path = snapshot.to_str().unwrap();
        let daemon = Daemon::start(&[
            ("HTTP_ADDR", "127.0.0.1:0"),
            ("SNAPSHOT_PATH", path),
            ("SNAPSHOT_INTERVAL_SECONDS", "1"),
        ]);
        Client::of(&daemon).heartbeat(&[]);
        crate::support::daemon::wait_until("the snapshot exists", || snapshot.exists());
        Self { daemon, snapshot }
    }

    /// The arguments of each subcommand, in each of its output forms.
    fn commands(&self) -> Vec<Vec<String>> {
        let (http, target) = (self.daemon.http(), self.daemon.address);
        let path = self.snapshot.display();
        let mut commands = vec![
            "--help".to_owned(),
            "-h".to_owned(),
            "--version".to_owned(),
            "help probe".to_owned(),
            "status --help".to_owned(),
            "--check-config".to_owned(),
            "--print-config".to_owned(),
            "man".to_owned(),
            "completions bash".to_owned(),
            format!("status --http-addr {http}"),
            format!("status --json --http-addr {http}"),
            format!("status --watch --http-addr {http}"),
            format!("healthcheck --http-addr {http}"),
            format!("probe {target} --count 1"),
            format!("snapshot show {path}"),
            format!("snapshot show --clients {path}"),
        ];
        if cfg!(target_os = "linux") {
            commands.extend(["doctor", "doctor --json"].map(str::to_owned));
        }
        let words = |command: &String| command.split(' ').map(str::to_owned).collect();
        commands.iter().map(words).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.snapshot);
    }
}

/// Runs the program and returns its exit code and standard error.
fn run(arguments: &[String], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut command = wakeupd(&[("HTTP_ADDR", "none")]);
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let Output { status, stderr, .. } = command.spawn().unwrap().wait_with_output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_fails_the_command() {
    let scene = Scene::new("full");
    for arguments in scene.commands() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, stderr) = run(&arguments, full);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        let lines: Vec<_> = stderr.lines().collect();
        let [line] = lines[..] else { panic!("{arguments:?}: {stderr}") };
        assert!(line.starts_with("wakeupd"), "{arguments:?}: {stderr}");
        assert!(
            line.contains("cannot write to standard output: No space left on device"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let scene = Scene::new("pipe");
    for arguments in scene.commands() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (code, stderr) = run(&arguments, writer);
        // The doctor still fails with a finding, and a probe without a ping.
        let may_fail = ["doctor", "probe"].contains(&arguments[0].as_str());
        assert!(code == Some(0) || may_fail && code == Some(1), "{arguments:?}: {code:?}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}

#[test]
fn closed_standard_streams_cause_no_panic() {
    let scene = Scene::new("closed");
    for arguments in scene.commands().into_iter().filter(|it| !it.contains(&"--watch".to_owned())) {
        for streams in [">&-", ">&- 2>&-", "2>&-", "2>/dev/full"] {
            let script = format!("exec \"$0\" \"$@\" {streams}");
            let mut command = Command::new("sh");
            command.args(["-c", &script, PROGRAM]).args(&arguments).env_clear();
            let (status, _, stderr) = output(command.env("ENV_FILE", "none"));
            let is_doctor = arguments[0] == "doctor";
            let is_fine = status.success() || is_doctor && status.code() == Some(1);
            assert!(is_fine && stderr.is_empty(), "{arguments:?} {streams}: {status} {stderr}");
        }
    }
    // A command that cannot print its error keeps its exit code.
    for (arguments, code) in [("--check-config", 78), ("status --http-addr 127.0.0.1:1", 69)] {
        for stream in ["2>/dev/full", "2>&-"] {
            let script = format!("exec \"$0\" {arguments} {stream}");
            let mut command = Command::new("sh");
            command.args(["-c", &script, PROGRAM]).env_clear().env("PORT", "x");
            let (status, ..) = output(command.env("ENV_FILE", "none"));
            assert_eq!(status.code(), Some(code), "{arguments} {stream}");
        }
    }
}

#[test]
fn an_argument_for_a_setting_suggests_the_variable() {
    for (arguments, tip) in [
        (&["--port", "7000"][..], "PORT=7000 wakeupd"),
        (&["-p", "7000"], "PORT=7000 wakeupd"),
        (&["--log-level=debug"], "LOG_LEVEL=debug wakeupd"),
        (&["serve"], "to serve, run wakeupd without a subcommand"),
        (&["PORT=7000"], "PORT=7000 wakeupd"),
    ] {
        let (status, stdout, stderr) = output(wakeupd(&[]).args(arguments));
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(tip), "{arguments:?}: {stderr}");
    }
}
