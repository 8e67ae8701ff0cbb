//! `wakeupd status` and `wakeupd healthcheck`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::daemon::{Client, Daemon, output, wakeupd};

#[test]
fn the_status_is_printed_as_text_or_json() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http().to_string();
    let client = Client::of(&daemon);
    client.heartbeat(b"");
    client.pings(2);
    let mut command = wakeupd(&[("HTTP_ADDR", &http)]);
    let (status, stdout, stderr) = output(command.arg("status"));
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    for part in ["wakeupd 0.1.0 on UDP 127.0.0.1:", "clients          1 (IPv4 1, IPv6 0)", "p99"] {
        assert!(stdout.contains(part), "{part} is missing in: {stdout}");
    }
    let arguments = ["status", "--json", "--http-addr", &http];
    let (status, stdout, _) = output(wakeupd(&[]).args(arguments));
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert!(status.success() && json["clients"]["ipv4"] == 1, "{json}");
}

#[test]
fn a_critical_finding_sets_the_exit_code() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0"), ("MAX_CLIENTS", "1")]);
    let http = daemon.http().to_string();
    let clients = [Client::of(&daemon), Client::of(&daemon)];
    for client in &clients {
        client.heartbeat(b"");
    }
    daemon.wait_for_line("refused a datagram");
    crate::support::web::wait_for(daemon.http(), "/status", |json| json["now"]["clients"] == 1);
    let (status, stdout, _) = output(wakeupd(&[("HTTP_ADDR", &http)]).arg("status"));
    assert_eq!(status.code(), Some(1), "{stdout}");
    assert!(
        stdout.contains("CRITICAL: The daemon has 1 of at most 1 clients (MAX_CLIENTS)."),
        "{stdout}"
    );
    assert!(stdout.contains("See docs/operations.md#clients-near-cap"), "{stdout}");
}

#[test]
fn watching_prints_the_status_repeatedly() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let mut command = wakeupd(&[("HTTP_ADDR", &daemon.http().to_string())]);
    command.args(["status", "--watch", "--json"]).stdout(Stdio::piped());
    let mut watching = command.spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    let seen: Vec<Value> = lines.take(3).map(|line| serde_json::from_str(&line).unwrap()).collect();
    watching.kill().unwrap();
    watching.wait().unwrap();
    let uptimes: Vec<_> = seen.iter().map(|status| status["uptime_seconds"].as_f64()).collect();
    assert!(uptimes[0] < uptimes[2], "{uptimes:?}");
}

#[test]
fn healthcheck_reports_health_in_its_exit_code() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http().to_string();
    let check = |address: &str| output(wakeupd(&[("HTTP_ADDR", address)]).arg("healthcheck"));
    let (status, stdout, _) = check(&http);
    assert_eq!((status.code(), stdout.as_str()), (Some(0), "healthy\n"));
    daemon.stop();
    let (status, _, stderr) = check(&http);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("does not answer") && stderr.contains("Start the daemon"), "{stderr}");
}

#[test]
fn without_an_endpoint_healthcheck_waits_for_a_ping() {
    let daemon = Daemon::start(&[]);
    let port = daemon.address.port().to_string();
    let check = |host: &str, port: &str| {
        let variables = [("HTTP_ADDR", "none"), ("HOST", host), ("PORT", port)];
        output(wakeupd(&variables).arg("healthcheck"))
    };
    for host in ["127.0.0.1", "0.0.0.0"] {
        let (status, stdout, stderr) = check(host, &port);
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stdout.starts_with("healthy: HTTP_ADDR is none"), "{stdout}");
    }
    daemon.stop();
    let (status, stdout, stderr) = check("127.0.0.1", &port);
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("so the check sent a heartbeat: nothing listens on UDP"), "{stderr}");

    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (status, _, stderr) = check("127.0.0.1", &mute.local_addr().unwrap().port().to_string());
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("so the check sent a heartbeat: no ping from UDP"), "{stderr}");

    let (status, stdout, _) = check("127.0.0.1", "0");
    assert_eq!(status.code(), Some(0));
    assert!(stdout.starts_with("unknown: HTTP_ADDR is none and PORT is 0"), "{stdout}");
}

#[test]
fn a_setting_that_is_not_needed_may_be_invalid() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http().to_string();
    let wrong = [("DENY_FILE", "/nowhere"), ("SNAPSHOT_PATH", "/"), ("PORT", "x")];
    for subcommand in ["status", "healthcheck"] {
        let run = |address: &str, arguments: &[&str]| {
            let mut command = wakeupd(&wrong);
            command.env("HTTP_ADDR", address).arg(subcommand).args(arguments);
            output(&mut command)
        };
        let (status, _, stderr) = run(&http, &[]);
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        let (status, _, stderr) = run("nonsense", &["--http-addr", &http]);
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        let (status, _, stderr) = run("nonsense", &[]);
        assert_eq!(status.code(), Some(78));
        assert!(stderr.contains("HTTP_ADDR=\"nonsense\"") && !stderr.contains("PORT"), "{stderr}");
    }
    let (status, _, stderr) = output(wakeupd(&wrong).env("HTTP_ADDR", "").arg("healthcheck"));
    assert_eq!(status.code(), Some(78));
    assert!(stderr.contains("PORT=\"x\"") && !stderr.contains("DENY_FILE"), "{stderr}");
}

