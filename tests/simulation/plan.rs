//! The parameters of a world and the faults in it. Both follow from the seed.

use std::time::Duration;

use fastrand::Rng;
use wakeupd::clock::Time;
use wakeupd::engine::Load;
use wakeupd::engine::guard::Caps;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The uptime in seconds at which the registry's stamps wrap around: they wrap every 2³² ms, and the clock
/// shows ten years at boot.
const WRAP: u64 = 2_467_579;

/// The clock's reading at boot.
pub const BOOT: Time = Time::from_secs(10 * 365 * 24 * 3600);

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    /// The number of clients that join during the run.
    pub clients: usize,
    /// The period in which they join.
    pub coming: Duration,
    /// Their mean stay.
    pub stay: Duration,
    pub expiration: Duration,
    pub workers: usize,
    pub load: Load,
    pub caps: Caps,
    /// The size of the socket's receive buffer, in datagrams.
    pub buffer: usize,
    /// Whether a service manager keeps the socket open across restarts.
    pub keeps_socket: bool,
    pub snapshot_interval: Duration,
    /// The highest loss rate of a path.
    pub loss: f64,
    /// The machine's uptime at the start.
    pub uptime: Duration,
    /// The mean times between two faults, short delays, forgeries and address changes.
    pub faults: Duration,
    pub hiccups: Duration,
    pub forgeries: Duration,
    pub rebindings: Duration,
}

impl Plan {
    /// A few minutes, or an hour, with a few hundred clients.
    pub fn life(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        // A few lives are long.
        let length = if rng.u8(..) < 8 { HOUR } else { rng.u64(2 * MINUTE..15 * MINUTE) };
        let clients = rng.usize(50..300);
        let cap = u32::try_from(clients).unwrap_or_default();
        let seconds = Duration::from_secs;
        Self {
            seed,
            length: seconds(length),
            clients,
            coming: seconds(length * 3 / 4),
            stay: seconds(rng.u64(MINUTE..10 * MINUTE)),
            expiration: seconds([20, 45, 120, 120][rng.usize(..4)]),
            workers: rng.usize(1..=4),
            load: load(rng.usize(1..10), rng.usize(20..200)),
            caps: Caps {
                clients: rng.u32(cap / 2..cap * 2),
                per_address: rng.u32(4..40),
                per_prefix: rng.u32(30..120),
            },
            buffer: rng.usize(20..600),
            keeps_socket: rng.bool(),
            snapshot_interval: seconds(rng.u64(1..=10)),
            loss: [0.0, 0.05, 0.3][rng.usize(..3)],
            uptime: seconds([rng.u64(1..100), WRAP - rng.u64(1..length)][rng.usize(..2)]),
            faults: seconds(rng.u64(20..200)),
            hiccups: seconds(rng.u64(10..60)),
            forgeries: seconds(rng.u64(5..60)),
            rebindings: seconds(rng.u64(5..60)),
        }
    }

    /// A day with ten thousand clients, several hundred of them at a time.
    pub fn day(seed: u64) -> Self {
        Self {
            length: Duration::from_secs(24 * HOUR),
            clients: 10_000,
            coming: Duration::from_secs(23 * HOUR),
            stay: Duration::from_secs(40 * MINUTE),
            expiration: Duration::from_secs(120),
            workers: 2,
            load: load(4, 300),
            caps: Caps { clients: 1_000, per_address: 64, per_prefix: 256 },
            snapshot_interval: Duration::from_secs(5),
            buffer: 1_000,
            loss: 0.1,
            uptime: Duration::from_secs(WRAP - 6 * HOUR),
            faults: Duration::from_secs(5 * MINUTE),
            hiccups: Duration::from_secs(MINUTE),
            forgeries: Duration::from_secs(2 * MINUTE),
            rebindings: Duration::from_secs(10),
            ..Self::life(seed)
        }
    }

    /// A few minutes with ten thousand clients, all at once.
    pub fn rush(seed: u64) -> Self {
        Self {
            length: Duration::from_secs(5 * MINUTE),
            clients: 10_000,
            coming: Duration::from_secs(MINUTE),
            stay: Duration::from_secs(HOUR),
            expiration: Duration::from_secs(120),
            workers: 10,
            load: load(16, 1_000),
            caps: Caps { clients: 20_000, per_address: 1_024, per_prefix: 4_096 },
            snapshot_interval: Duration::from_secs(5),
            buffer: 4_000,
            loss: 0.05,
            uptime: Duration::from_secs(WRAP - MINUTE),
            faults: Duration::from_secs(25),
            forgeries: Duration::from_secs(30),
            rebindings: Duration::from_secs(1),
            ..Self::life(seed)
        }
    }

    /// A random wait with a mean of `often`.
    pub fn wait(often: Duration, rng: &mut Rng) -> Duration {
        often.mul_f64(0.1 + 1.8 * rng.f64())
    }
}

/// A fault of the process or its machine.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process is stopped by SIGSTOP or starved of CPU time.
    Frozen(Duration),
    /// The machine is suspended.
    Suspended(Duration),
    /// One of the workers stalls.
    LateWorker(usize, Duration),
    /// The listener stalls.
    LateListener(Duration),
    /// SIGTERM; the next daemon starts after this time.
    Terminated(Duration),
    /// SIGKILL; the next daemon starts after this time.
    Killed(Duration),
    /// The machine reboots, with or without a SIGTERM first.
    Rebooted { is_orderly: bool, takes: Duration },
    /// The wall clock changes by this many nanoseconds.
    WallClock(i64),
}

impl Fault {
    /// A worker gets no CPU time for up to 0.8 s.
    pub fn hiccup(plan: &Plan, rng: &mut Rng) -> Self {
        Self::LateWorker(rng.usize(..plan.workers), time(0.001, 0.8, rng))
    }

    pub fn random(plan: &Plan, rng: &mut Rng) -> Self {
        match rng.u8(0..16) {
            0 | 1 => Self::Frozen(time(0.01, 200.0, rng)),
            2 => Self::Suspended(time(1.0, 400.0, rng)),
            3 | 4 => Self::LateWorker(rng.usize(..plan.workers), time(0.001, 5.0, rng)),
            5 | 6 => Self::LateListener(time(0.001, 5.0, rng)),
            7..=9 => Self::Terminated(time(0.02, 60.0, rng)),
            10..=12 => Self::Killed(time(0.02, 60.0, rng)),
            13 | 14 => Self::Rebooted { is_orderly: rng.bool(), takes: time(4.0, 100.0, rng) },
            _ => {
                let by = nanos(time(0.01, 100_000.0, rng));
                Self::WallClock(if rng.bool() { by } else { -by })
            }
        }
    }
}

/// A load with which a few clients fill several slots and workers.
fn load(min_clients_per_slot: usize, clients_per_worker: usize) -> Load {
    Load {
        min_clients_per_slot,
        max_clients_per_slot: 3 * min_clients_per_slot,
        clients_per_worker,
    }
}

/// A log-uniform random duration: short times are as frequent as long ones.
fn time(shortest_seconds: f64, longest_seconds: f64, rng: &mut Rng) -> Duration {
    let times = longest_seconds / shortest_seconds;
    Duration::from_secs_f64(shortest_seconds * times.powf(rng.f64()))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
