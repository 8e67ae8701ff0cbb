//! Clients and networks as JSON.

use std::collections::BTreeSet;

use crate::http::{addresses, client_at, serve};
use crate::support::daemon::{Client, PATIENCE};
use crate::support::web::{get, request, wait_for};

#[test]
fn a_client_is_shown_with_all_its_fields() {
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
fn an_unknown_address_is_shown_with_the_reason_for_its_refusal() {
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
fn clients_are_filtered_by_network_and_paginated() {
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
fn an_invalid_query_is_rejected_with_a_hint() {
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
        ("cursor=cGluZ3MgYXNjIDEgMTI3LjAuMC4xOjE", "another sort or order"),
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
fn prefixes_have_client_counts_and_single_heartbeat_shares() {
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
