//! `.env` in the working directory, and `ENV_FILE`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, id};

use crate::support::daemon::{Daemon, SERVING, output, wakeupd};

/// A folder for one test, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("wakeupd-env-{name}-{}", id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn with_file(name: &str, text: &str) -> Self {
        let folder = Self::new(name);
        fs::write(folder.0.join(".env"), text).unwrap();
        folder
    }

    /// The program in this folder, with these variables.
    fn wakeupd(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = wakeupd(&[]);
        command.env_remove("ENV_FILE").envs(variables.iter().copied()).current_dir(&self.0);
        command
    }

    /// The effective `PORT`.
    fn port(&self, variables: &[(&str, &str)]) -> String {
        let (status, stdout, stderr) = output(self.wakeupd(variables).arg("--print-config"));
        assert!(status.success(), "{stderr}");
        stdout.lines().find_map(|line| line.strip_prefix("PORT=")).unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_example_can_be_copied_and_run() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let example = fs::read_to_string(example).unwrap().replace("PORT=7561\n", "PORT=7000\n");
    let folder = Folder::with_file("example", &example);
    assert_eq!(folder.port(&[]), "7000");
    let (status, stdout, stderr) = output(folder.wakeupd(&[]).arg("--check-config"));
    let said = (stdout.as_str(), stderr.as_str());
    assert!(status.success() && said == ("the configuration is valid\n", ""), "{stderr}");
}

#[test]
fn the_environment_overrides_the_file() {
    let text = "\u{feff}# ours\nexport PORT='7000' # a comment\nENV_FILE=/nowhere\nOTHER=1\n";
    let folder = Folder::with_file("order", text);
    assert_eq!(folder.port(&[("HOST", "::1")]), "7000");
    assert_eq!(folder.port(&[("PORT", "7001")]), "7001");
    assert_eq!(folder.port(&[("PORT", "")]), "7561");
    assert_eq!(folder.port(&[("ENV_FILE", "none")]), "7561");
    assert_eq!(folder.port(&[("ENV_FILE", "")]), "7000");
}

#[test]
fn a_service_ignores_the_default_env_file() {
    let folder = Folder::with_file("service", "PORT=7000\n");
    assert_eq!(folder.port(&[("NOTIFY_SOCKET", "/run/notify")]), "7561");
    let named = [("NOTIFY_SOCKET", "/run/notify"), ("ENV_FILE", ".env")];
    assert_eq!(folder.port(&named), "7000");
    // SYSTEMD_EXEC_PID counts only in the process that systemd starts, not in the children of that process.
    let script = "SYSTEMD_EXEC_PID=$$ exec \"$0\" --print-config";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, crate::support::daemon::PROGRAM])
        .env_clear()
        .current_dir(&folder.0);
    assert!(output(&mut command).1.contains("PORT=7561\n"));
    assert_eq!(folder.port(&[("SYSTEMD_EXEC_PID", "1")]), "7000");
}

#[test]
fn a_daemon_logs_which_file_it_read() {
    let folder = Folder::with_file("log", "HOST=127.0.0.1\nPORT=0\nHTTP_ADDR=none\n");
    let daemon = Daemon::start_command(&mut folder.wakeupd(&[]));
    let line = daemon.wait_for_line("read variables from the env file");
    assert!(line.contains(&format!("path={}/.env", folder.0.display())), "{line}");
    assert_eq!(crate::support::daemon::count(&daemon.stop(), "env file"), 1);
    let plain = Folder::new("plain");
    let daemon = Daemon::start_command(plain.wakeupd(&[]).envs(SERVING));
    assert_eq!(crate::support::daemon::count(&daemon.stop(), "env file"), 0);
}

#[test]
fn subcommands_read_the_env_file() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let folder = Folder::with_file("status", &format!("HTTP_ADDR={}\n", daemon.http()));
    for subcommand in ["status", "healthcheck"] {
        let (status, _, stderr) = output(folder.wakeupd(&[]).arg(subcommand));
        assert!(status.success(), "{stderr}");
    }
}

#[test]
fn an_unusable_file_exits_with_code_78() {
    let secret = "HOST=::1\n\nADMIN_TOKEN=correct horse battery\n";
    let malformed = Folder::with_file("malformed", secret);
    let names_line = "malformed in line 3. Write NAME=value";
    let binary = Folder::new("binary");
    fs::write(binary.0.join(".env"), b"PORT=\xff\n").unwrap();
    let empty = Folder::new("empty");
    fs::create_dir(empty.0.join(".env")).unwrap();
    for (folder, file, reason) in [
        (&malformed, "", names_line),
        (&binary, "", "cannot read the env file"),
        (&empty, "/nowhere/at all", "cannot read the env file /nowhere/at all: No such file"),
        (&empty, ".env", "the path names a folder, not a regular file"),
    ] {
        for arguments in
            [&["--check-config"][..], &["--print-config"], &["status"], &["doctor"], &[]]
        {
            let mut command = folder.wakeupd(&[("ENV_FILE", file)]);
            let (status, stdout, stderr) = output(command.args(arguments));
            assert_eq!((status.code(), stdout.as_str()), (Some(78), ""), "{stderr}");
            assert!(stderr.starts_with("wakeupd: ") && stderr.contains(reason), "{stderr}");
            assert!(!stderr.contains("horse"), "the error leaks a secret: {stderr}");
        }
    }
    // A folder named .env is mostly a Python virtual environment.
    assert_eq!(empty.port(&[]), "7561");
    // If the endpoint is an argument, status needs no settings.
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let address = daemon.http().to_string();
    let mut command = malformed.wakeupd(&[]);
    assert!(output(command.args(["status", "--http-addr", &address])).0.success());
}

#[test]
fn misspelt_names_in_the_file_are_reported() {
    let folder = Folder::with_file("misspelt", "LOGLEVEL=DEBUG\n");
    let (status, _, stderr) = output(folder.wakeupd(&[("LOGLEVEL", "INFO")]).arg("--check-config"));
    assert_eq!(status.code(), Some(78));
    assert_eq!(stderr, "wakeupd: unknown variable LOGLEVEL: did you mean LOG_LEVEL?\n");
}
