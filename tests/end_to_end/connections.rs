//! More connections to the endpoint than it accepts.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::daemon::{Daemon, PATIENCE, PROGRAM, count, output, wakeupd};
use crate::support::network::NEEDS;
use crate::support::scene::{PORT, SERVER, Scene, address, at, undisturbed};
use crate::support::web::{connect, get};
use crate::support::witness::Witness;

const STREAM: &str = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The requests on connections that are then held open.
const REQUESTS: [(&str, &str); 4] = [
    ("silent", ""),
    ("half a head", "GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
    ("event stream", STREAM),
    ("idle after an answer", "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
];

/// The cap on event streams per address.
const MOST_STREAMS: usize = 16;

/// More connections than the endpoint accepts in total.
const MANY: usize = 150;

/// Sends `request` and keeps the connection open. The daemon may close it at any time.
fn hold(mut stream: TcpStream, request: &str) -> TcpStream {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = stream.write_all(request.as_bytes());
    stream
}

/// A connection from this address of the host.
fn connect_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// The status of the first response, or `None` if the daemon closed the connection.
fn answer(stream: &TcpStream) -> Option<u16> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn expect_answers(http: SocketAddr, among: &str) {
    for path in ["/healthz", "/metrics", "/status"] {
        assert_eq!(get(http, path).status, 200, "{path} among {among}");
    }
}

#[test]
fn health_is_answered_despite_connections_held_by_local_users() {
    let _undisturbed = undisturbed();
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http();
    let witness = Witness::of(&daemon);
    let pipelined = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000);
    let unread = ("answers that are not read", pipelined.as_str());
    let began = Instant::now();
    let mut held = Vec::new();
    for (name, request) in REQUESTS.into_iter().chain([unread]) {
        let many = if name == unread.0 { MOST_STREAMS } else { MANY };
        held.extend((0..many).map(|_| hold(connect(http), request)));
        expect_answers(http, name);
        let mut check = wakeupd(&[("HTTP_ADDR", &http.to_string())]);
        let (status, stdout, stderr) = output(check.arg("healthcheck"));
        assert!(status.success(), "{name}: {stdout}{stderr}");
    }
    let told = count(&daemon.lines(), "too many HTTP connections") as u64;
    assert!((1..=began.elapsed().as_secs() + 2).contains(&told), "{:#?}", daemon.lines());
    witness.missed_nothing(&daemon);
}

#[test]
fn event_streams_leave_room_for_other_requests() {
    let daemon = Daemon::start(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let http = daemon.http();
    let streams: Vec<_> = (0..MOST_STREAMS).map(|_| hold(connect(http), STREAM)).collect();
    let answers: Vec<_> = streams.iter().map(answer).collect();
    assert_eq!(answers, [Some(200); MOST_STREAMS]);
    let refused = get(http, "/events");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("too many event streams"), "{}", refused.body);
    expect_answers(http, "event streams");
    drop(streams);
    let deadline = Instant::now() + PATIENCE;
    while answer(&hold(connect(http), STREAM)) != Some(200) {
        assert!(Instant::now() < deadline, "a new stream is refused although none is open");
    }
}

#[test]
fn strangers_cannot_shut_out_other_machines_or_health_checks() {
    require!(NEEDS);
    let scene = Scene::new(&[("HTTP_ADDR", "0.0.0.0:7561")]);
    let strangers = [101, 102, 103, 104, 105, 106].map(|n| Ipv4Addr::new(192, 0, 2, n));
    for stranger in strangers {
        scene.client.run(&format!("ip address add {stranger}/24 dev wire"));
    }
    let http = address(SERVER);
    scene.client.within(|| {
        let mut held = Vec::new();
        for (name, request) in REQUESTS {
            for stranger in strangers {
                held.extend((0..40).map(|_| hold(connect_from(stranger, http), request)));
            }
            // A newcomer gets a stream, although strangers hold all of them.
            if request == STREAM {
                assert_eq!(answer(&hold(connect(http), STREAM)), Some(200));
            }
            expect_answers(http, name);
            let mut check = scene.server.command(PROGRAM);
            check.env_clear().args(["healthcheck", "--http-addr", "127.0.0.1:7561"]);
            let (status, stdout, stderr) = output(&mut check);
            assert!(status.success(), "{name}: {stdout}{stderr}");
        }
    });
    let loopback = at("127.0.0.1", PORT);
    scene.server.within(|| assert_eq!(answer(&hold(connect(loopback), STREAM)), Some(200)));
    let lines = scene.end();
    assert!(count(&lines, "too many HTTP connections") > 0, "{lines:#?}");
}
