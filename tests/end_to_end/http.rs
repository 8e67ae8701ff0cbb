//! The HTTP endpoint.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::{Client, Daemon, PATIENCE, output, wait_until, wakeupd};
use crate::support::needs::Need;
use crate::support::web::{connect, get, metric, request, wait_for};

pub const TOKEN: &str = "correct-horse-battery-staple";

pub fn serve(variables: &[(&str, &str)]) -> (Daemon, SocketAddr) {
    let mut all = vec![("HTTP_ADDR", "127.0.0.1:0")];
    all.extend(variables);
    let daemon = Daemon::start(&all);
    let http = daemon.http();
    (daemon, http)
}

/// A client at an address of 127.0.0.0/8.
pub fn client_at(daemon: &Daemon, ip: &str) -> Client {
    let client = Client::new(UdpSocket::bind((ip, 0)).unwrap(), daemon.address);
    client.heartbeat(b"");
    client.ping();
    client
}

pub fn addresses(page: &Value) -> Vec<&str> {
    let clients = page["clients"].as_array().unwrap().iter();
    clients.map(|client| client["address"].as_str().unwrap()).collect()
}

#[test]
fn the_metrics_match_the_traffic() {
    let (daemon, http) = serve(&[("MAX_CLIENTS", "2"), ("LOCAL_NETS", "none")]);
    let client = client_at(&daemon, "127.0.0.1");
    client.heartbeat(b"");
    client.pings(2);
    client_at(&daemon, "127.0.0.2");
    let third = Client::new(UdpSocket::bind("127.0.0.3:0").unwrap(), daemon.address);
    third.heartbeat(b"");
    daemon.wait_for_line("refused a datagram");

    let answer = get(http, "/metrics");
    assert_eq!(
        (answer.status, answer.field("content-type")),
        (200, Some("text/plain; version=0.0.4"))
    );
    let value = |name| metric(&answer.body, name);
    for (name, expected) in [
        ("wakeupd_build_info{version=\"0.1.0\"}", 1.0),
        ("wakeupd_clients{family=\"ipv4\"}", 2.0),
        ("wakeupd_clients{family=\"ipv6\"}", 0.0),
        ("wakeupd_max_clients", 2.0),
        ("wakeupd_heartbeats_total", 3.0),
        ("wakeupd_registrations_total", 2.0),
        ("wakeupd_removals_total{reason=\"expired\"}", 0.0),
        ("wakeupd_refused_datagrams_total{reason=\"max_clients\"}", 1.0),
        ("wakeupd_refused_datagrams_total{reason=\"system_port\"}", 0.0),
        ("wakeupd_failed_pings_total{reason=\"no_buffers\"}", 0.0),
        ("wakeupd_guard_enforcing", 1.0),
        ("wakeupd_stuck_tasks", 0.0),
    ] {
        assert_eq!(value(name).to_bits(), f64::to_bits(expected), "{name} is {}", value(name));
    }
    let pings = value("wakeupd_pings_total");
    // The daemon counts a ping after it has left, so the last received one may not be counted yet.
    assert!(pings >= 3.0);
    assert!(value("wakeupd_ping_lateness_seconds_bucket{le=\"+Inf\"}") >= pings);
    assert!(value("wakeupd_ping_lateness_seconds_sum") > 0.0);
    assert!(value("wakeupd_receive_buffer_bytes") > 0.0);
    #[cfg(target_os = "linux")]
    {
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") > 10.0 && value("process_start_time_seconds") > 1e9);
    }
}

#[test]
fn promtool_accepts_the_metrics() {
    require!([Need::Program("promtool")]);
    let (_daemon, http) = serve(&[]);
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut check = check.stderr(Stdio::piped()).spawn().unwrap();
    let metrics = get(http, "/metrics").body;
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(checked.status.success() && said.is_empty() && checked.stdout.is_empty(), "{said}");
}

