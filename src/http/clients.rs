//! Lists the clients.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use ipnet::IpNet;
use serde::Serialize;

use super::response::{Body, Failure, json};
use crate::clock::{self, Time};
use crate::engine::guard;
use crate::engine::registry::{SHARDS, View};
use crate::net;
use crate::sampler::rfc3339;
use crate::shared::Shared;
use crate::status::{Client, Refusal};

pub(super) type Parameters<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// The maximum number of clients per page.
const MOST: usize = 1_000;

/// The default number of clients per page.
const USUAL: usize = 100;

/// The number of clients per chunk of an unlimited listing.
const PIECE: usize = 512;

/// A page of clients, and the cursor of the next page.
#[derive(Debug, Serialize)]
struct Page {
    clients: Vec<Client>,
    next: Option<String>,
}

/// The response for an address that is not a client.
#[derive(Debug, Serialize)]
struct NoClient {
    error: String,
    /// Why the guard would refuse a heartbeat from the address. `None` if the guard would accept it.
    refused: Option<Refusal>,
}

/// The times and the expiration needed to show a client.
#[derive(Clone, Copy)]
struct Instant {
    now: Time,
    wall: Time,
    expiration: Duration,
}

impl Instant {
    fn of(shared: &Shared) -> Self {
        Self {
            now: clock::now(),
            wall: clock::wall(),
            expiration: shared.engine.registry().expiration(),
        }
    }

    fn show(self, view: View) -> Client {
        let wall = |time| self.wall.before(self.now.since(time));
        let last_heartbeat = wall(view.last_heartbeat);
        let expires = view.last_heartbeat + self.expiration;
        Client {
            address: view.address,
            family: if view.address.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned(),
            // Truncated to a second in the registry and again here: half a second makes it round, but
            // never past the last heartbeat.
            first_seen: rfc3339::seconds(
                (wall(view.first_seen) + Duration::from_millis(500)).min(last_heartbeat),
            ),
            last_heartbeat: rfc3339::millis(last_heartbeat),
            heartbeats: view.heartbeats,
            pings: view.pings,
            muted: view.is_muted,
            expires_in_seconds: expires.since(self.now).as_secs_f64(),
        }
    }
}

/// The response with one client.
pub(super) fn one(shared: &Shared, address: &str) -> Result<Response<Body>, Failure> {
    let address = address.parse().map(net::canonical).map_err(|_| {
        Failure::bad_request(
            "invalid client address: write an IP address and a port, such as 192.0.2.1:5000, [2001:db8::1]:5000 or, with the number of the interface, [fe80::1%2]:5000",
        )
    })?;
    let instant = Instant::of(shared);
    if let Some(view) = shared.engine.registry().view(address, instant.now) {
        return Ok(json(StatusCode::OK, &instant.show(view)));
    }
    let refused = shared.engine.guard().would_admit(address).err().map(Refusal::from);
    let error = format!("{address} is not a client");
    Ok(json(StatusCode::NOT_FOUND, &NoClient { error, refused }))
}

/// A page of clients, or all of them.
pub(super) async fn list(
    shared: &Arc<Shared>,
    parameters: &Parameters<'_>,
) -> Result<Response<Body>, Failure> {
    let query = Query::read(parameters)?;
    let Some(limit) = query.limit else {
        return Ok(stream(Arc::clone(shared), query.network));
    };
    let instant = Instant::of(shared);
    // One client more than the page shows: it reveals whether there is a next page.
    let mut page = BinaryHeap::with_capacity(limit + 2);
    let mut found = Vec::new();
    for shard in 0..SHARDS {
        found.clear();
        query.find(shared, shard, instant.now, &mut found);
        for view in &found {
            let ranked = Ranked { rank: query.rank(view), view: *view };
            if query.after.is_none_or(|after| after < ranked.rank) {
                page.push(ranked);
                if page.len() > limit + 1 {
                    page.pop();
                }
            }
        }
        tokio::task::yield_now().await;
    }
    let mut page = page.into_sorted_vec();
    let has_more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| has_more).map(|last| last.rank.to_cursor());
    let clients: Vec<_> = page.iter().map(|ranked| instant.show(ranked.view)).collect();
    Ok(json(StatusCode::OK, &Page { clients, next }))
}

