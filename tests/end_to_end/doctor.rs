//! `wakeupd doctor`.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, id};
use std::time::Instant;

use serde_json::Value;

use crate::support::daemon::{Client, Daemon, PATIENCE, PROGRAM, SERVING, output, wakeupd};
use crate::support::needs::Need;
use crate::support::network::{Host, NEEDS};

/// An environment in which the doctor queries no other daemon's endpoint.
pub const QUIET: [(&str, &str); 1] = [("HTTP_ADDR", "")];

/// Runs a command as the doctor, checks its exit code, and returns the diagnosis of each check.
pub fn diagnoses(command: &mut Command) -> Vec<Value> {
    let (status, stdout, stderr) = output(command.args(["doctor", "--json"]));
    let diagnoses: Vec<Value> = serde_json::from_str(&stdout).expect(&stderr);
    let is_finding = |diagnosis: &Value| diagnosis["result"] == "finding";
    let code = i32::from(diagnoses.iter().any(is_finding));
    assert_eq!((status.code(), stderr.as_str()), (Some(code), ""), "{stdout}");
    for diagnosis in &diagnoses {
        for told in ["id", "severity", "why", "mend", "more"] {
            assert_eq!(diagnosis[told].is_string(), is_finding(diagnosis), "{diagnosis}");
        }
    }
    diagnoses
}

/// The result of a check, and the observation behind it.
pub fn check<'a>(all: &'a [Value], name: &str) -> (&'a str, &'a str) {
    let told = of(all, name);
    (told["result"].as_str().unwrap(), told["seen"].as_str().unwrap())
}

/// The diagnosis of a check.
pub fn of<'a>(all: &'a [Value], name: &str) -> &'a Value {
    all.iter().find(|diagnosis| diagnosis["check"] == name).expect(name)
}

/// A command that execs the program after some preparation in a shell.
pub fn after(preparation: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{preparation} && exec \"$0\" \"$@\"");
    command
        .env_clear()
        .env("ENV_FILE", "none")
        .envs(variables.iter().copied())
        .args(["-c", &script, PROGRAM]);
    command
}

#[test]
fn another_holder_of_the_port_is_a_finding() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    for host in ["127.0.0.1", "0.0.0.0", "::"] {
        let diagnoses =
            diagnoses(&mut wakeupd(&[("HOST", host), ("PORT", &port), ("HTTP_ADDR", "")]));
        let (result, seen) = check(&diagnoses, "port");
        assert_eq!(result, "finding", "HOST={host}: {seen}");
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        let holder =
            format!("UDP port {port} of {host} is in use by {}, pid {}", comm.trim(), id());
        assert!(seen.starts_with(&holder), "{seen}");
    }
}

#[test]
fn a_daemon_may_hold_the_port_and_its_own_limits_are_checked() {
    for (limit, expected) in [("40", "finding"), ("90", "ok")] {
        let daemon = Daemon::start_command(&mut after(&format!("ulimit -n {limit}"), &SERVING));
        // The daemon runs with PORT=0, but the doctor needs the actual port.
        let port = daemon.address.port().to_string();
        let diagnoses = diagnoses(wakeupd(&SERVING).env("PORT", port));
        let (result, seen) = check(&diagnoses, "port");
        assert!(result == "ok" && seen.starts_with("wakeupd holds UDP port"), "{seen}");
        let (_, pid) = seen.split_once("pid ").unwrap();
        let (result, seen) = check(&diagnoses, "open files");
        let limited = format!("of the running wakeupd (pid {pid}) is {limit}, ");
        assert!(result == expected && seen.contains(&limited), "{seen}");
        assert!(seen.trim_end_matches('.').ends_with("needs up to 42 open files"), "{seen}");
        let (result, seen) = check(&diagnoses, "settings");
        assert!(
            result == "unknown" && seen.contains("has PORT=0, unlike the doctor: run"),
            "{seen}"
        );
        for unasked in ["running daemon", "gateway"] {
            let (result, seen) = check(&diagnoses, unasked);
            assert!(result == "unknown" && seen.starts_with("HTTP_ADDR is none"), "{seen}");
        }
        daemon.stop();
    }
}

