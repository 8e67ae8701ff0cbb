//! The token, host names and headers of the HTTP endpoint.

use std::thread;
use std::time::{Duration, Instant};

use crate::http::{TOKEN, serve};
use crate::support::daemon::count;
use crate::support::web::{get, raw, request, wait_for};

#[test]
fn remote_access_to_client_addresses_requires_the_token() {
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
fn wrong_tokens_are_counted_logged_and_delayed() {
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
fn a_foreign_host_name_is_refused() {
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
fn responses_have_security_headers() {
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
