//! The HTTP endpoint.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::{Client, Daemon, PATIENCE, count, output, wait_until, wakeupd};
use crate::support::needs::Need;
use crate::support::web::{connect, get, metric, raw, request, wait_for};

const TOKEN: &str = "correct-horse-battery-staple";

fn serve(variables: &[(&str, &str)]) -> (Daemon, SocketAddr) {
    let mut all = vec![("HTTP_ADDR", "127.0.0.1:0")];
    all.extend(variables);
    let daemon = Daemon::start(&all);
    let http = daemon.http();
    (daemon, http)
}

/// A client at an address of 127.0.0.0/8.
fn client_at(daemon: &Daemon, ip: &str) -> Client {
    let client = Client::new(UdpSocket::bind((ip, 0)).unwrap(), daemon.address);
    client.heartbeat(b"");
    client.ping();
    client
}

fn addresses(page: &Value) -> Vec<&str> {
    let clients = page["clients"].as_array().unwrap().iter();
    clients.map(|client| client["address"].as_str().unwrap()).collect()
}

#[test]
fn metrics_tell_what_happened() {
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
fn prometheus_finds_nothing_wrong_with_the_metrics() {
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
fn health_and_readiness_are_told() {
    let (daemon, http) = serve(&[]);
    let healthy = get(http, "/healthz");
    assert_eq!((healthy.status, healthy.body.as_str()), (200, r#"{"healthy":true,"stuck":[]}"#));
    let ready = get(http, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, r#"{"ready":true}"#));
    daemon.stop();
}

#[test]
fn the_status_says_what_is_wrong() {
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
fn a_stop_is_not_taken_for_a_stuck_task() {
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
fn drops_are_those_of_the_daemons_own_socket() {
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
fn events_tell_the_past_and_then_every_second() {
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
fn an_event_stream_passes_proxies_at_once_and_ends_for_the_next_one() {
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
fn a_client_is_shown_with_all_that_is_known_of_it() {
    let (daemon, http) = serve(&[]);
    let client = client_at(&daemon, "127.0.0.1");
    client.heartbeat(b"");
    let path = format!("/clients/{}", client.address());
    let shown = wait_for(http, &path, |json| json["heartbeats"] == 2);
    assert_eq!(shown["address"], client.address().to_string());
    assert_eq!((&shown["family"], &shown["muted"]), (&"ipv4".into(), &false.into()));
    assert!(shown["pings"].as_u64() >= Some(1));
    let expires = shown["expires_in_seconds"].as_f64().unwrap();
    assert!(expires > 120.0 - PATIENCE.as_secs_f64() && expires <= 120.0);
    let time = |name: &str| shown[name].as_str().unwrap().strip_suffix('Z').unwrap();
    assert!(time("first_seen") < time("last_heartbeat"), "{shown}");

    let listed = get(http, "/clients").json();
    assert_eq!(addresses(&listed), [client.address().to_string()]);
    let mapped = format!("/clients/%5B::ffff:127.0.0.1%5D:{}", client.address().port());
    assert_eq!(get(http, &mapped).json()["address"], client.address().to_string());
    assert_eq!(get(http, "/clients/127.0.0.1:1").status, 404);
    assert_eq!(get(http, "/clients/localhost:1").status, 400);
    assert_eq!(get(http, "/clients/%5B::1%5D:1").status, 404);
}

#[test]
fn of_an_address_that_is_no_client_it_is_told_whether_the_guard_refuses_it() {
    let (daemon, http) = serve(&[
        ("LOCAL_NETS", "none"),
        ("MAX_CLIENTS_PER_ADDRESS", "1"),
        ("REFUSE_NETS", "198.51.100.0/24"),
    ]);
    let _client = client_at(&daemon, "127.0.0.1");
    let second = Client::of(&daemon);
    let full = second.address().to_string();
    for (address, reason) in [
        ("198.51.100.7:5000", Some("refuse_nets")),
        ("203.0.113.7:53", Some("system_port")),
        ("203.0.113.7:7561", Some("daemon_port")),
        (&full, Some("max_clients_per_address")),
        ("[::ffff:203.0.113.7]:53", Some("system_port")),
        ("[::ffff:203.0.113.7]:5000", None),
        ("203.0.113.7:5000", None),
        ("[2001:db8::1]:5000", None),
    ] {
        let answer = get(http, &format!("/clients/{address}"));
        let json = answer.json();
        assert_eq!((answer.status, json["refused"]["reason"].as_str()), (404, reason), "{address}");
        assert!(json["error"].as_str().unwrap().ends_with("is not a client"), "{json}");
        let explains = |part: &str| json["refused"][part].as_str().is_some_and(|it| it.len() > 20);
        assert!(reason.is_none() || explains("summary") && explains("advice"), "{json}");
    }
    second.heartbeat(b"");
    daemon.wait_for_line("reason=\"max_clients_per_address\"");
}

#[test]
fn clients_are_found_by_network_and_listed_page_by_page() {
    let (daemon, http) = serve(&[]);
    let ips = ["127.0.0.1", "127.0.0.2", "127.0.1.1", "127.0.1.2", "127.0.1.3"];
    let clients = ips.map(|ip| client_at(&daemon, ip));
    for (more, client) in clients.iter().enumerate() {
        (0..more).for_each(|_| client.heartbeat(b""));
    }
    let heartbeats = "/clients?sort=heartbeats&order=desc&limit=1";
    wait_for(http, heartbeats, |page| page["clients"][0]["heartbeats"] == 5);
    let all: Vec<_> = clients.iter().map(|client| client.address().to_string()).collect();

    assert_eq!(addresses(&get(http, "/clients").json()), all);
    let network = get(http, "/clients?network=127.0.0.0/24").json();
    assert_eq!(addresses(&network), all[..2]);
    let by_heartbeats = get(http, "/clients?sort=heartbeats&order=desc").json();
    assert!(addresses(&by_heartbeats).iter().eq(all.iter().rev()));

    for order in ["asc", "desc"] {
        let first = format!("/clients?sort=heartbeats&order={order}&limit=2");
        let (mut path, mut found, mut pages) = (first.clone(), Vec::new(), 0);
        loop {
            let page = get(http, &path).json();
            found.extend(addresses(&page).into_iter().map(str::to_owned));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{first}&cursor={next}");
        }
        if order == "desc" {
            found.reverse();
        }
        assert_eq!((found, pages), (all.clone(), 3));
    }

    let everybody = get(http, "/clients?limit=all").json();
    let everybody: BTreeSet<_> = addresses(&everybody).into_iter().map(str::to_owned).collect();
    assert_eq!(everybody, all.iter().cloned().collect());
    let some = get(http, "/clients?limit=all&network=127.0.1.0/24").json();
    assert_eq!(addresses(&some).len(), 3);
    let mapped = get(http, "/clients?limit=all&network=::ffff:127.0.1.0/120").json();
    assert_eq!(addresses(&mapped).len(), 3);
}

#[test]
fn a_wrong_query_is_told_what_is_right() {
    let (_daemon, http) = serve(&[]);
    for (query, hint) in [
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=x", "1 to 1000"),
        ("sort=colour", "sort must be address"),
        ("order=up", "asc or desc"),
        ("network=127.0.0.1/33", "not a network"),
        ("network=0127.0.0.0/08", "leading zero"),
        ("network=::ffff:0:0/90", "IPv4 network instead"),
        ("cursor=nonsense", "cursor must be"),
        ("cursor=cGluZ3MgYXNjIDEgMTI3LjAuMC4xOjE", "another order"),
        ("limit=all&sort=pings", "limit=all"),
        ("limit=1&limit=2", "twice"),
        ("colour=red", "parameters"),
    ] {
        let answer = get(http, &format!("/clients?{query}"));
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && error.contains(hint), "{query}: {error}");
    }
    assert_eq!(get(http, "/prefixes?limit=0").status, 400);
    assert_eq!(get(http, "/nothing").status, 404);
    let post = request(http, "POST", "/metrics", "");
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD")));
    let head = request(http, "HEAD", "/metrics", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn prefixes_tell_where_clients_are_and_who_only_ever_sent_once() {
    let (daemon, http) = serve(&[]);
    let crowd: Vec<_> = ["127.0.5.1", "127.0.5.2", "127.0.5.3", "127.0.5.4"]
        .iter()
        .map(|ip| client_at(&daemon, ip))
        .collect();
    let _other = client_at(&daemon, "127.0.6.1");
    crowd[0].heartbeat(b"");
    let found =
        wait_for(http, "/prefixes", |json| json["prefixes"][0]["single_heartbeat_share"] == 0.75);
    let prefixes = found["prefixes"].as_array().unwrap();
    assert_eq!(prefixes[0]["prefix"], "127.0.5.0/24");
    assert_eq!((&prefixes[0]["clients"], &prefixes[0]["pings_per_second"]), (&4.into(), &4.into()));
    assert_eq!((&prefixes[1]["prefix"], prefixes.len()), (&"127.0.6.0/24".into(), 2));
    assert_eq!(get(http, "/prefixes?limit=1").json()["prefixes"].as_array().unwrap().len(), 1);
}

#[test]
fn beyond_this_machine_addresses_are_shown_for_the_token_only() {
    let all = [("HTTP_ADDR", "0.0.0.0:0")];
    let (_daemon, mut http) = serve(&all);
    http.set_ip([127, 0, 0, 1].into());
    for path in ["/clients", "/clients/127.0.0.1:5000", "/prefixes", "/clients?limit=all"] {
        assert_eq!(get(http, path).status, 403, "{path}");
    }
    assert_eq!(get(http, "/metrics").status, 200);

    let (_daemon, mut http) = serve(&[all[0], ("ADMIN_TOKEN", TOKEN)]);
    http.set_ip([127, 0, 0, 1].into());
    let refused = get(http, "/clients");
    assert_eq!((refused.status, refused.field("www-authenticate")), (401, Some("Bearer")));
    for (shown, status) in [(TOKEN, 200), ("correct-horse-battery-stapl", 401)] {
        let field = format!("Authorization: Bearer {shown}\r\n");
        assert_eq!(request(http, "GET", "/clients", &field).status, status);
    }
}

#[test]
fn wrong_tokens_are_counted_logged_and_answered_late() {
    const WRONG: usize = 20;
    let (daemon, mut http) = serve(&[("HTTP_ADDR", "0.0.0.0:0"), ("ADMIN_TOKEN", TOKEN)]);
    http.set_ip([127, 0, 0, 1].into());
    let authorized = |token: &str| {
        let field = format!("Authorization: Bearer {token}\r\n");
        request(http, "GET", "/clients", &field).status
    };
    let began = Instant::now();
    thread::scope(|scope| {
        for n in 0..WRONG {
            scope.spawn(move || {
                assert_eq!(authorized(&format!("guess-{n}")), 401);
                assert!(began.elapsed() >= Duration::from_secs(1), "a guess is answered late");
            });
        }
        let line = daemon.wait_for_line("wrong ADMIN_TOKEN");
        assert!(line.contains("peer=127.0.0.1:") && !line.contains("guess"), "{line}");
        assert_eq!(authorized(TOKEN), 200);
    });
    // A request without a token is no guess.
    assert_eq!(get(http, "/clients").status, 401);
    wait_for(http, "/status", |json| json["totals"]["wrong_tokens"] == WRONG);
    let metrics = get(http, "/metrics").body;
    assert!(metrics.contains(&format!("\nwakeupd_wrong_tokens_total {WRONG}\n")), "{metrics}");
    let seconds = began.elapsed().as_secs();
    let told = count(&daemon.lines(), "wrong ADMIN_TOKEN") as u64;
    assert!((1..=seconds + 1).contains(&told), "{told} lines in {seconds} s");
}

#[test]
fn a_name_of_somebody_elses_is_refused() {
    let (_daemon, http) = serve(&[("HTTP_HOSTS", "status.example")]);
    for (host, status) in
        [("evil.example", 421), ("localhost:7561", 200), ("status.example", 200), ("[::1]", 200)]
    {
        let answer = request(http, "GET", "/status", &format!("Host: {host}\r\n"));
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(raw(http, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").status, 400);
}

#[test]
fn answers_are_not_kept_framed_or_mistaken() {
    let (_daemon, http) = serve(&[]);
    for path in ["/status", "/metrics", "/nothing"] {
        let answer = get(http, path);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.field(name), Some(value), "{path}");
        }
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (_daemon, http) = serve(&[]);
    let large = format!("X-Large: {}\r\n", "x".repeat(20_000));
    assert_eq!(request(http, "GET", "/status", &large).status, 431);
    assert_eq!(request(http, "GET", "/status", &"X-Many: x\r\n".repeat(100)).status, 431);
    assert_eq!(get(http, "/status").status, 200);
}

#[test]
fn a_slow_request_ends_and_others_do_not_wait_for_it() {
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
fn who_takes_nothing_of_an_answer_is_left() {
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
fn without_an_address_there_is_no_endpoint() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "")]);
    let client = Client::of(&daemon);
    client.heartbeat(b"");
    client.ping();
    assert!(!daemon.stop().iter().any(|line| line.contains("HTTP") && line.contains("listening")));
}

#[test]
fn an_address_that_is_taken_is_an_error_that_says_what_to_do() {
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
fn a_request_that_is_under_way_does_not_hold_up_the_end() {
    let (mut daemon, http) = serve(&[]);
    let mut events = connect(http);
    events.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
    events.read_exact(&mut [0; 16]).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    let _ = events.read_to_end(&mut Vec::new());
}
