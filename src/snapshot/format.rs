//! The contents of a snapshot: the [`Header`], a [`Frame::Shard`] for each shard with clients, and
//! [`Frame::End`]. Any change here requires a new version of the format.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;
use crate::clock::Time;
use crate::engine::registry::{Seed, View};

const NANOS_PER_MILLI: u64 = 1_000_000;

/// The metadata of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of wakeupd that wrote the snapshot.
    pub program: String,
    /// When the snapshot was started.
    pub taken: Moment,
    /// The UDP port of the daemon, from which its clients expect their pings.
    pub port: u16,
    /// The keys of the hash that assigns clients to shards.
    pub seed: Seed,
    /// The number of slots in a second when the snapshot was started.
    pub slots: u16,
    /// Set if the daemon and all its workers stopped cleanly: the workers served every slot due before this
    /// time, except slots for which they were too late, and no slot after it.
    pub pinged_until: Option<Time>,
}

/// The frames after the header.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    Shard(Shard),
    /// The end of the snapshot, with the total number of clients.
    End(u64),
}

/// The clients of one shard.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Shard {
    /// When the shard was copied, in milliseconds of the boot clock. The clients' times are relative to this.
    pub(super) at: u64,
    /// The distinct local addresses that received the clients' heartbeats.
    pub(super) locals: Vec<IpAddr>,
    pub(super) v4: Vec<(Ipv4Addr, u16, Known)>,
    /// The number after the port is the scope id.
    pub(super) v6: Vec<(Ipv6Addr, u16, u32, Known)>,
}

/// The state of a client, without its address.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    /// Milliseconds since the last heartbeat.
    pub(super) silence: u32,
    /// Seconds since the first heartbeat.
    pub(super) age: u32,
    pub(super) heartbeats: u32,
    pub(super) pings: u32,
    pub(super) is_muted: bool,
    /// The index into the shard's `locals`, counted from 1. With 0 the kernel chooses the source address.
    pub(super) local: u16,
}

impl Shard {
    /// Packs the clients of a shard in their state at the time `at`.
    pub(super) fn of(views: &[View], at: Time) -> Self {
        let millis = |time: Time| time.as_nanos() / NANOS_PER_MILLI;
        let saturated = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut shard = Self { at: millis(at), ..Self::default() };
        let mut places = HashMap::new();
        // Most clients use the same local address as the client before.
        let (mut before, mut local) = (None, 0);
        for view in views {
            if view.local != before {
                before = view.local;
                local = view.local.map_or(0, |address| {
                    *places.entry(address).or_insert_with(|| {
                        shard.locals.push(address);
                        u16::try_from(shard.locals.len()).unwrap_or_default()
                    })
                });
            }
            let known = Known {
                silence: saturated(shard.at.saturating_sub(millis(view.last_heartbeat))),
                age: saturated(at.as_secs().saturating_sub(view.first_seen.as_secs())),
                heartbeats: view.heartbeats,
                pings: view.pings,
                is_muted: view.is_muted,
                local,
            };
            match view.address {
                SocketAddr::V4(client) => shard.v4.push((*client.ip(), client.port(), known)),
                SocketAddr::V6(client) => {
                    shard.v6.push((*client.ip(), client.port(), client.scope_id(), known));
                }
            }
        }
        shard
    }

    /// The clients, their times shifted as if the snapshot had been started at `taken` instead of `begun`.
    pub(super) fn clients(&self, begun: Time, taken: Time) -> impl Iterator<Item = View> + '_ {
        let at = Time::from_nanos(self.at.saturating_mul(NANOS_PER_MILLI));
        let at = (taken + at.since(begun)).before(begun.since(at));
        let v4 = self.v4.iter().map(|&(ip, port, known)| (SocketAddr::from((ip, port)), known));
        let v6 = self
            .v6
            .iter()
            .map(|&(ip, port, scope, known)| (SocketAddrV6::new(ip, port, 0, scope).into(), known));
        v4.chain(v6).map(move |(address, known)| {
            let place = usize::from(known.local).checked_sub(1);
            View {
                address,
                first_seen: at.second().before(Duration::from_secs(known.age.into())),
                last_heartbeat: at.before(Duration::from_millis(known.silence.into())),
                heartbeats: known.heartbeats,
                pings: known.pings,
                is_muted: known.is_muted,
                local: place.and_then(|place| self.locals.get(place).copied()),
            }
        })
    }

    /// The number of clients.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}