/// Streams all clients, unsorted, shard by shard.
fn stream(shared: Arc<Shared>, network: Option<IpNet>) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let query = Query { network, ..Query::default() };
    tokio::spawn(async move {
        let mut found = Vec::new();
        let mut text = b"{\"clients\":[".to_vec();
        let mut is_first = true;
        for shard in 0..SHARDS {
            let instant = Instant::of(&shared);
            found.clear();
            query.find(&shared, shard, instant.now, &mut found);
            for piece in found.chunks(PIECE) {
                for view in piece {
                    if !std::mem::take(&mut is_first) {
                        text.push(b',');
                    }
                    text.push(b'\n');
                    serde_json::to_writer(&mut text, &instant.show(*view))
                        .expect("a vector takes all");
                }
                if sender.send_data(std::mem::take(&mut text).into()).await.is_err() {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
        text.extend_from_slice(b"\n],\"next\":null}");
        let _ = sender.send_data(text.into()).await;
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The sort key of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Address,
    FirstSeen,
    LastHeartbeat,
    Heartbeats,
    Pings,
}

impl Sort {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "address" => Self::Address,
            "first_seen" => Self::FirstSeen,
            // The same order: all clients expire equally long after their last heartbeat.
            "last_heartbeat" | "expires_in" => Self::LastHeartbeat,
            "heartbeats" => Self::Heartbeats,
            "pings" => Self::Pings,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::FirstSeen => "first_seen",
            Self::LastHeartbeat => "last_heartbeat",
            Self::Heartbeats => "heartbeats",
            Self::Pings => "pings",
        }
    }
}

fn is_descending(order: &str) -> Option<bool> {
    match order {
        "asc" => Some(false),
        "desc" => Some(true),
        _ => None,
    }
}

/// The parameters of a listing.
#[derive(Clone, Copy, Debug, Default)]
struct Query {
    network: Option<IpNet>,
    sort: Sort,
    is_descending: bool,
    /// `None` means no limit.
    limit: Option<usize>,
    /// The last client of the previous page.
    after: Option<Rank>,
}

impl Query {
    fn read(parameters: &Parameters) -> Result<Self, Failure> {
        let mut query = Self { limit: Some(USUAL), ..Self::default() };
        for (name, value) in parameters {
            match name.as_ref() {
                "network" => {
                    let network = guard::network(value)
                        .map_err(|error| Failure::bad_request(error.to_string()))?;
                    query.network = Some(network);
                }
                "sort" => {
                    query.sort = Sort::named(value).ok_or_else(|| {
                        Failure::bad_request(
                            "sort must be address, first_seen, last_heartbeat, heartbeats, pings or expires_in",
                        )
                    })?;
                }
                "order" => {
                    query.is_descending = is_descending(value)
                        .ok_or_else(|| Failure::bad_request("order must be asc or desc"))?;
                }
                "limit" if value == "all" => query.limit = None,
                "limit" => query.limit = Some(limit(value)?),
                "cursor" => {
                    let after = Rank::from_cursor(value).ok_or_else(|| {
                        Failure::bad_request("cursor must be the `next` value of the previous page")
                    })?;
                    query.after = Some(after);
                }
                _ => {
                    return Err(Failure::bad_request(
                        "unknown parameter: the parameters are network, sort, order, limit and cursor",
                    ));
                }
            }
        }
        let has_order =
            ["sort", "order", "cursor"].iter().any(|name| parameters.contains_key(*name));
        if query.limit.is_none() && has_order {
            return Err(Failure::bad_request(
                "limit=all returns clients unsorted, so it cannot be combined with sort, order and cursor",
            ));
        }
        let is_other =
            |after: Rank| (after.sort, after.is_descending) != (query.sort, query.is_descending);
        if query.after.is_some_and(is_other) {
            return Err(Failure::bad_request(
                "cursor belongs to a page with another sort or order: send the parameters sort and order of that page, or omit cursor to start at the first page",
            ));
        }
        Ok(query)
    }

    /// Appends the matching clients of a shard to `found`.
    fn find(&self, shared: &Shared, number: usize, now: Time, found: &mut Vec<View>) {
        shared.engine.registry().look_at(number, now, |view| {
            let ip = view.address.ip();
            let is_in = |network: IpNet| {
                let embedded = shared.engine.guard().embedded(ip).map(IpAddr::from);
                network.contains(&ip) || embedded.is_some_and(|ip| network.contains(&ip))
            };
            if self.network.is_none_or(is_in) {
                found.push(view);
            }
        });
    }

    fn rank(&self, view: &View) -> Rank {
        let value = match self.sort {
            Sort::Address => 0,
            Sort::FirstSeen => view.first_seen.as_nanos(),
            Sort::LastHeartbeat => view.last_heartbeat.as_nanos(),
            Sort::Heartbeats => view.heartbeats.into(),
            Sort::Pings => view.pings.into(),
        };
        Rank { sort: self.sort, is_descending: self.is_descending, value, address: view.address }
    }
}

/// Parses the page size.
pub(super) fn limit(text: &str) -> Result<usize, Failure> {
    let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| Failure::bad_request(format!("limit must be a number from 1 to {MOST}")))
}

/// A client's position in the order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rank {
    sort: Sort,
    is_descending: bool,
    value: u64,
    address: SocketAddr,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let ascending = (self.value, self.address).cmp(&(other.value, other.address));
        if self.is_descending { ascending.reverse() } else { ascending }
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Rank {
    fn to_cursor(self) -> String {
        let Self { sort, is_descending, value, address } = self;
        let order = if is_descending { "desc" } else { "asc" };
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {order} {value} {address}", sort.name()))
    }

    fn from_cursor(cursor: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let mut words = text.split(' ');
        let sort = Sort::named(words.next()?)?;
        let is_descending = is_descending(words.next()?)?;
        let (value, address) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { sort, is_descending, value, address })
    }
}

/// A client with its position.
struct Ranked {
    rank: Rank,
    view: View,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests;
