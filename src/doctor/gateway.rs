//! Checks whether a gateway, such as Docker's, hides the clients' addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::diagnosis::Diagnosis;
use super::running::{Ask, read};
use crate::catalogue::machine::CLIENTS_BEHIND_GATEWAY;
use crate::engine::guard::network;
use crate::output::counted;
use crate::status::{Client, Prefix, Status};

const CHECK: &str = "gateway";

/// Fewer clients than this can plausibly share an address without a gateway.
const FEW: u64 = 20;

/// The share of the clients, in percent, that the check treats as nearly all of them.
const NEARLY_ALL_PERCENT: u64 = 90;

#[derive(Debug, Deserialize)]
struct Prefixes {
    prefixes: Vec<Prefix>,
}

#[derive(Debug, Deserialize)]
struct Clients {
    clients: Vec<Client>,
}

/// The clients of a daemon and their distribution.
#[derive(Debug)]
pub(super) struct Crowd {
    /// The daemon's port.
    pub(super) port: u16,
    pub(super) total: u64,
    /// The percentage of the clients in the densest network.
    pub(super) densest_percent: u64,
    /// Some clients of that network.
    pub(super) sample: Vec<IpAddr>,
}

/// Queries the daemon for its clients. `status` is the daemon's status, or the reason why it is unknown.
pub(super) fn check(ask: Ask, status: &Result<Status, String>) -> Diagnosis {
    let status = status.as_ref().map_err(Clone::clone);
    match status.and_then(|status| look(ask, status)) {
        Ok(crowd) => judge(&crowd),
        Err(error) => Diagnosis::unknown(CHECK, error),
    }
}

fn look(ask: Ask, status: &Status) -> Result<Crowd, String> {
    let (port, total) = (status.address.port(), status.clients.total() as u64);
    let densest = read::<Prefixes>(ask, "/prefixes?limit=1")?.prefixes.pop();
    let Some(Prefix { prefix, clients, .. }) = densest else {
        return Ok(Crowd { port, total, densest_percent: 0, sample: Vec::new() });
    };
    // Only a valid network may go into the next request's path.
    let network = network(&prefix).map_err(|error| error.to_string())?;
    let sample: Clients = read(ask, &format!("/clients?network={network}&limit=1000"))?;
    let sample = sample.clients.into_iter().map(|client| client.address.ip()).collect();
    Ok(Crowd { port, total, densest_percent: clients.saturating_mul(100) / total.max(1), sample })
}

pub(super) fn judge(crowd: &Crowd) -> Diagnosis {
    let Crowd { port, total, densest_percent, sample } = crowd;
    if *total < FEW {
        return Diagnosis::ok(
            CHECK,
            format!("{}, too few to recognize a gateway", counted(*total, "client", "clients")),
        );
    }
    let mut counts = HashMap::new();
    for ip in sample {
        *counts.entry(*ip).or_insert(0_u64) += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    let is_nearly_all = |count: u64| count * 100 >= sample.len() as u64 * NEARLY_ALL_PERCENT;
    match most {
        Some((ip, count))
            if *densest_percent >= NEARLY_ALL_PERCENT && is_nearly_all(count) && is_private(ip) =>
        {
            Diagnosis::finding(
                CHECK,
                CLIENTS_BEHIND_GATEWAY.with(&[("clients", total), ("ip", &ip), ("port", port)]),
            )
        }
        _ => Diagnosis::ok(CHECK, format!("the {total} clients do not share a private address")),
    }
}

/// Whether an address belongs to a private network. Loopback addresses do not.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Outcome;
    use super::super::running::fake;
    use super::*;

    fn judged(total: u64, densest_percent: u64, sample: &[(&str, usize)]) -> Outcome {
        let ips = sample.iter().flat_map(|(ip, count)| vec![ip.parse().unwrap(); *count]);
        judge(&Crowd { port: 7561, total, densest_percent, sample: ips.collect() }).result
    }

    #[test]
    fn many_clients_at_one_private_address_are_a_finding() {
        for (total, percent, sample, outcome) in [
            (0, 0, &[][..], Outcome::Ok),
            (19, 100, &[("172.17.0.1", 19)], Outcome::Ok),
            (20, 100, &[("172.17.0.1", 20)], Outcome::Finding),
            (5_000, 90, &[("172.17.0.1", 900), ("172.17.0.2", 100)], Outcome::Finding),
            (5_000, 89, &[("172.17.0.1", 1_000)], Outcome::Ok),
            (5_000, 99, &[("172.17.0.1", 890), ("172.17.0.2", 110)], Outcome::Ok),
            (5_000, 99, &[("fd00::1", 1_000)], Outcome::Finding),
            (5_000, 99, &[("203.0.113.1", 1_000)], Outcome::Ok),
            (5_000, 99, &[("127.0.0.1", 1_000)], Outcome::Ok),
            (5_000, 99, &[], Outcome::Ok),
        ] {
            assert_eq!(judged(total, percent, sample), outcome, "{total} {percent} {sample:?}");
        }
    }

    #[test]
    fn the_densest_prefix_of_the_daemon_is_queried() {
        let status =
            || serde_json::from_value(fake(7561, 30, 0)).map_err(|error| error.to_string());
        let answers = |prefixes: &'static str, clients: &'static str| {
            let ask = move |path: &str| match path {
                "/prefixes?limit=1" => Ok(prefixes.into()),
                "/clients?network=172.17.0.0/24&limit=1000" => Ok(clients.into()),
                other => Err(format!("{other} is not there")),
            };
            check(&ask, &status()).result
        };
        let prefixes = r#"{"prefixes":[{"prefix":"172.17.0.0/24","clients":29,
            "pings_per_second":29,"single_heartbeat_share":0}]}"#;
        let clients = r#"{"next":null,"clients":[{"address":"172.17.0.1:5000","family":"ipv4",
            "first_seen":"2026-11-21T18:00:00Z","last_heartbeat":"2026-11-21T18:00:00.000Z",
            "heartbeats":1,"pings":1,"muted":false,"expires_in_seconds":1}]}"#;
        assert_eq!(answers(prefixes, clients), Outcome::Finding);
        assert_eq!(answers(r#"{"prefixes":[]}"#, ""), Outcome::Ok);
        for (prefixes, clients) in [
            ("", clients),
            (prefixes, "{}"),
            (
                r#"{"prefixes":[{"prefix":"10.0.0.0/8&limit=all","clients":29,
                "pings_per_second":29,"single_heartbeat_share":0}]}"#,
                clients,
            ),
        ] {
            assert_eq!(answers(prefixes, clients), Outcome::Unknown);
        }
        let gone = check(&|path| Err(path.to_owned()), &Err("it is gone".to_owned()));
        assert_eq!((gone.result, gone.seen.as_str()), (Outcome::Unknown, "it is gone"));
    }
}
