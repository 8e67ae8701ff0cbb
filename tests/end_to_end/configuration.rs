//! Valid and invalid environments.

use std::ffi::OsStr;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt;

use wakeupd::config::{ENV_FILE, SETTINGS, Setting};

use crate::support::daemon::{Daemon, output, wakeupd};

const WRONG: [(&str, &str); 19] = [
    ("HOST", "no host"),
    ("PORT", "65536"),
    ("CLIENT_EXPIRATION_SECONDS", "0"),
    ("WORKER_POOL_SIZE", "1025"),
    ("MAX_CLIENTS", "0"),
    ("MAX_CLIENTS_PER_ADDRESS", "many"),
    ("MAX_CLIENTS_PER_PREFIX", "100000001"),
    ("LOCAL_NETS", "10.0.0.0/33"),
    ("NAT64_PREFIXES", "64:ff9b::/95"),
    ("REFUSE_NETS", "192.0.2.0/24 198.51.100.0/24"),
    ("DENY_FILE", "/nowhere"),
    ("GUARD_MODE", "off"),
    ("SNAPSHOT_PATH", "/"),
    ("SNAPSHOT_INTERVAL_SECONDS", "0"),
    ("HTTP_ADDR", "localhost"),
    ("HTTP_HOSTS", "http://gateway"),
    ("ADMIN_TOKEN", "(hidden)"),
    ("LOG_LEVEL", "LOUD"),
    ("LOG_FORMAT", "xml"),
];

/// Runs the program with these variables and returns its error message.
fn complaint(variables: &[(&str, &str)]) -> String {
    let (status, stdout, stderr) = output(&mut wakeupd(variables));
    assert_eq!((status.code(), stdout.as_str()), (Some(78), ""), "{stderr}");
    stderr
}

#[test]
fn each_invalid_variable_is_reported_with_the_valid_values() {
    for (name, value) in WRONG {
        let complaint = complaint(&[(name, value)]);
        let setting = Setting::named(name).unwrap();
        let values = setting.values.to_string();
        for part in [&format!("{name}=\"{value}\""), &values, setting.default] {
            assert!(complaint.contains(part), "{part} is missing in: {complaint}");
        }
        assert_eq!(complaint.lines().count(), 2, "{complaint}");
    }
}

#[test]
fn more_invalid_values_are_rejected() {
    for (name, value) in [
        ("PORT", "-1"),
        ("PORT", "7561/udp"),
        ("PORT", "tcp://10.0.0.1:7561"),
        ("CLIENT_EXPIRATION_SECONDS", "86401"),
        ("CLIENT_EXPIRATION_SECONDS", "120s"),
        ("CLIENT_EXPIRATION_SECONDS", "1.5"),
        ("WORKER_POOL_SIZE", "0"),
        ("WORKER_POOL_SIZE", "99999999999999999999"),
        ("LOG_LEVEL", "25"),
    ] {
        assert!(complaint(&[(name, value)]).contains(value), "{name}={value}");
    }
}

#[test]
fn all_invalid_variables_are_reported_before_anything_is_bound() {
    // Binding this port would fail with another exit code.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let complaint_but_for_port =
        complaint(&[("HOST", "127.0.0.1"), ("PORT", &port), ("LOG_LEVEL", "LOUD")]);
    assert_eq!(complaint_but_for_port.lines().count(), 2);
    let complaint = complaint(&WRONG);
    assert_eq!(complaint.lines().count(), 1 + WRONG.len());
    assert!(WRONG.iter().all(|(name, _)| complaint.contains(&format!("  {name}="))));
}

#[test]
fn a_value_that_is_not_utf_8_is_an_error_only_in_a_setting() {
    let garbage = OsStr::from_bytes(b"\xff\xfe");
    let (status, _, stderr) = output(wakeupd(&[]).env("HOST", garbage));
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("HOST=\"\u{fffd}\u{fffd}\""), "{stderr}");

    let (status, ..) =
        output(wakeupd(&[]).env("SOMETHING", garbage).env(garbage, "1").arg("--check-config"));
    assert!(status.success());
}

#[test]
fn check_config_validates_without_serving() {
    let (status, stdout, stderr) = output(wakeupd(&[]).arg("--check-config"));
    assert_eq!(
        (status.code(), stdout.as_str(), stderr.as_str()),
        (Some(0), "the configuration is valid\n", "")
    );
    let (status, stdout, _) = output(wakeupd(&[("PORT", "x")]).arg("--check-config"));
    assert_eq!((status.code(), stdout.as_str()), (Some(78), ""));
}

#[test]
fn print_config_prints_the_effective_settings_as_an_env_file() {
    let variables = [("PORT", " \"7000\" "), ("LOG_LEVEL", "30"), ("WORKER_POOL_SIZE", "")];
    let (status, stdout, _) = output(wakeupd(&variables).arg("--print-config"));
    assert!(status.success());
    let effective = |setting: &Setting| match setting.name {
        "PORT" => "7000",
        "LOG_LEVEL" => "WARNING",
        _ => setting.default,
    };
    let expected = SETTINGS.map(|setting| format!("{}={}\n", setting.name, effective(setting)));
    assert_eq!(stdout, expected.concat());
}

#[test]
fn misspelt_variables_fail_the_check_but_not_the_daemon() {
    let misspelt = [("CLIENT_EXPIRATION", "5"), ("WORKER_POOLSIZE", "2"), ("HOSTNAME", "box")];
    let (status, stdout, stderr) = output(wakeupd(&misspelt).arg("--check-config"));
    assert_eq!((status.code(), stdout.as_str()), (Some(78), ""));
    let mut lines: Vec<_> = stderr.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "wakeupd: unknown variable CLIENT_EXPIRATION: did you mean CLIENT_EXPIRATION_SECONDS?",
            "wakeupd: unknown variable WORKER_POOLSIZE: did you mean WORKER_POOL_SIZE?",
        ]
    );
    Daemon::start(&misspelt).wait_for_line("WARN unknown variable WORKER_POOLSIZE");
}

#[test]
fn the_check_covers_the_host_name() {
    let (status, stdout, stderr) =
        output(wakeupd(&[("HOST", "nowhere.invalid"), ("LOGLEVEL", "1")]).arg("--check-config"));
    assert_eq!((status.code(), stdout.as_str()), (Some(78), ""));
    assert!(stderr.contains("HOST=nowhere.invalid does not resolve"), "{stderr}");
    assert!(stderr.contains("did you mean LOG_LEVEL?"), "each mistake is reported: {stderr}");
}

#[test]
fn the_check_binds_nothing() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let variables = [("HOST", "127.0.0.1"), ("PORT", &port), ("HTTP_ADDR", "192.0.2.1:80")];
    let (status, ..) = output(wakeupd(&variables).arg("--check-config"));
    assert!(status.success());
}

#[test]
fn help_lists_each_variable_with_its_default() {
    let (status, stdout, _) = output(wakeupd(&[]).arg("--help"));
    assert!(status.success());
    let words: Vec<_> = stdout.split_ascii_whitespace().collect();
    let help = words.join(" ");
    for setting in SETTINGS.into_iter().chain([&ENV_FILE]) {
        let default = setting.default.replace(',', ", ");
        let line = format!(" {} {} [default: {default}]", setting.name, setting.plain_about());
        assert!(help.contains(&line), "{line} is missing in: {stdout}");
    }
}

#[test]
fn the_version_matches_the_package() {
    let (_, stdout, _) = output(wakeupd(&[]).arg("--version"));
    assert_eq!(stdout, format!("wakeupd {}\n", env!("CARGO_PKG_VERSION")));
}
