//! The socket's cost per ping: `cargo bench --bench net`. Sends only to this machine.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use wakeupd::net::{BATCH, Socket};
use wakeupd_protocol::PING;

/// Sends a batch, and the same number of datagrams one by one. Nothing reads them, so the receive buffer
/// fills up.
fn send(c: &mut Criterion) {
    let runtime = Runtime::new().expect("threads can be started");
    let _context = runtime.enter();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = UdpSocket::bind(any).expect("a port is free");
    let destinations = [client.local_addr().expect("it is bound"); BATCH];
    let mut socket = Socket::bind(any).expect("a port is free");
    let sender = socket.senders(1).expect("the port can be shared").remove(0);
    let plain = UdpSocket::bind(any).expect("a port is free");

    let mut group = c.benchmark_group("send 64 pings");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("in a batch", |b| {
        b.iter(|| {
            let (sent, error) = sender.send(&PING, None, &destinations);
            assert!(sent == BATCH && error.is_none());
        });
    });
    group.bench_function("one by one", |b| {
        b.iter(|| {
            for destination in destinations {
                plain.send_to(&PING, destination).expect("loopback is reachable");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, send);
criterion_main!(benches);
