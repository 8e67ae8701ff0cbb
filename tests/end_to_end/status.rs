//! `wakeupd status` and `wakeupd healthcheck`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use crate::daemon::{Client, Daemon, output, wakeupd};

#[test]
fn the_status_is_shown_as_words_or_as_json() {
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
fn what_is_critical_is_the_exit_code() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0"), ("MAX_CLIENTS", "1")]);
    let http = daemon.http().to_string();
    let clients = [Client::of(&daemon), Client::of(&daemon)];
    for client in &clients {
        client.heartbeat(b"");
    }
    daemon.wait_for_line("refused a datagram");
    crate::web::wait_for(daemon.http(), "/status", |json| json["now"]["clients"] == 1);
    let (status, stdout, _) = output(wakeupd(&[("HTTP_ADDR", &http)]).arg("status"));
    assert_eq!(status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("CRITICAL: 1 of at most 1 clients"), "{stdout}");
    assert!(stdout.contains("See docs/operations.md#clients-near-cap"), "{stdout}");
}

#[test]
fn watching_goes_on() {
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
fn health_is_an_exit_code() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http().to_string();
    let check = |address: &str| output(wakeupd(&[("HTTP_ADDR", address)]).arg("healthcheck"));
    let (status, stdout, _) = check(&http);
    assert_eq!((status.code(), stdout.as_str()), (Some(0), "healthy\n"));
    daemon.stop();
    let (status, _, stderr) = check(&http);
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("does not answer") && stderr.contains("is the daemon running"),
        "{stderr}"
    );
    let (status, stdout, _) = check("");
    assert_eq!(status.code(), Some(0));
    assert!(stdout.starts_with("unknown: HTTP_ADDR is none"), "{stdout}");
}

#[test]
fn who_is_no_daemon_is_told_from_one() {
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
            stderr.contains("answers 404 Not Found: nothing that a wakeupd of this version says"),
            "{stderr}"
        );
    }
    other.join().unwrap();
    let (status, _, stderr) = output(wakeupd(&[("HTTP_ADDR", "")]).arg("status"));
    assert_eq!(status.code(), Some(69));
    assert!(stderr.contains("HTTP_ADDR is none"), "{stderr}");
}
