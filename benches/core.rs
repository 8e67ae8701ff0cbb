//! What the core takes for a client: `cargo bench --bench core`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Caps, Guard, Mode, Nat64Prefixes, Networks, Refused, Rules};
use wakeupd::engine::registry::{Refreshed, Registry, SHARDS, Seed, Sweep};
use wakeupd::engine::schedule::Schedule;
use wakeupd::wire::DEFAULT_PORT;

const EXPIRATION: Duration = Duration::from_secs(120);
const NOW: Time = Time::from_nanos(1 << 40);
/// What all heartbeats hit.
const LOCAL: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
const MILLION: u32 = 1_000_000;

/// Numbered addresses, the first of each family.
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

fn registry_of(first: IpAddr, clients: u32) -> Registry {
    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
    for n in 0..clients {
        registry.refresh(client(first, n), LOCAL, NOW, || true);
    }
    registry
}

/// The shards take turns as they do in a daemon, so that none is in the processor's caches.
fn sweep(c: &mut Criterion) {
    let mut group = c.benchmark_group("sweep 1,000,000 clients, per client");
    group.throughput(Throughput::Elements(1));
    for (family, first) in FAMILIES {
        let registry = registry_of(first, MILLION);
        let (mut sweep, mut shards) = (Sweep::default(), (0..SHARDS).cycle());
        group.bench_function(family, |b| {
            b.iter_custom(|shards_to_sweep| {
                let mut clients = 0;
                let start = Instant::now();
                for shard in shards.by_ref().take(count(shards_to_sweep)) {
                    registry.sweep(shard, NOW, |_| false, &mut sweep);
                    clients += black_box(sweep.v4.len() + sweep.v6.len());
                }
                per_client(start.elapsed(), shards_to_sweep, clients)
            });
        });
    }
    group.finish();
}

/// How long the lock of a shard is held for a list of clients.
fn list(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy a shard of 1,000,000 clients out");
    for (family, first) in FAMILIES {
        let registry = registry_of(first, MILLION);
        let (mut views, mut shards) = (Vec::new(), (0..SHARDS).cycle());
        group.bench_function(family, |b| {
            b.iter(|| {
                views.clear();
                let shard = shards.next().expect("it has no end");
                registry.look_at(shard, NOW, |view| views.push(view));
            });
        });
    }
    group.finish();
}

fn count(iterations: u64) -> usize {
    usize::try_from(iterations).expect("what takes so long is not asked for")
}

/// What `iterations` would have taken of one client each.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_client(time: Duration, iterations: u64, clients: usize) -> Duration {
    time.mul_f64(iterations as f64 / clients as f64)
}

/// The clients come in an order that the processor cannot foresee, and so do those whom the guard
/// refuses, which must not cost more.
fn refresh(c: &mut Criterion) {
    let mut group = c.benchmark_group("refresh one of 1,000,000 clients");
    group.throughput(Throughput::Elements(1));
    for (family, first) in FAMILIES {
        let registry = registry_of(first, MILLION);
        let guard = guard(MILLION);
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function(family, |b| {
            b.iter(|| heartbeat(&guard, &registry, client(first, random.u32(..MILLION))));
        });
        let system_port = |ip: IpAddr| SocketAddr::new(ip, 53);
        group.bench_function(format!("{family}, refused for the port"), |b| {
            b.iter(|| {
                let ip = client(first, random.u32(MILLION..2 * MILLION)).ip();
                heartbeat(&guard, &registry, system_port(ip))
            });
        });
        let denied = (0..100_000).map(|n| IpNet::from(client(first, MILLION + 2 * n).ip()));
        guard.deny(denied.collect());
        group.bench_function(format!("{family}, refused by one of 100,000 networks"), |b| {
            b.iter(|| {
                let n = MILLION + 2 * random.u32(..100_000);
                heartbeat(&guard, &registry, client(first, n))
            });
        });
        let full = self::guard(0);
        group.bench_function(format!("{family}, refused for want of room"), |b| {
            b.iter(|| heartbeat(&full, &registry, client(first, random.u32(MILLION..2 * MILLION))));
        });
    }
    group.finish();
}

/// A guard that lets in so many.
fn guard(clients: u32) -> Guard {
    let caps = Caps { clients, per_address: clients, per_prefix: clients };
    let nobody = Networks::default();
    let rules = Rules {
        mode: Mode::Enforce,
        refuse_nets: nobody.clone(),
        local_nets: nobody.clone(),
        nat64_prefixes: Nat64Prefixes::default(),
        caps,
    };
    Guard::new(rules, DEFAULT_PORT, nobody)
}

/// What the listener does with a datagram.
fn heartbeat(guard: &Guard, registry: &Registry, source: SocketAddr) -> Result<Refreshed, Refused> {
    guard.admit(source)?;
    Ok(registry.refresh(source, LOCAL, NOW, || guard.reserve(source.ip()).is_ok()))
}

/// The tables grow meanwhile.
fn register(c: &mut Criterion) {
    const CLIENTS: u32 = 100_000;
    let mut group = c.benchmark_group("register 100,000 clients, per client");
    group.throughput(Throughput::Elements(1));
    for (family, first) in FAMILIES {
        group.bench_function(family, |b| {
            b.iter_custom(|registries| {
                let mut time = Duration::ZERO;
                for _ in 0..registries {
                    let registry = Registry::new(SHARDS, EXPIRATION, Seed::random());
                    let guard = guard(CLIENTS);
                    let start = Instant::now();
                    for n in 0..CLIENTS {
                        let _ = heartbeat(&guard, &registry, client(first, n));
                    }
                    time += start.elapsed();
                }
                time / CLIENTS
            });
        });
    }
    group.finish();
}

fn schedule(c: &mut Criterion) {
    let mut group = c.benchmark_group("take a slot");
    group.throughput(Throughput::Elements(1));
    let mut schedule = Schedule::new(NOW, SHARDS, 3, 10);
    group.bench_function("in time", |b| {
        b.iter(|| {
            let deadline = schedule.deadline();
            schedule.take(deadline)
        });
    });
    group.finish();
}

criterion_group!(benches, sweep, list, refresh, register, schedule);
criterion_main!(benches);
