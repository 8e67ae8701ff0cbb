//! The clients, their NAT gateways, and attackers that forge heartbeats.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

use crate::clocks::When;
use crate::network::Way;
use crate::plan::Plan;

/// The addresses of the daemon's machine.
const LOCALS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 1)),
];

/// A phone with the app.
#[derive(Clone, Debug)]
pub struct Device {
    gateway: usize,
    /// As the daemon sees it.
    pub address: SocketAddr,
    pub local: IpAddr,
    period: Duration,
    pub leaves: When,
}

impl Device {
    /// The time to its next heartbeat.
    pub fn pause(&self, rng: &mut Rng) -> Duration {
        if rng.u16(..) < 400 {
            // It sleeps.
            return Duration::from_secs(rng.u64(30..600));
        }
        self.period.mul_f64(0.75 + 0.25 * rng.f64())
    }
}

/// A NAT gateway between some phones and the internet.
#[derive(Clone, Debug)]
struct Gateway {
    ip: IpAddr,
    /// The last port that it assigned.
    port: u16,
    way: Way,
}

impl Gateway {
    fn new(number: usize, way: Way, rng: &mut Rng) -> Self {
        let [high, low] = u16::try_from(number).expect("the number fits in 16 bits").to_be_bytes();
        let ip = match rng.u8(0..8) {
            0 => [10, 9, high, low].into(),
            1 | 2 => {
                let network = u16::from_be_bytes([high, low]);
                Ipv6Addr::new(0x2001, 0xdb8, 1, network, 0, 0, 0, 1).into()
            }
            _ => [198, 18 + high / 128, high % 128, low].into(),
        };
        Self { ip, port: rng.u16(1024..), way }
    }

    fn map(&mut self) -> SocketAddr {
        self.port = if self.port == u16::MAX { 1024 } else { self.port + 1 };
        if self.port == wakeupd_protocol::DEFAULT_PORT {
            self.port += 1;
        }
        if let IpAddr::V6(ip) = self.ip {
            // With IPv6, phones have addresses of their own.
            let [.., host] = ip.segments();
            let mut segments = ip.segments();
            segments[7] = host.wrapping_add(self.port % 16);
            return (Ipv6Addr::from(segments), self.port).into();
        }
        (self.ip, self.port).into()
    }
}

#[derive(Debug)]
pub struct Crowd {
    pub devices: Vec<Device>,
    gateways: Vec<Gateway>,
    plan: Plan,
}

impl Crowd {
    pub fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let gateways = (0..plan.clients.div_ceil(3))
            .map(|number| {
                let way = Way::new(plan.loss, rng);
                Gateway::new(number, way, rng)
            })
            .collect();
        Self { devices: Vec::new(), gateways, plan: plan.clone() }
    }

    /// A device joins. Returns its index.
    pub fn arrive(&mut self, now: When, rng: &mut Rng) -> usize {
        let gateway = rng.usize(..self.gateways.len());
        let address = self.gateways[gateway].map();
        let local = if address.is_ipv6() { LOCALS[2] } else { LOCALS[rng.usize(..2)] };
        // Exponentially distributed: most stays are short, a few are long.
        let stay = self.plan.stay.mul_f64(-rng.f64().max(1e-9).ln());
        let period = Duration::from_millis(rng.u64(5_000..40_000));
        self.devices.push(Device { gateway, address, local, period, leaves: now + stay });
        self.devices.len() - 1
    }

    /// The delay of each copy of a datagram that `device` sends now.
    pub fn delays(&mut self, device: usize, now: When, rng: &mut Rng) -> Vec<Duration> {
        self.gateways[self.devices[device].gateway].way.delays(now, rng)
    }

    /// The gateway drops the device's mapping and assigns a new address.
    pub fn rebind(&mut self, device: usize) {
        let Device { gateway, address, .. } = &mut self.devices[device];
        *address = self.gateways[*gateway].map();
    }

    /// A gateway restarts and drops all of its mappings.
    pub fn restart_gateway(&mut self, rng: &mut Rng) {
        let restarted = rng.usize(..self.gateways.len());
        for device in 0..self.devices.len() {
            if self.devices[device].gateway == restarted {
                self.rebind(device);
            }
        }
    }

    /// Forges heartbeats. Returns their source addresses, and the period over which they arrive.
    pub fn forge(&self, rng: &mut Rng) -> (Vec<SocketAddr>, Duration) {
        let caps = self.plan.caps;
        let any = |rng: &mut Rng| rng.u16(1024..);
        let victim = [203, 0, rng.u8(100..110), rng.u8(..)];
        let [a, b, c, _] = victim;
        let twice = |cap: u32, rng: &mut Rng| rng.u32(1..=2 * cap);
        let sources: Vec<SocketAddr> = match rng.u8(0..10) {
            0..=2 => vec![(victim, any(rng)).into()],
            3 | 4 if !self.devices.is_empty() => {
                let victim = self.devices[rng.usize(..self.devices.len())].address;
                vec![victim; rng.usize(1..100)]
            }
            5 => (0..twice(caps.per_address, rng)).map(|_| (victim, any(rng)).into()).collect(),
            6 => (0..twice(caps.per_prefix, rng))
                .map(|_| ([a, b, c, rng.u8(..)], any(rng)).into())
                .collect(),
            7 => (0..twice(caps.clients, rng))
                .map(|_| ([203, rng.u8(1..), rng.u8(..), rng.u8(..)], any(rng)).into())
                .collect(),
            8 => (0..twice(caps.per_prefix, rng))
                .map(|_| {
                    let ip = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, rng.u16(..256), 0, 0, 0, 1);
                    (ip, any(rng)).into()
                })
                .collect(),
            _ => (0..100)
                .map(|_| match rng.u8(0..4) {
                    0 => (victim, rng.u16(..1024)).into(),
                    1 => (victim, wakeupd_protocol::DEFAULT_PORT).into(),
                    2 => ([rng.u8(224..), b, c, 1], any(rng)).into(),
                    _ => ([100, 64, 0, rng.u8(..)], any(rng)).into(),
                })
                .collect(),
        };
        let over = [Duration::ZERO, Duration::from_millis(5), Duration::from_secs(20)];
        (sources, over[rng.usize(..3)])
    }

    /// Whether the host of this address returns ICMP port unreachable.
    pub fn is_closed(address: SocketAddr) -> bool {
        match address.ip() {
            IpAddr::V4(ip) => ip.octets()[0] == 203 && ip.octets()[3].is_multiple_of(2),
            IpAddr::V6(_) => false,
        }
    }

    /// The destination address of a forged heartbeat from `source`.
    pub fn local(source: SocketAddr) -> IpAddr {
        if source.is_ipv6() { LOCALS[2] } else { LOCALS[0] }
    }
}
