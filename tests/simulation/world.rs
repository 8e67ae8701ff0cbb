//! The simulated world: an event loop that owns the daemon, its clients, the network and the clocks.

mod snapshots;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use wakeupd::clock::MACHINE_START;
use wakeupd::engine::Batch;

use crate::clocks::{Clocks, When};
use crate::crowd::Crowd;
use crate::daemon::{Daemon, Outside, Turn};
use crate::network::{Datagram, Socket};
use crate::oracle::{Failure, Oracle, Restart, Tally};
use crate::plan::{BOOT, Fault, Plan};

const AUDITS: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A device joins.
    Come,
    /// This device sends a heartbeat.
    Beat(usize),
    /// A gateway gives one or all of its devices a new mapping.
    Rebind,
    Forge,
    /// A datagram from this source reaches this address of the machine.
    Arrive(SocketAddr, IpAddr),
    /// The host of this client returns ICMP port unreachable.
    Refuse(SocketAddr),
    Fault,
    Hiccup,
    /// SIGTERM reaches the process.
    Terminate,
    /// The daemon starts again.
    Start,
    Audit,
}

/// The daemon is down or shutting down.
#[derive(Clone, Copy, Debug)]
struct Down {
    restart: Restart,
    since: When,
    lasts: Duration,
}

#[derive(Debug)]
pub struct World {
    plan: Plan,
    rng: Rng,
    clocks: Clocks,
    events: BinaryHeap<Reverse<(When, u64, usize)>>,
    /// The queued events; the queue holds indices into this list.
    slots: Vec<Event>,
    free: Vec<usize>,
    count: u64,
    crowd: Crowd,
    socket: Socket,
    daemon: Option<Daemon>,
    /// The number of restarts of the daemon.
    life: u32,
    down: Option<Down>,
    /// No datagram reaches the machine until then.
    unreachable_until: When,
    disk: Option<Vec<u8>>,
    oracle: Oracle,
    batch: Batch,
    pinged: Vec<SocketAddr>,
    is_over: bool,
}

/// Runs a plan to its end.
///
/// # Errors
/// Returns the first broken promise.
pub fn live(plan: &Plan, watched: Option<SocketAddr>) -> Result<Tally, Box<Failure>> {
    World::new(plan, watched).live()
}

