//! The networks with the most clients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::{Response, StatusCode};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::json;

use super::clients::{Parameters, limit};
use super::response::{Body, Failure, json};
use crate::clock;
use crate::engine::registry::{SHARDS, View};
use crate::shared::Shared;
use crate::status::Prefix;

/// The default number of prefixes.
const USUAL: usize = 20;

/// The maximum number of prefixes that are counted at a time. If the clients have no more prefixes than this,
/// all prefixes are found. Otherwise, every prefix with more than 1/8192 of the clients is found.
const CANDIDATES: usize = 8_192;

/// The networks with the most clients: /24s of IPv4 and /56s of IPv6.
pub(super) async fn list(
    shared: &Shared,
    parameters: &Parameters<'_>,
) -> Result<Response<Body>, Failure> {
    let mut shown = USUAL;
    for (name, value) in parameters {
        match name.as_ref() {
            "limit" => shown = limit(value)?,
            _ => {
                return Err(Failure::bad_request("unknown parameter: the only parameter is limit"));
            }
        }
    }
    // Clients behind a translator appear under the prefix that counts them.
    let prefix_of = |view: &View| {
        let ip = view.address.ip();
        prefix_of(shared.engine.guard().embedded(ip).map_or(ip, IpAddr::from))
    };
    let mut candidates = Candidates::default();
    for_each(shared, |view| candidates.add(prefix_of(view))).await;
    let mut tallies: HashMap<_, _> =
        candidates.0.into_keys().map(|prefix| (prefix, PingStats::default())).collect();
    for_each(shared, |view| {
        if let Some(tally) = tallies.get_mut(&prefix_of(view)) {
            tally.add(view);
        }
    })
    .await;
    let mut tallies: Vec<_> = tallies.into_iter().filter(|(_, tally)| tally.clients > 0).collect();
    tallies.sort_unstable_by_key(|(prefix, tally)| (std::cmp::Reverse(tally.clients), *prefix));
    tallies.truncate(shown);
    let prefixes = tallies.into_iter().map(|(prefix, tally)| tally.show(prefix));
    let prefixes: Vec<Prefix> = prefixes.collect();
    Ok(json(StatusCode::OK, &json!({ "prefixes": prefixes })))
}

async fn for_each(shared: &Shared, mut look: impl FnMut(&View)) {
    let mut views = Vec::new();
    for shard in 0..SHARDS {
        views.clear();
        shared.engine.registry().look_at(shard, clock::now(), |view| views.push(view));
        views.iter().for_each(&mut look);
        tokio::task::yield_now().await;
    }
}

fn prefix_of(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24).into()
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits() >> (128 - 56) << (128 - 56);
            Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 56).into()
        }
    }
}

/// The prefixes that can have the most clients, found in one pass without counting all prefixes (Misra and
/// Gries, Finding repeated elements, 1982).
#[derive(Debug, Default)]
struct Candidates(HashMap<IpNet, u64>);

impl Candidates {
    fn add(&mut self, prefix: IpNet) {
        if let Some(count) = self.0.get_mut(&prefix) {
            *count += 1;
        } else if self.0.len() < CANDIDATES {
            self.0.insert(prefix, 1);
        } else {
            self.0.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }
}

#[derive(Debug, Default)]
struct PingStats {
    clients: u64,
    muted: u64,
    single: u64,
}

impl PingStats {
    fn add(&mut self, view: &View) {
        self.clients += 1;
        self.muted += u64::from(view.is_muted);
        self.single += u64::from(view.heartbeats == 1);
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn show(&self, prefix: IpNet) -> Prefix {
        let Self { clients, muted, single } = *self;
        Prefix {
            prefix: prefix.to_string(),
            clients,
            pings_per_second: clients - muted,
            single_heartbeat_share: single as f64 / clients as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_prefix_is_found_among_many_others() {
        let mut candidates = Candidates::default();
        let crowd = prefix_of("192.0.2.77".parse().unwrap());
        let others = 40 * u32::try_from(CANDIDATES).unwrap();
        for other in 0..others {
            candidates.add(prefix_of(IpAddr::from(Ipv4Addr::from_bits(other << 8))));
            if other % 1_000 == 0 {
                candidates.add(crowd);
            }
        }
        assert!(candidates.0.contains_key(&crowd));
        assert!(candidates.0.len() <= CANDIDATES);
    }

    #[test]
    fn prefix_lengths_match_the_caps() {
        for (ip, prefix) in
            [("192.0.2.255", "192.0.2.0/24"), ("2001:db8:1:ffff::1", "2001:db8:1:ff00::/56")]
        {
            assert_eq!(prefix_of(ip.parse().unwrap()).to_string(), prefix);
        }
    }
}