#[test]
fn health_and_readiness_are_reported() {
    let (daemon, http) = serve(&[]);
    let healthy = get(http, "/healthz");
    assert_eq!((healthy.status, healthy.body.as_str()), (200, r#"{"healthy":true,"stuck":[]}"#));
    let ready = get(http, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, r#"{"ready":true}"#));
    daemon.stop();
}

#[test]
fn the_status_lists_the_findings() {
    let (daemon, http) = serve(&[("MAX_CLIENTS", "1"), ("GUARD_MODE", "observe")]);
    let client = client_at(&daemon, "127.0.0.1");
    let finds = |json: &Value, id: &str| {
        json["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == id)
    };
    let status = wait_for(http, "/status", |json| finds(json, "clients_near_cap"));
    assert!(finds(&status, "not_enforcing"));
    assert_eq!((&status["clients"]["ipv4"], &status["clients"]["max"]), (&1.into(), &1.into()));
    assert_eq!(status["address"], daemon.address.to_string());
    client.ping();
    let status = wait_for(http, "/status", |json| json["totals"]["pings"].as_u64() > Some(1));
    let buckets = status["lateness"]["buckets"].as_array().unwrap();
    let late: u64 = buckets.iter().map(|bucket| bucket["pings"].as_u64().unwrap()).sum();
    assert_eq!((late, buckets.len()), (status["totals"]["pings"].as_u64().unwrap(), 12));
}

#[test]
fn a_frozen_process_is_not_mistaken_for_a_stuck_task() {
    let (daemon, http) = serve(&[]);
    wait_for(http, "/status", |json| json["uptime_seconds"].as_f64() > Some(0.0));
    daemon.freeze();
    let mut waiting = connect(http);
    waiting.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    thread::sleep(Duration::from_secs(5));
    daemon.signal(Signal::SIGCONT);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    let status = wait_for(http, "/status", |json| json["uptime_seconds"].as_f64() > Some(5.0));
    assert_eq!(status["stuck"], Value::Array(Vec::new()));
    assert!(!daemon.stop().iter().any(|line| line.contains("stuck")));
}

#[test]
fn only_drops_of_the_daemons_own_socket_are_counted() {
    let (daemon, http) = serve(&[("LOG_LEVEL", "INFO")]);
    let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind(("127.0.0.2", daemon.address.port())).unwrap();
    // The socket is never read, so a buffer of any size overflows.
    let drops = |text: &str| metric(text, "wakeupd_receive_drops_total");
    for _ in 0..100_000 {
        flood.send_to(b"", other.local_addr().unwrap()).unwrap();
    }
    let looks = |json: &Value| json["now"]["time"].as_f64();
    let before = looks(&get(http, "/status").json());
    wait_for(http, "/status", |json| looks(json) > before);
    assert!(drops(&get(http, "/metrics").body) < 1.0, "another socket's drops do not count");

    daemon.freeze();
    for _ in 0..100_000 {
        flood.send_to(b"", daemon.address).unwrap();
    }
    daemon.signal(Signal::SIGCONT);
    let finds = |json: &Value| json.to_string().contains("\"id\":\"receive_drops\"");
    let status = wait_for(http, "/status", finds);
    assert!(status["totals"]["receive_drops"].as_u64() >= Some(1));
    assert!(drops(&get(http, "/metrics").body) >= 1.0);
}

#[test]
fn events_start_with_the_history_and_continue_every_second() {
    let (daemon, http) = serve(&[]);
    let _client = client_at(&daemon, "127.0.0.1");
    wait_for(http, "/status", |json| json["now"]["clients"] == 1);
    let mut stream = connect(http);
    stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut event = || {
        let name = lines.find_map(|line| line.strip_prefix("event: ").map(str::to_owned)).unwrap();
        let data = lines.next().unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name, data)
    };
    let (name, history) = event();
    assert_eq!(name, "history");
    assert_eq!(history.as_array().unwrap().last().unwrap()["clients"], 1);
    let times: Vec<_> = (0..3)
        .map(|_| {
            let (name, status) = event();
            assert_eq!((name.as_str(), &status["now"]["pings"]), ("status", &1.into()));
            status["now"]["time"].as_f64().unwrap()
        })
        .collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

#[test]
#[ignore = "takes two minutes"]
fn an_event_stream_passes_proxies_unbuffered_and_has_a_time_limit() {
    let (_daemon, http) = serve(&[]);
    let mut stream = connect(http);
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    // Each read ends with the next event, so only an endless stream misses the deadline.
    let deadline = Instant::now() + 10 * PATIENCE;
    let (mut text, mut events) = (String::new(), 0);
    for line in BufReader::new(stream).lines().map(Result::unwrap) {
        assert!(Instant::now() < deadline, "the stream did not end after {events} events");
        events += usize::from(line == "event: status");
        text += &(line + "\n");
    }
    let (head, _) = text.split_once("\n\n").unwrap();
    assert!(head.to_lowercase().contains("\nx-accel-buffering: no"), "{head}");
    assert!(text.contains("\nretry: 3000\n") && events > 60, "{events} events");
    assert_eq!(text.matches("event: history").count(), 1);
    let next = text.rfind("event: status").unwrap();
    assert!(text[next..].contains("\n\n"), "the last event is complete: {}", &text[next..]);
}

#[test]
fn an_oversized_request_head_is_refused() {
    let (_daemon, http) = serve(&[]);
    let large = format!("X-Large: {}\r\n", "x".repeat(20_000));
    assert_eq!(request(http, "GET", "/status", &large).status, 431);
    assert_eq!(request(http, "GET", "/status", &"X-Many: x\r\n".repeat(100)).status, 431);
    assert_eq!(get(http, "/status").status, 200);
}

#[test]
fn a_slow_request_times_out_without_delaying_others() {
    let (daemon, http) = serve(&[]);
    let mut slow = connect(http);
    slow.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    let mut idle = connect(http);
    assert_eq!(get(http, "/status").status, 200);
    let client = client_at(&daemon, "127.0.0.1");
    for stream in [&mut slow, &mut idle] {
        stream.read_to_end(&mut Vec::new()).expect("the daemon closes the connection");
    }
    client.pings(5);
}

#[test]
fn an_unread_response_times_out() {
    let (daemon, http) = serve(&[]);
    let fds = format!("/proc/{}/fd", daemon.pid());
    if !std::fs::exists(&fds).unwrap() {
        return;
    }
    let open = || std::fs::read_dir(&fds).unwrap().count();
    let before = open();
    // The responses far exceed the buffers of a connection.
    let stuck: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = connect(http);
            let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000);
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = stream.write_all(requests.as_bytes());
            stream
        })
        .collect();
    wait_until("all connections are accepted", || open() >= before + stuck.len());
    let client = client_at(&daemon, "127.0.0.1");
    wait_until("all connections are closed", || {
        client.ping();
        get(http, "/healthz").status == 200 && open() <= before
    });
}

#[test]
fn connections_are_limited_and_pings_go_on() {
    let (daemon, http) = serve(&[]);
    let client = client_at(&daemon, "127.0.0.1");
    let mut held: Vec<_> = (0..140).map(|_| connect(http)).collect();
    daemon.wait_for_line("too many HTTP connections");
    client.pings(2);
    held.drain(..);
    wait_until("a new connection is accepted", || {
        let mut stream = connect(http);
        let _ = stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n");
        stream.read_to_end(&mut Vec::new()).is_ok_and(|length| length > 0)
    });
}

#[test]
fn no_endpoint_is_served_without_an_address() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "")]);
    let client = Client::of(&daemon);
    client.heartbeat(b"");
    client.ping();
    assert!(!daemon.stop().iter().any(|line| line.contains("HTTP") && line.contains("listening")));
}

#[test]
fn an_unavailable_address_is_an_error_with_a_remedy() {
    let (_daemon, http) = serve(&[]);
    let (taken, foreign) = (http.to_string(), "192.0.2.1:80");
    for address in [taken.as_str(), foreign] {
        let variables = [("HOST", "127.0.0.1"), ("PORT", "0"), ("HTTP_ADDR", address)];
        let (status, _, stderr) = output(&mut wakeupd(&variables));
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&format!("cannot bind TCP {address}")), "{stderr}");
        assert!(stderr.contains("HTTP_ADDR"), "{stderr}");
    }
}

#[test]
fn an_open_request_does_not_delay_the_shutdown() {
    let (mut daemon, http) = serve(&[]);
    let mut events = connect(http);
    events.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
    events.read_exact(&mut [0; 16]).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    let _ = events.read_to_end(&mut Vec::new());
}