impl World {
    fn new(plan: &Plan, watched: Option<SocketAddr>) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let clocks = Clocks::new(BOOT + plan.uptime, Duration::from_secs(1_800_000_000));
        let bound = clocks.boottime(clocks.now);
        let daemon = Daemon::start(plan, None, bound, &clocks, &mut rng);
        Self {
            crowd: Crowd::new(plan, &mut rng),
            clocks,
            events: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            count: 0,
            socket: Socket::new(plan.buffer),
            daemon: Some(daemon),
            life: 0,
            down: None,
            unreachable_until: When::default(),
            disk: None,
            oracle: Oracle::new(plan, watched),
            batch: Batch::default(),
            pinged: Vec::new(),
            is_over: false,
            plan: plan.clone(),
            rng,
        }
    }

    fn live(mut self) -> Result<Tally, Box<Failure>> {
        for _ in 0..self.plan.clients {
            let after = self.plan.coming.mul_f64(self.rng.f64());
            self.at(after, Event::Come);
        }
        self.wait(self.plan.faults, Event::Fault);
        self.wait(self.plan.hiccups, Event::Hiccup);
        self.wait(self.plan.forgeries, Event::Forge);
        self.wait(self.plan.rebindings, Event::Rebind);
        self.at(AUDITS, Event::Audit);
        self.run_until(When::BEGINNING + self.plan.length);
        // All clients fall silent. The wait outlasts every expiration and every downtime.
        self.is_over = true;
        let rest = self.plan.expiration + Duration::from_secs(600);
        self.run_until(self.clocks.now + rest);
        self.audit();
        if self.oracle.failure.is_none() {
            let left = self.daemon.as_ref().map(|daemon| daemon.engine.registry().len());
            if left != Some(0) {
                self.oracle.fail(
                    None,
                    self.clocks.now,
                    format!("{left:?} clients are left at the end"),
                );
            }
        }
        self.oracle.end()
    }

    fn at(&mut self, after: Duration, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(event);
            self.slots.len() - 1
        });
        self.slots[slot] = event;
        self.count += 1;
        self.events.push(Reverse((self.clocks.now + after, self.count, slot)));
    }

    fn wait(&mut self, often: Duration, event: Event) {
        let after = Plan::wait(often, &mut self.rng);
        self.at(after, event);
    }

    fn run_until(&mut self, until: When) {
        while self.oracle.failure.is_none() {
            let event = self.events.peek().map_or(When::NEVER, |Reverse((when, ..))| *when);
            let daemon = self.daemon.as_ref().map(Daemon::next);
            let turn = daemon.filter(|(when, _)| *when < event);
            let next = turn.map_or(event, |(when, _)| when);
            if next > until {
                break;
            }
            self.clocks.now = next;
            if let Some((_, turn)) = turn {
                self.take(turn);
            } else if let Some(Reverse((_, _, slot))) = self.events.pop() {
                self.free.push(slot);
                self.happen(self.slots[slot]);
            }
        }
        self.clocks.now = self.clocks.now.max(until);
    }

    fn take(&mut self, turn: Turn) {
        let Some(daemon) = &mut self.daemon else { return };
        let mut outside = Outside {
            clocks: &self.clocks,
            socket: &mut self.socket,
            oracle: &mut self.oracle,
            pinged: &mut self.pinged,
            rng: &mut self.rng,
        };
        match turn {
            Turn::Listener => daemon.listen(&mut outside),
            Turn::Worker(number) => {
                daemon.work(number, &mut self.batch, &mut outside);
                let end = daemon.end.filter(|_| daemon.has_ended());
                for client in std::mem::take(&mut self.pinged) {
                    if Crowd::is_closed(client) {
                        let after = Duration::from_millis(self.rng.u64(1..100));
                        self.at(after, Event::Refuse(client));
                    }
                }
                if end.is_some() {
                    self.save(end);
                    self.go();
                }
            }
            Turn::Keeper => self.save_slowly(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(source, local) => self.arrive(source, local),
            Event::Refuse(client) => {
                self.oracle.closed(client, self.clocks.now);
                self.socket.put_error(client);
                self.rouse(true);
            }
            Event::Audit => {
                self.audit();
                self.at(AUDITS, Event::Audit);
            }
            Event::Terminate => self.terminate(),
            Event::Start => self.start(),
            _ if self.is_over => {}
            Event::Come => {
                let device = self.crowd.arrive(self.clocks.now, &mut self.rng);
                self.beat(device);
            }
            Event::Beat(device) => self.beat(device),
            Event::Rebind => {
                if self.rng.u8(..) < 25 {
                    self.crowd.restart_gateway(&mut self.rng);
                } else if !self.crowd.devices.is_empty() {
                    self.crowd.rebind(self.rng.usize(..self.crowd.devices.len()));
                }
                self.wait(self.plan.rebindings, event);
            }
            Event::Forge => {
                let (sources, over) = self.crowd.forge(&mut self.rng);
                for source in sources {
                    let after = over.mul_f64(self.rng.f64());
                    let local = Crowd::local(source);
                    self.at(after, Event::Arrive(source, local));
                }
                self.wait(self.plan.forgeries, event);
            }
            Event::Fault => {
                let fault = Fault::random(&self.plan, &mut self.rng);
                self.suffer(fault);
                self.wait(self.plan.faults, event);
            }
            Event::Hiccup => {
                let fault = Fault::hiccup(&self.plan, &mut self.rng);
                self.suffer(fault);
                self.wait(self.plan.hiccups, event);
            }
        }
    }

    fn beat(&mut self, device: usize) {
        let now = self.clocks.now;
        if self.crowd.devices[device].leaves < now {
            return;
        }
        let delays = self.crowd.delays(device, now, &mut self.rng);
        let known = &self.crowd.devices[device];
        let (source, local) = (known.address, known.local);
        self.oracle.note(source, now, || format!("sends; it arrives after {delays:?}"));
        let pause = known.pause(&mut self.rng);
        self.at(pause, Event::Beat(device));
        for delay in delays {
            self.at(delay, Event::Arrive(source, local));
        }
    }

    fn arrive(&mut self, source: SocketAddr, local: IpAddr) {
        let now = self.clocks.now;
        let stamp = Duration::from_nanos(self.clocks.wall().as_nanos());
        let datagram = Datagram { source, local, arrived: now, stamp };
        let is_taken = now >= self.unreachable_until && self.socket.put(datagram);
        self.oracle.note(datagram.source, now, || {
            if is_taken { "it is queued in the socket" } else { "it is lost" }.to_owned()
        });
        self.rouse(is_taken);
    }

    /// Wakes the listener, if `is_so`.
    fn rouse(&mut self, is_so: bool) {
        let listens = |daemon: &&mut Daemon| is_so && daemon.end.is_none();
        if let Some(daemon) = self.daemon.as_mut().filter(listens) {
            daemon.rouse(self.clocks.now, &mut self.rng);
        }
    }

    fn suffer(&mut self, fault: Fault) {
        let now = self.clocks.now;
        if let Fault::WallClock(by) = fault {
            self.oracle.wall_set(now);
            return self.clocks.set_wall(by);
        }
        let Some(daemon) = &mut self.daemon else { return };
        if self.down.is_some() {
            return;
        }
        self.oracle.tally.faults += 1;
        self.oracle.remark(now, || format!("{fault:?}"));
        match fault {
            Fault::Frozen(length) | Fault::Suspended(length) => {
                daemon.freeze(now + length);
                self.oracle.late(now, now + length);
                if matches!(fault, Fault::Suspended(_)) {
                    self.unreachable_until = self.unreachable_until.max(now + length);
                }
            }
            Fault::LateWorker(worker, length) => {
                daemon.hold_worker_up(worker, now + length);
                self.oracle.late(now, now + length);
            }
            Fault::LateListener(length) => {
                daemon.hold_listener_up(now + length);
                self.oracle.deaf(now + length);
            }
            Fault::Terminated(lasts) => {
                self.down = Some(Down { restart: Restart::Terminated, since: now, lasts });
                self.terminate();
            }
            Fault::Killed(lasts) => {
                self.oracle.ends(now);
                self.down = Some(Down { restart: Restart::Killed, since: now, lasts });
                self.go();
            }
            Fault::Rebooted { is_orderly, takes: lasts } => {
                self.down = Some(Down { restart: Restart::Rebooted, since: now, lasts });
                if is_orderly {
                    self.terminate();
                } else {
                    self.oracle.ends(now);
                    self.go();
                }
            }
            Fault::WallClock(_) => unreachable!("handled above"),
        }
    }

    fn terminate(&mut self) {
        let now = self.clocks.now;
        let (Some(daemon), Some(down)) = (&mut self.daemon, &mut self.down) else { return };
        // A stopped process receives the signal when it continues.
        let frozen = daemon.frozen_until().since(now);
        if frozen > Duration::ZERO {
            return self.at(frozen, Event::Terminate);
        }
        down.since = now;
        daemon.terminate(&self.clocks);
        self.oracle.ends(now);
    }

    /// Drops the daemon and schedules the next start.
    fn go(&mut self) {
        let Some(down) = self.down else { return };
        self.daemon = None;
        if !self.plan.keeps_socket || down.restart == Restart::Rebooted {
            self.socket.close();
        }
        self.at(down.lasts, Event::Start);
    }

    fn start(&mut self) {
        let Some(Down { restart, since, .. }) = self.down.take() else { return };
        if restart == Restart::Rebooted {
            self.clocks.reboot(BOOT + Duration::from_millis(self.rng.u64(3_000..30_000)));
        }
        self.socket.is_open = true;
        self.life += 1;
        let disk = self.disk.as_deref();
        let keeps_socket = self.plan.keeps_socket && restart != Restart::Rebooted;
        let drained_until =
            if keeps_socket { MACHINE_START } else { self.clocks.boottime(self.clocks.now) };
        let daemon = Daemon::start(&self.plan, disk, drained_until, &self.clocks, &mut self.rng);
        let restart = if disk.is_none() { Restart::Forgotten } else { restart };
        self.oracle.restarted(restart, since, &self.clocks, daemon.engine.registry());
        self.daemon = Some(daemon);
    }

    fn audit(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        if self.down.is_none() {
            self.oracle.audit(self.clocks.now, &daemon.engine);
        }
    }
}
