//! Fuzzes the snapshot reader.

use std::ops::ControlFlow;
use std::time::Duration;

use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Rules};
use wakeupd::engine::registry::Seed;
use wakeupd::engine::{Engine, Settings};
use wakeupd::snapshot::{Header, MAGIC, Moment, Snapshot, VERSION, write};

use super::Bytes;

const SHARDS: usize = 4;
const EXPIRATION: Duration = Duration::from_secs(100);
const MAX_CLIENTS: u32 = 20;

/// Parses a snapshot with these bytes, or with frames that hold them. Framing adds the checksums, which no
/// fuzzer would find.
///
/// # Panics
/// If more clients are restored than the snapshot has or the cap allows, if the guard's counts differ from
/// the registry's, or if a new snapshot does not hold the restored clients.
pub fn snapshot(data: &[u8]) {
    let mut bytes = Bytes(data);
    let Some(kind) = bytes.byte() else { return };
    let file = if kind.is_multiple_of(8) { bytes.0.to_vec() } else { framed(&mut bytes) };
    let Ok(snapshot) = Snapshot::parse(file) else { return };
    let taken = &snapshot.header().taken;
    let now = Moment { now: taken.now + Duration::from_secs(kind.into()), ..taken.clone() };
    let engine = engine(snapshot.seed(), now.now);
    let registry = engine.registry();
    let _ = snapshot.suits(7561, &now);
    assert!(snapshot.pinged_until(&now) <= Some(now.now));
    let restored = snapshot.restore(&engine, |client| client.port() != 5000, &now);
    assert!(restored.clients + restored.expired + restored.refused <= snapshot.len());
    assert!(registry.len() as u64 == restored.clients && restored.clients <= MAX_CLIENTS.into());
    assert_eq!(u64::from(engine.guard().total()), restored.clients);
    for shard in 0..SHARDS {
        registry.look_at(shard, now.now, |client| {
            assert!(client.last_heartbeat <= now.now);
            assert!(now.now.since(client.last_heartbeat) <= EXPIRATION + Duration::from_millis(1));
        });
    }

    let header = Header { taken: now.clone(), ..snapshot.header().clone() };
    let mut written = Vec::new();
    let goes_on = |_| ControlFlow::Continue(());
    write(&mut written, &header, registry, || now.now, goes_on).unwrap();
    let again = Snapshot::parse(written).unwrap();
    assert_eq!((again.header(), again.len()), (&header, restored.clients));
}

/// Builds frames whose lengths and contents come from the bytes.
fn framed(bytes: &mut Bytes) -> Vec<u8> {
    let mut file = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    while let Some(length) = bytes.take().map(u16::from_le_bytes) {
        let (content, rest) = bytes.0.split_at(bytes.0.len().min(length.into()));
        bytes.0 = rest;
        file.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
        file.extend(crc32fast::hash(content).to_le_bytes());
        file.extend(content);
    }
    file
}

fn engine(seed: Seed, now: Time) -> Engine {
    let rules = Rules {
        refuse_nets: "203.0.113.0/24".parse().unwrap(),
        local_nets: "10.0.0.0/8".parse().unwrap(),
        ..Rules::new(Caps { clients: MAX_CLIENTS, per_address: 5, per_prefix: 10 })
    };
    let settings = Settings { shards: SHARDS, seed, ..Settings::new(rules, EXPIRATION, now) };
    Engine::new(settings, now)
}
