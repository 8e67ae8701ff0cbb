//! Provokes each problem of the machine.

use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::addresses::{Local, judge as judge_addresses};
use super::buffers::Facts;
use super::conntrack::Table;
use super::gateway::Crowd;
use super::reverse_path::Interface;
use super::sockets::Process;
use super::*;
use crate::catalogue::Problem;
use crate::catalogue::machine::{
    ALL, RECEIVE_BUFFER_OUTDATED, RECEIVE_BUFFER_SMALL, SEND_BUFFER_OUTDATED, SEND_BUFFER_SMALL,
};
use crate::config::Misspelt;
use crate::machine::fake::Fake;
use crate::memory::{Limit, Needs};
use crate::status::{SocketBuffer, Status};

fn config(name: &str, value: &str) -> (Config, Vec<Misspelt>) {
    Config::from_vars([(OsString::from(name), OsString::from(value))]).unwrap()
}

fn misspelt() -> Vec<Diagnosis> {
    let (config, misspelt) = config("LOGLEVEL", "DEBUG");
    let loaded = Loaded { config, misspelt, file: None };
    vec![settings::check(&loaded, None)]
}

fn ports() -> Vec<Diagnosis> {
    let address = ([0, 0, 0, 0], 53).into();
    let port = Port { check: "port", variable: "PORT", protocol: Protocol::Udp, address };
    let held = ["named", "docker-proxy", "systemd"].map(|name| {
        let process = Process { pid: 7, name: name.to_owned(), is_wakeupd: false };
        port::judge(port, &Ok(Holder::Processes(vec![process])), |_| false)
    });
    let refused = [ErrorKind::PermissionDenied, ErrorKind::AddrInUse]
        .map(|kind| port::judge_attempt(port, &Err(kind.into()), false).unwrap());
    held.into_iter().chain(refused).collect()
}

/// `HTTP_ADDR` is an address of the documentation, which no machine has.
fn http_address() -> Vec<Diagnosis> {
    let (config, _) = config("HTTP_ADDR", "192.0.2.1:7561");
    vec![http_port(&Machine::new("/"), &config, None, User::nobody())]
}

fn files() -> Vec<Diagnosis> {
    let (config, _) = config("SNAPSHOT_PATH", "/data/snapshot");
    let mounted = Fake::new(&[("proc/self/mountinfo", "1 2 3 / /data/snapshot rw")]);
    let user = User::nobody();
    vec![
        files::judge_snapshot(Path::new("/data"), user, Err(Errno::ENOSPC.into())),
        files::check_snapshot(&mounted.0, &Paths::new(&config, None), user),
        files::judge_deny_file("/etc/deny", user, Err(Errno::EACCES.into())),
    ]
}

fn daemon() -> Vec<Diagnosis> {
    let reported = ["critical", "warning"].map(|severity| {
        let mut status = running::fake(7561, 5, 800);
        status["findings"] = serde_json::json!([{"id": "stuck", "severity": severity,
            "summary": "It is stuck.", "advice": "Restart it.", "more": ""}]);
        running::judge(&Ok(serde_json::from_value::<Status>(status).unwrap()))
    });
    let sample: IpAddr = [172, 17, 0, 1].into();
    let crowd = Crowd { port: 7561, total: 30, densest_percent: 100, sample: vec![sample; 30] };
    reported.into_iter().chain([gateway::judge(&crowd)]).collect()
}

fn addresses() -> Vec<Diagnosis> {
    let judged = |name: &str, ips: &[&str], bind: io::Result<()>| {
        let all: Vec<_> = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 7561)).collect();
        let host = Host::new(&all).ok_or_else(|| Error::other("unknown name"));
        judge_addresses(name, &host, &bind, &Ok(Vec::<Local>::new()))
    };
    vec![
        judged("nowhere", &[], Ok(())),
        judged("192.0.2.1", &["192.0.2.1"], Err(ErrorKind::AddrNotAvailable.into())),
        judged("both", &["192.0.2.1", "192.0.2.2"], Ok(())),
        judged("box", &["127.0.1.1"], Ok(())),
    ]
}

fn network() -> Vec<Diagnosis> {
    let strict = |name: &str| Interface { name: name.to_owned(), filter: 1 };
    let tracked = |count| {
        let served = Served { port: 7561, most: 200_000, now: None };
        conntrack::judge(Some(Table { count, limit: 1_000 }), served)
    };
    vec![reverse_path::judge(&["eth0", "eth1"].map(strict)), tracked(1), tracked(900)]
}

fn buffers() -> Vec<Diagnosis> {
    let judged = |buffer, outdated, limit| {
        buffers::judge(Facts {
            check: "buffer",
            buffer,
            outdated,
            wanted: 800,
            told: Some(400),
            granted: Ok(800),
            limit: Ok(Some(limit)),
            is_privileged: false,
        })
    };
    [400, 800]
        .into_iter()
        .flat_map(|limit| {
            [
                judged(SocketBuffer::RECEIVE, RECEIVE_BUFFER_OUTDATED, limit),
                judged(SocketBuffer::SEND, SEND_BUFFER_OUTDATED, limit),
            ]
        })
        .collect()
}

fn limits() -> Vec<Diagnosis> {
    let subject = Subject { daemon: None };
    let needs = Needs { clients: 200_000, is_ipv6: false, has_snapshots: false, workers: 1 };
    let memory = |bytes, raise| {
        let bound = Limit { name: "the limit", bytes, taken: 0, raise };
        limits::judge_memory(&[bound], subject, needs)
    };
    vec![
        limits::judge_files(Some(5), subject, 10),
        memory(40_000_000, Some("by hand")),
        memory(30_000_000, Some("by hand")),
        memory(40_000_000, None),
    ]
}

fn clocks() -> Vec<Diagnosis> {
    let ms = Duration::from_millis;
    vec![
        clocks::judge_source("hpet", "tsc hpet"),
        clocks::judge_source("hpet", "hpet"),
        clocks::judge_timers(ms(4), None),
        clocks::judge_timers(ms(0), Some(ms(50))),
        clocks::judge_wall(Duration::ZERO, false, None),
    ]
}

#[test]
fn each_problem_is_reported() {
    let groups =
        [misspelt, ports, http_address, files, daemon, addresses, network, buffers, limits, clocks];
    let diagnoses = groups.iter().flat_map(|provoke| provoke());
    let provoked: Vec<Problem> = diagnoses
        .map(|diagnosis| {
            diagnosis.problem.as_ref().unwrap_or_else(|| panic!("{diagnosis:?}")).problem
        })
        .collect();
    for problem in &provoked {
        assert!(ALL.contains(problem), "not in the catalogue: {problem:?}");
    }
    for problem in ALL {
        assert!(provoked.contains(problem), "no test provokes {problem:?}");
    }
    assert!([RECEIVE_BUFFER_SMALL, SEND_BUFFER_SMALL].iter().all(|it| provoked.contains(it)));
}