/// A server that sends this response on each connection.
fn impostor(status: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while stream.read_line(&mut String::new()).unwrap_or(0) > 2 {}
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn escape_sequences_in_a_response_are_not_printed() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let mut status: Value =
        serde_json::from_str(&crate::support::web::get(daemon.http(), "/status").body).unwrap();
    let evil = "\u{1b}]0;x\u{7}\u{9b}2J\n\u{202e}";
    status["version"] = evil.into();
    let finding =
        json!({"id": evil, "severity": "warning", "summary": evil, "advice": evil, "more": evil});
    status["findings"] = json!([finding]);
    status["totals"]["refused"] = json!({ evil: 1 });
    let answers = [
        ("200 OK", status.to_string()),
        ("503 Service Unavailable", json!({"healthy": false, "stuck": [evil]}).to_string()),
        ("500 Internal Server Error", json!({"error": evil}).to_string()),
        ("200 OK", evil.to_owned()),
    ];
    let commands: &[&[&str]] =
        &[&["status"], &["status", "--json"], &["healthcheck"], &["doctor"], &["doctor", "--json"]];
    for (code, body) in &answers {
        let address = impostor(code, body);
        for arguments in commands {
            // The doctor queries the endpoint only if the port is in use.
            let port = daemon.address.port().to_string();
            let mut command = wakeupd(&[("HTTP_ADDR", &address), ("PORT", &port)]);
            let (_, stdout, stderr) = output(command.args(*arguments));
            let said = stdout + &stderr;
            let is_active = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!said.is_empty() && !said.contains(is_active), "{arguments:?}: {said:?}");
        }
    }
    let address = impostor("200 OK", &answers[0].1);
    let mut command = wakeupd(&[("HTTP_ADDR", &address)]);
    let (_, stdout, _) = output(command.args(["status", "--json"]));
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&told["version"], stdout.lines().count()), (&json!(evil), 1));
}

#[test]
#[cfg(target_os = "linux")]
fn a_wildcard_is_checked_at_every_address_of_localhost() {
    use crate::support::network::{Host, NEEDS};
    require!(NEEDS, [crate::support::needs::Need::Ipv6]);
    let host = Host::new();
    let check = |variables: &[(&str, &str)]| {
        let mut command = host.command(crate::support::daemon::PROGRAM);
        command.env_clear().env("ENV_FILE", "none").envs(variables.iter().copied());
        let (status, stdout, stderr) = output(command.arg("healthcheck"));
        assert!(status.success() && stdout.starts_with("healthy"), "{stdout}{stderr}");
    };
    for (preparation, address) in [
        ("true", "0.0.0.0:7561"),
        ("true", "[::]:7561"),
        ("echo 1 >/proc/sys/net/ipv6/bindv6only", "[::]:7561"),
        ("echo 0 >/proc/sys/net/ipv6/bindv6only; ip address del ::1/128 dev lo", "[::]:7561"),
    ] {
        host.run(preparation);
        let daemon = host.serve(&[("HTTP_ADDR", address)]);
        daemon.wait_for_line("listening for HTTP");
        check(&[("HTTP_ADDR", address)]);
        check(&[("HTTP_ADDR", "none"), ("HOST", "::")]);
        daemon.stop();
    }
}

/// The output of `status --watch` on a terminal of this size and type.
fn drawn(http: &str, rows: u32, term: &str) -> Vec<u8> {
    let watch = format!(
        "stty rows {rows} cols 60; timeout --signal INT 4 {} status --watch --http-addr {http}",
        crate::support::daemon::PROGRAM
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &watch, "/dev/null"]).env("TERM", term);
    command.env("ENV_FILE", "none").stdin(Stdio::null()).output().unwrap().stdout
}

#[test]
fn watching_does_not_scroll() {
    require!([crate::support::needs::Need::Program("script")]);
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http().to_string();
    for rows in [5, 50] {
        let drawn = String::from_utf8(drawn(&http, rows, "xterm")).unwrap();
        let frames: Vec<_> = drawn.split("\u{1b}[H").skip(1).collect();
        assert!(!frames.is_empty(), "{drawn:?}");
        for frame in frames.iter().map(|frame| frame.split("\u{1b}[J").next().unwrap()) {
            assert!(frame.matches('\n').count() < rows as usize, "{frame:?}");
            assert_eq!(frame.contains("more lines"), rows == 5, "{frame:?}");
        }
    }
    let drawn = String::from_utf8(drawn(&http, 5, "dumb")).unwrap();
    assert!(drawn.contains("kernel drops") && !drawn.contains('\u{1b}'), "{drawn:?}");
}

#[test]
fn another_http_server_is_not_mistaken_for_a_daemon() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = BufReader::new(stream.unwrap());
            while stream.read_line(&mut String::new()).unwrap() > 2 {}
            let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            std::io::Write::write_all(stream.get_mut(), answer).unwrap();
        }
    });
    for (subcommand, code) in [("status", 69), ("healthcheck", 1)] {
        let (status, _, stderr) = output(wakeupd(&[("HTTP_ADDR", &address)]).arg(subcommand));
        assert_eq!(status.code(), Some(code));
        assert!(
            stderr.contains(
                "answered 404 Not Found: the response is not from this version of wakeupd"
            ),
            "{stderr}"
        );
    }
    other.join().unwrap();
    let (status, _, stderr) = output(wakeupd(&[("HTTP_ADDR", "")]).arg("status"));
    assert_eq!(status.code(), Some(69));
    assert!(stderr.contains("HTTP_ADDR is none"), "{stderr}");
}
