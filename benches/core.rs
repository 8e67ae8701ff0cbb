//! The engine's cost per client: `cargo bench --bench core`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Networks, Rules};
use wakeupd::engine::registry::SHARDS;
use wakeupd::engine::{Batch, Datagram, Engine, Outcome, Settings};

const EXPIRATION: Duration = Duration::from_secs(120);
/// A whole second, so the first slot is due.
const NOW: Time = Time::from_secs(1_000);
/// The local address that all heartbeats are sent to.
const LOCAL: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
const MILLION: u32 = 1_000_000;

/// The first client address of each family.
const FAMILIES: [(&str, IpAddr); 2] = [
    ("IPv4", IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0))),
    ("IPv6", IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0))),
];

fn client(first: IpAddr, n: u32) -> SocketAddr {
    let ip = match first {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + n).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(n)).into(),
    };
    SocketAddr::new(ip, 5000)
}

/// Creates an engine with room for `max_clients` clients.
fn engine(max_clients: u32, denied: Networks) -> Engine {
    let caps = Caps { clients: max_clients, per_address: max_clients, per_prefix: max_clients };
    let settings = Settings { denied, ..Settings::new(Rules::new(caps), EXPIRATION, NOW) };
    Engine::new(settings, NOW)
}

fn engine_with_clients(first: IpAddr, clients: u32, denied: Networks) -> Engine {
    let engine = engine(clients, denied);
    for n in 0..clients {
        heartbeat(&engine, client(first, n));
    }
    engine
}

fn heartbeat(engine: &Engine, source: SocketAddr) -> Outcome {
    let datagram = Datagram { source, local: LOCAL, payload: &[], waited: Duration::ZERO };
    engine.handle_datagram(NOW, &datagram)
}

/// Polls the slots in turn as a daemon does, so no shard is in the CPU caches. The time advances only within
/// the expiration, so all clients stay live.
fn poll_slot(c: &mut Criterion) {
    let mut group = c.benchmark_group("poll a slot of 1,000,000 clients, per client");
    group.throughput(Throughput::Elements(1));
    for (family, first) in FAMILIES {
        let engine = engine_with_clients(first, MILLION, Networks::default());
        let mut batch = Batch::default();
        group.bench_function(family, |b| {
            b.iter_custom(|slots| {
                engine.resume(NOW, NOW, None);
                let (mut now, mut clients) = (NOW, 0);
                let start = Instant::now();
                for _ in 0..slots {
                    let slot = engine.poll_slot(now, 0, &mut batch).expect("a slot is due");
                    now = slot.next_due;
                    clients += black_box(batch.len());
                    if now.since(NOW) > EXPIRATION / 2 {
                        engine.resume(NOW, NOW, None);
                        now = NOW;
                    }
                }
                per_client(start.elapsed(), slots, clients)
            });
        });
    }
    group.finish();
}

/// How long a listing of clients holds the lock of a shard.
fn list(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy a shard of 1,000,000 clients out");
    for (family, first) in FAMILIES {
        let engine = engine_with_clients(first, MILLION, Networks::default());
        let (mut views, mut shards) = (Vec::new(), (0..SHARDS).cycle());
        group.bench_function(family, |b| {
            b.iter(|| {
                views.clear();
                let shard = shards.next().expect("the cycle is endless");
                engine.registry().look_at(shard, NOW, |view| views.push(view));
            });
        });
    }
    group.finish();
}

/// Scales `time`, spent on `clients` clients, to `iterations` iterations of one client each.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_client(time: Duration, iterations: u64, clients: usize) -> Duration {
    time.mul_f64(iterations as f64 / clients as f64)
}

/// The sources come in an order that the CPU cannot predict. A refused source must not cost more than a
/// client.
fn handle_datagram(c: &mut Criterion) {
    let mut group = c.benchmark_group("renew one of 1,000,000 clients");
    group.throughput(Throughput::Elements(1));
    for (family, first) in FAMILIES {
        let denied = (0..100_000).map(|n| IpNet::from(client(first, MILLION + 2 * n).ip()));
        let denied: Networks = denied.collect();
        let mut random = fastrand::Rng::with_seed(1);
        let engine = engine_with_clients(first, MILLION, Networks::default());
        group.bench_function(family, |b| {
            b.iter(|| heartbeat(&engine, client(first, random.u32(..MILLION))));
        });
        let system_port = |ip: IpAddr| SocketAddr::new(ip, 53);
        group.bench_function(format!("{family}, refused for the port"), |b| {
            b.iter(|| {
                let ip = client(first, random.u32(MILLION..2 * MILLION)).ip();
                heartbeat(&engine, system_port(ip))
            });
        });
        engine.deny(denied);
        group.bench_function(format!("{family}, refused by one of 100,000 networks"), |b| {
            b.iter(|| {
                let n = MILLION + 2 * random.u32(..100_000);
                heartbeat(&engine, client(first, n))
            });
        });
        engine.deny(Networks::default());
        group.bench_function(format!("{family}, refused because the table is full"), |b| {
            b.iter(|| heartbeat(&engine, client(first, random.u32(MILLION..2 * MILLION))));
        });
    }
    group.finish();
}

/// Includes the growth of the tables.
fn register(c: &mut Criterion) {
    const CLIENTS: u32 = 100_000;
    let mut group = c.benchmark_group("register 100,000 clients, per client");
    group.throughput(Throughput::Elements(1));
    for (family, first) in FAMILIES {
        group.bench_function(family, |b| {
            b.iter_custom(|engines| {
                let mut time = Duration::ZERO;
                for _ in 0..engines {
                    let engine = engine(CLIENTS, Networks::default());
                    let start = Instant::now();
                    for n in 0..CLIENTS {
                        heartbeat(&engine, client(first, n));
                    }
                    time += start.elapsed();
                }
                time / CLIENTS
            });
        });
    }
    group.finish();
}

criterion_group!(benches, poll_slot, list, handle_datagram, register);
criterion_main!(benches);
