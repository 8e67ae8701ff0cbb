//! The doctor tries files and ports as the user of the daemon.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, id};

use crate::doctor::{QUIET, check, diagnoses, of};
use crate::support::daemon::{Client, Daemon, PROGRAM, SERVING, wakeupd};
use crate::support::needs::Need;
use crate::support::network::{Host, NEEDS};

/// The program as an unprivileged user.
fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--clear-groups"]).args(ids);
    command.arg(PROGRAM).env_clear().env("ENV_FILE", "none").env("HTTP_ADDR", "none");
    command
}

#[test]
fn files_are_tried_as_the_user_of_the_service() {
    require!([Need::Root, Need::Program("setpriv")]);
    // Like /var/lib/private, which only root may enter.
    let private = std::env::temp_dir().join(format!("wakeupd-private-{}", id()));
    let folder = private.join("it's the state");
    fs::create_dir_all(&folder).unwrap();
    let set = |path: &Path, owner: u32, mode: u32| {
        chown(path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&private, 0, 0o700);
    let (snapshot, deny) = (folder.join("snapshot"), private.join("deny"));
    let examined = |mut command: Command| {
        diagnoses(command.env("SNAPSHOT_PATH", &snapshot).env("DENY_FILE", &deny))
    };
    let by_root = || examined(wakeupd(&QUIET));
    fs::write(&deny, "192.0.2.0/24").unwrap();
    for (owner, mode, expected) in [
        (65_533, 0o700, ("ok", "user 65533 (owner of the folder")),
        (65_533, 0o500, ("finding", "is not writable by")),
        (0, 0o755, ("unknown", "cannot tell whether that user can write to")),
    ] {
        set(&folder, owner, mode);
        let diagnoses = by_root();
        let (result, seen) = check(&diagnoses, "snapshot");
        assert!(result == expected.0 && seen.contains(expected.1), "{mode:o}: {result} {seen}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the check leaves no file behind");
    }

    // The suggested remedy works as it is.
    set(&folder, 65_533, 0o500);
    let diagnoses = by_root();
    let mend = of(&diagnoses, "snapshot")["mend"].as_str().unwrap().replace("sudo ", "");
    assert!(Command::new("sh").args(["-c", &mend]).status().unwrap().success(), "{mend}");
    let mended = by_root();
    assert_eq!(check(&mended, "snapshot").0, "ok");
    // The service's user cannot even enter the deny file's folder.
    assert_eq!(check(&mended, "deny file").0, "finding");

    set(&private, 0, 0o755);
    assert_eq!(check(&by_root(), "deny file").0, "ok");
    let (result, seen) = {
        let diagnoses = examined(as_user(65_531));
        let (result, seen) = check(&diagnoses, "snapshot");
        (result.to_owned(), seen.to_owned())
    };
    assert!(result == "unknown" && seen.ends_with("run the doctor as root"), "{result} {seen}");
    assert_eq!(check(&examined(as_user(65_533)), "snapshot").0, "ok");
    fs::remove_dir_all(&folder).unwrap();
    let diagnoses = by_root();
    let (result, seen) = check(&diagnoses, "snapshot");
    assert!(result == "finding" && seen.contains("No such file"), "{seen}");
    assert_eq!(fs::read_dir(&private).unwrap().count(), 1, "the check creates nothing");
    fs::remove_dir_all(&private).unwrap();
}

#[test]
fn files_are_tried_as_the_user_of_the_running_daemon() {
    require!([Need::Root, Need::Program("setpriv")]);
    let folder = std::env::temp_dir().join(format!("wakeupd-state-{}", id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::start_command(as_user(65_532).envs(SERVING));
    let port = daemon.address.port().to_string();
    let mut command = wakeupd(&SERVING);
    let snapshot = folder.join("snapshot");
    let diagnoses = diagnoses(command.env("PORT", port).env("SNAPSHOT_PATH", snapshot));
    let (result, seen) = check(&diagnoses, "snapshot");
    let expected = "is not writable by user 65532 (of the running daemon)";
    assert!(result == "finding" && seen.contains(expected), "{seen}");
    assert_eq!(check(&diagnoses, "port").0, "ok", "a port that a daemon holds is not tried");
    let client = Client::of(&daemon);
    client.heartbeat(&[]);
    client.ping();
    daemon.stop();
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_free_port_is_bound_as_a_trial() {
    require!(NEEDS, [Need::Program("setpriv")]);
    let server = Host::new();
    let variables = [("PORT", "53"), ("HTTP_ADDR", "127.0.0.1:80")];
    let mut command = server.command("setpriv");
    command.args(as_user(65_533).get_args()).env_clear().env("ENV_FILE", "none");
    let by_user = diagnoses(command.envs(variables));
    let by_root =
        diagnoses(server.command(PROGRAM).env_clear().env("ENV_FILE", "none").envs(variables));
    for name in ["port", "HTTP port"] {
        let (result, seen) = check(&by_user, name);
        assert!(result == "finding" && seen.contains("cannot be bound: Permission"), "{seen}");
        let (result, seen) = check(&by_root, name);
        assert!(result == "ok" && seen.ends_with(" is free"), "{seen}");
    }
}