#[test]
fn a_port_holder_that_cannot_be_inspected_is_no_finding() {
    require!([Need::Root, Need::Program("setpriv")]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--reuid=65533", "--clear-groups"]);
    command.env_clear().env("ENV_FILE", "none").envs(SERVING).env("PORT", &port);
    let diagnoses = diagnoses(command.arg(PROGRAM));
    let (result, seen) = check(&diagnoses, "port");
    assert!(result == "unknown" && seen.contains("in use by a process of user 0"), "{seen}");
}

#[test]
fn small_limits_are_findings() {
    let started = |preparation| diagnoses(&mut after(preparation, &QUIET));
    let few = started("ulimit -n 20");
    assert_eq!(
        check(&few, "open files"),
        (
            "finding",
            "The limit on open files of a wakeupd started from here is 20, but the daemon needs up to 42 open files."
        )
    );
    assert_eq!(check(&started("ulimit -n 100"), "open files").0, "ok");
    let diagnoses = diagnoses(&mut after("ulimit -n 100", &[("HTTP_ADDR", "127.0.0.1:0")]));
    let (result, seen) = check(&diagnoses, "open files");
    assert!(result == "finding" && seen.ends_with("needs up to 170 open files."), "{seen}");
    for (clients, expected) in [("1000000", "ok"), ("10000000", "finding")] {
        let mut command = after("ulimit -d 400000", &QUIET);
        let diagnoses = self::diagnoses(command.env("MAX_CLIENTS", clients));
        assert_eq!(check(&diagnoses, "memory").0, expected);
    }
}

#[test]
fn timer_slack_is_a_finding() {
    let diagnoses = diagnoses(&mut after("echo 40000000 > /proc/self/timerslack_ns", &QUIET));
    // The shell sets its own slack, and then execs the program.
    let (result, seen) = check(&diagnoses, "timers");
    assert!(result == "finding" && seen.contains("wake up to 40ms late"), "{seen}");
}

#[test]
fn the_text_report_matches_the_json_report() {
    let variables = [("HOST", "nowhere.invalid"), ("HTTP_ADDR", ""), ("LOGLEVEL", "x")];
    let diagnoses = diagnoses(&mut wakeupd(&variables));
    assert_eq!(check(&diagnoses, "addresses").0, "finding");
    assert_eq!(check(&diagnoses, "settings").0, "finding");
    let (status, stdout, stderr) = output(wakeupd(&variables).arg("doctor"));
    assert_eq!((status.code(), stderr.as_str()), (Some(1), ""), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "colours are for terminals only");
    for diagnosis in &diagnoses {
        let name = diagnosis["check"].as_str().unwrap();
        let label = match diagnosis["result"].as_str().unwrap() {
            "finding" => "FINDING",
            other => other,
        };
        assert!(stdout.contains(&format!("{label:<8} {name}: ")), "{label} {name}: {stdout}");
    }
    assert!(stdout.lines().last().unwrap().contains(" finding"), "{stdout}");
}

#[test]
fn an_invalid_environment_exits_with_code_78() {
    let (status, stdout, stderr) = output(wakeupd(&[("PORT", "x")]).args(["doctor", "--json"]));
    assert_eq!((status.code(), stdout.as_str()), (Some(78), ""));
    assert!(stderr.contains("PORT=\"x\" must be"), "{stderr}");
    let (status, ..) = output(wakeupd(&[]).args(["doctor", "--jason"]));
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_strict_reverse_path_filter_matters_with_two_interfaces() {
    require!(NEEDS);
    let (server, client) = (Host::new(), Host::new());
    server.wire("one", &client, "one");
    server.run("ip address add 10.9.0.1/24 dev one");
    let filter = |host: &str, strict: &str| {
        server.run(&format!("echo {strict} > /proc/sys/net/ipv4/conf/one/rp_filter"));
        let diagnoses = diagnoses(
            server.command(PROGRAM).env_clear().env("ENV_FILE", "none").env("HOST", host),
        );
        let (result, seen) = check(&diagnoses, "reverse path filter");
        (result.to_owned(), seen.to_owned())
    };
    let (ok, finding) = ("ok".to_owned(), "finding".to_owned());
    server.run("echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
    assert_eq!(
        filter("0.0.0.0", "1"),
        (ok.clone(), "the filter is strict, but one is the only interface".into())
    );
    server.wire("two", &client, "two");
    // An address label is not an interface name.
    server.run("ip address add 10.9.1.1/24 dev two label two:1");
    let (result, seen) = filter("0.0.0.0", "1");
    assert_eq!(result, finding);
    assert!(
        seen.contains("on one, and heartbeats can arrive on several interfaces: one and two."),
        "{seen}"
    );
    assert_eq!(filter("::", "1").0, finding);
    assert_eq!(filter("127.0.0.1", "1").0, ok);
    assert_eq!(filter("0.0.0.0", "2").0, ok);
    assert_eq!(filter("0.0.0.0", "0").0, ok);
    server.run("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
    assert_eq!(filter("0.0.0.0", "0").0, finding);
    // This is the remedy.
    server.run("echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter");
    assert_eq!(filter("0.0.0.0", "1").0, ok);
}

#[test]
fn a_small_conntrack_table_is_a_finding_and_can_be_bypassed() {
    require!(NEEDS, [Need::Program("nft")]);
    let (server, client) = (Host::new(), Host::new());
    server.wire("wire", &client, "wire");
    client.run("ip address add 10.9.0.9/24 dev wire");
    server.run(
        "ip address add 10.9.0.1/24 dev wire
         nft add table ip filter
         nft add chain ip filter in '{ type filter hook input priority 0; }'
         nft add rule ip filter in ct state invalid drop",
    );
    // The datagrams need no receiver.
    let visit = |port: u16| {
        let open = || UdpSocket::bind("0.0.0.0:0").unwrap();
        for socket in client.within(|| [open(), open(), open()]) {
            socket.send_to(&[], SocketAddr::from(([10, 9, 0, 1], port))).unwrap();
        }
    };
    let connections = || {
        let (_, count, _) =
            output(server.command("cat").arg("/proc/sys/net/netfilter/nf_conntrack_count"));
        count.trim().parse::<u32>().unwrap()
    };
    let doctor = |clients| {
        let mut command = server.command(PROGRAM);
        diagnoses(
            command
                .env_clear()
                .env("ENV_FILE", "none")
                .envs([("PORT", "7000"), ("MAX_CLIENTS", clients)]),
        )
    };
    let name = "connection tracking";
    assert_eq!(check(&doctor("100000000"), name).0, "ok");
    visit(7_000);
    let tracked = connections();
    assert!(tracked >= 3, "{tracked}");
    assert_eq!(check(&doctor("1"), name).0, "ok");
    let diagnoses = doctor("100000000");
    let (result, seen) = check(&diagnoses, name);
    assert!(result == "finding" && seen.ends_with(" but MAX_CLIENTS is 100000000."), "{seen}");

    let mend = of(&diagnoses, name)["mend"].as_str().unwrap();
    let bypass = mend.lines().last().unwrap().strip_prefix("sudo ").unwrap();
    // The command is idempotent.
    server.run(bypass);
    let rules = || output(server.command("nft").args(["list", "table", "inet", "wakeupd"])).1;
    let once = rules();
    server.run(bypass);
    assert_eq!(rules(), once);
    visit(7_000);
    let untracked = connections();
    assert!(untracked <= tracked, "the port is not tracked");
    visit(7_001);
    assert!(connections() > untracked, "other ports are tracked");
}

#[test]
fn the_running_daemon_is_queried() {
    require!(NEEDS);
    let (server, gateway) = (Host::new(), Host::new());
    server.wire("wire", &gateway, "wire");
    server.run("ip address add 10.9.0.1/24 dev wire");
    gateway.run("ip address add 10.9.0.9/24 dev wire");
    let doctor = |variables: &[(&str, &str)]| {
        let mut command = server.command(PROGRAM);
        diagnoses(command.env_clear().env("ENV_FILE", "none").envs(variables.iter().copied()))
    };
    let elsewhere = doctor(&[("HOST", "10.9.0.2"), ("HTTP_ADDR", "10.9.0.2:7561")]);
    for bound in ["addresses", "HTTP port"] {
        let (result, seen) = check(&elsewhere, bound);
        assert!(result == "finding" && seen.starts_with("The address 10.9.0.2 of H"), "{seen}");
    }
    let before = doctor(&[]);
    for port in ["port", "HTTP port"] {
        let (result, seen) = check(&before, port);
        assert!(result == "ok" && seen.ends_with(" is free"), "{seen}");
    }
    for unasked in ["running daemon", "gateway"] {
        let (result, seen) = check(&before, unasked);
        assert!(
            result == "unknown" && seen.ends_with("no wakeupd runs here with these settings"),
            "{seen}"
        );
    }

    let variables = [("HOST", "0.0.0.0"), ("HTTP_ADDR", "127.0.0.1:7561")];
    let daemon = server.serve(&variables);
    daemon.wait_for_line("listening for HTTP");
    let clients: Vec<_> = gateway.within(|| {
        let open = |_| UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..30)
            .map(open)
            .map(|socket| Client::new(socket, "10.9.0.1:7561".parse().unwrap()))
            .collect()
    });
    for client in &clients {
        client.heartbeat(&[]);
    }
    clients.iter().for_each(Client::ping);
    // The daemon counts its clients once a second.
    let deadline = Instant::now() + PATIENCE;
    let all = loop {
        let all = doctor(&variables);
        if check(&all, "gateway").1.contains("30 clients") || Instant::now() > deadline {
            break all;
        }
    };
    let (result, seen) = check(&all, "gateway");
    let expected = "Nearly all of the 30 clients have the private address 10.9.0.9, ";
    assert!(result == "finding" && seen.starts_with(expected), "{seen}");
    for port in ["port", "HTTP port"] {
        let (result, seen) = check(&all, port);
        assert!(result == "ok" && seen.starts_with("wakeupd holds "), "{seen}");
    }
    assert_eq!(check(&all, "settings").0, "ok");
    assert_ne!(check(&all, "running daemon").0, "unknown");
    let seen = check(&all, "receive buffer").1;
    assert!(
        seen.contains("running wakeupd has ") || seen.contains(" the daemon requests"),
        "{seen}"
    );

    // A second daemon would have its own UDP port, but not its own HTTP port.
    let diagnoses = doctor(&[("PORT", "7000")]);
    let (result, seen) = check(&diagnoses, "HTTP port");
    assert!(result == "finding" && seen.contains("is in use by wakeupd, pid "), "{seen}");
    daemon.stop();
}
