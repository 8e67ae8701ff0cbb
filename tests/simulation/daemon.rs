//! The core, joined as `daemon`, `listener` and `worker` join it, but that time comes from the world.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use wakeupd::clock::Time;
use wakeupd::daemon::LONGEST_CATCH_UP;
use wakeupd::engine::guard::{
    Backlog, Budget, Guard, Mode, Nat64Prefixes, Networks, Rules, Stale, Unreachable,
};
use wakeupd::engine::registry::{LocalAddresses, Refreshed, Registry, SHARDS, Seed, Sweep, Target};
use wakeupd::engine::schedule::{Schedule, owner};
use wakeupd::listener::LOOK_INTERVAL;
use wakeupd::net::BATCH;
use wakeupd::snapshot::Snapshot;
use wakeupd::wire::DEFAULT_PORT;
use wakeupd::worker::{LAST_PATIENCE, LONGEST_SLEEP};

use crate::clocks::{Clocks, When};
use crate::network::{Datagram, Socket};
use crate::oracle::{Heard, Oracle};
use crate::plan::Plan;

pub const LOCAL_NETS: &str = "10.0.0.0/8";
pub const REFUSE_NETS: &str = "100.64.0.0/10";

/// What the machine needs to wake a thread, to serve a slot and to record a batch.
const WAKING: Duration = Duration::from_micros(60);
const SERVING: Duration = Duration::from_micros(20);
const RECORDING: Duration = Duration::from_micros(200);

/// All that the daemon touches outside of itself.
pub struct Outside<'a> {
    pub clocks: &'a Clocks,
    pub socket: &'a mut Socket,
    pub oracle: &'a mut Oracle,
    /// Whom a ping went to.
    pub pinged: &'a mut Vec<SocketAddr>,
    pub rng: &'a mut Rng,
}

#[derive(Debug)]
pub struct Core {
    pub guard: Guard,
    pub registry: Registry,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    Listener,
    Worker(usize),
    Keeper,
}

#[derive(Debug)]
pub struct Daemon {
    pub core: Rc<Core>,
    workers: Vec<Worker>,
    listener: Listener,
    /// When the next snapshot is begun.
    pub keeper: When,
    frozen_until: When,
    /// Since when it is to end.
    pub end: Option<Time>,
}

#[derive(Debug)]
struct Listener {
    ready: When,
    held_until: When,
    /// While the socket is not empty: since when, and what has been received.
    drain: Option<(Time, usize)>,
    backlog: Backlog,
    unreachable: Unreachable,
    budget: Budget,
    ignores_errors_until: Option<Time>,
}

#[derive(Debug)]
struct Worker {
    ready: When,
    held_until: When,
    schedule: Schedule,
    /// Until when it meant to sleep.
    parked: Option<Time>,
    /// When it was woken first since it looked for empty shards.
    woken: Option<Time>,
    has_ended: bool,
}

impl Daemon {
    /// Starts from the snapshot, if there is one that is of use. Nothing that arrived before `drained_until`
    /// waits in the socket.
    pub fn start(
        plan: &Plan,
        disk: Option<&[u8]>,
        drained_until: Time,
        clocks: &Clocks,
        rng: &mut Rng,
    ) -> Self {
        let now = clocks.moment();
        let snapshot = disk.map(|bytes| {
            Snapshot::parse(bytes.to_vec()).expect("what was written whole can be read")
        });
        let snapshot = snapshot.filter(|snapshot| now.since(&snapshot.header().taken).is_ok());
        let fresh = Seed([rng.u64(..), rng.u64(..)]);
        let seed = snapshot.as_ref().map_or(fresh, Snapshot::seed);
        let rules = Rules {
            mode: Mode::Enforce,
            refuse_nets: REFUSE_NETS.parse().unwrap(),
            local_nets: LOCAL_NETS.parse().unwrap(),
            nat64_prefixes: Nat64Prefixes::default(),
            caps: plan.caps,
        };
        let core = Core {
            guard: Guard::new(rules, DEFAULT_PORT, Networks::default()),
            registry: Registry::new(SHARDS, plan.expiration, seed),
        };
        let mut from = now.now;
        if let Some(snapshot) = snapshot {
            snapshot.restore(&core.registry, &core.guard, |_| true, &now);
            from = snapshot.pinged_until(&now).unwrap_or(from);
        }
        let from = if now.now.since(from) <= LONGEST_CATCH_UP { from } else { now.now };
        let worker = |number| Worker {
            ready: clocks.now,
            held_until: clocks.now,
            schedule: Schedule::new(from, SHARDS, number, plan.workers),
            parked: None,
            woken: None,
            has_ended: false,
        };
        Self {
            core: Rc::new(core),
            workers: (0..plan.workers).map(worker).collect(),
            listener: Listener {
                ready: clocks.now,
                held_until: clocks.now,
                drain: None,
                backlog: Backlog::new(plan.expiration, drained_until),
                unreachable: Unreachable::new(500),
                budget: Budget::new(500),
                ignores_errors_until: None,
            },
            keeper: clocks.now,
            frozen_until: clocks.now,
            end: None,
        }
    }

    /// Who is next, and when.
    pub fn next(&self) -> (When, Turn) {
        let workers = self.workers.iter().enumerate().filter(|(_, worker)| !worker.has_ended);
        let mut next = (self.listener.ready.max(self.listener.held_until), Turn::Listener);
        for (number, worker) in workers {
            let ready = worker.ready.max(worker.held_until);
            if ready < next.0 {
                next = (ready, Turn::Worker(number));
            }
        }
        if self.keeper < next.0 {
            next = (self.keeper, Turn::Keeper);
        }
        (next.0.max(self.frozen_until), next.1)
    }

    /// Stops everything for a while.
    pub fn freeze(&mut self, until: When) {
        self.frozen_until = self.frozen_until.max(until);
    }

    pub fn frozen_until(&self) -> When {
        self.frozen_until
    }

    pub fn hold_worker_up(&mut self, worker: usize, until: When) {
        let held_until = &mut self.workers[worker].held_until;
        *held_until = until.max(*held_until);
    }

    pub fn hold_listener_up(&mut self, until: When) {
        self.listener.held_until = until.max(self.listener.held_until);
    }

    /// Something has arrived.
    pub fn rouse(&mut self, now: When, rng: &mut Rng) {
        if self.listener.drain.is_none() {
            let woken = now + WAKING.mul_f64(rng.f64());
            self.listener.ready = self.listener.ready.min(woken);
        }
    }

    /// Tells it to end, as SIGTERM does.
    pub fn terminate(&mut self, clocks: &Clocks) {
        self.end = Some(clocks.boottime(clocks.now));
        self.listener.ready = When::NEVER;
        self.keeper = When::NEVER;
        for worker in self.workers.iter_mut().filter(|worker| worker.parked.is_some()) {
            worker.ready = worker.ready.min(clocks.now + WAKING);
        }
    }

    /// Whether it has done all that it has to do before it ends.
    pub fn has_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.has_ended)
    }

    pub fn listen(&mut self, outside: &mut Outside) {
        let now = outside.clocks.now;
        let time = outside.clocks.boottime(now);
        self.take_errors(time, outside);
        let (begun, received) = self.listener.drain.take().unwrap_or((time, 0));
        let stale = self.listener.backlog.stale(time, || outside.clocks.wall());
        let mut count = 0;
        while count < BATCH {
            let Some(datagram) = outside.socket.take() else { break };
            count += 1;
            self.record(datagram, &stale, time, outside);
        }
        if count < BATCH {
            self.heard_until(time);
            let is_quiet = outside.socket.is_empty();
            self.listener.ready = now + if is_quiet { LOOK_INTERVAL } else { WAKING };
            return;
        }
        let mut drain = (begun, received + count);
        if drain.1 > outside.socket.most_waiting() {
            self.heard_until(begun);
            drain = (time, 0);
        }
        self.listener.drain = Some(drain);
        self.listener.ready = now + RECORDING;
    }

    fn take_errors(&mut self, time: Time, outside: &mut Outside) {
        let Listener { unreachable, budget, ignores_errors_until, .. } = &mut self.listener;
        let registry = &self.core.registry;
        let _ = ignores_errors_until.take_if(|until| *until <= time);
        while let Some(client) = outside.socket.take_error() {
            if ignores_errors_until.is_some() {
                continue;
            }
            if !budget.spend(time) {
                *ignores_errors_until = Some(time + Budget::PAUSE);
                outside.oracle.ignoring(outside.clocks.now + Budget::PAUSE);
                continue;
            }
            let Some(last_heartbeat) = registry.last_heartbeat(client, time) else { continue };
            if unreachable.report(client, last_heartbeat, time) {
                registry.mute(client);
                outside.oracle.muted(client, outside.clocks.now);
            }
        }
    }

    fn heard_until(&mut self, time: Time) {
        self.core.registry.heard_until(time);
        self.listener.backlog.drained_until(time);
    }

    fn record(&mut self, datagram: Datagram, stale: &Stale, time: Time, outside: &mut Outside) {
        let Datagram { source, local, stamp, .. } = datagram;
        let now = outside.clocks.now;
        if stale.covers(Some(stamp)) {
            return outside.oracle.heard(datagram, now, Heard::Stale);
        }
        let Core { guard, registry } = &*self.core;
        if guard.admit(source).is_err() {
            return outside.oracle.heard(datagram, now, Heard::Barred);
        }
        let admit = || guard.reserve(source.ip()).is_ok();
        let heard = match registry.refresh(source, Some(local), time, admit) {
            Refreshed::Refused => Heard::Refused,
            Refreshed::Renewed => Heard::Renewed,
            Refreshed::Registered { shard, is_first } => {
                let worker = &mut self.workers[owner(shard, outside.oracle.workers)];
                if is_first && worker.parked.is_some() {
                    worker.woken.get_or_insert(time);
                    let woken = now + WAKING.mul_f64(outside.rng.f64());
                    worker.ready = worker.ready.min(woken);
                }
                Heard::Registered
            }
        };
        outside.oracle.heard(datagram, now, heard);
    }

    pub fn work(&mut self, number: usize, sweep: &mut Sweep, outside: &mut Outside) {
        let now = outside.clocks.now;
        let time = outside.clocks.boottime(now);
        let worker = &mut self.workers[number];
        if let Some(next) = worker.parked.take() {
            let woken = worker.woken.take().unwrap_or(time);
            worker.schedule.pass(next.min(woken).min(time));
        }
        let deadline = worker.schedule.deadline();
        if self.end.is_some_and(|end| deadline >= end || time > end + LAST_PATIENCE) {
            worker.has_ended = true;
            return;
        }
        if deadline <= time {
            worker.ready = now + SERVING;
            self.serve(number, time, sweep, outside);
            return;
        }
        let latest = time + LONGEST_SLEEP;
        let next = worker
            .schedule
            .upcoming()
            .take_while(|(_, deadline)| *deadline < latest)
            .find(|(shard, _)| !self.core.registry.is_shard_empty(*shard))
            .map_or(latest, |(_, deadline)| deadline);
        worker.parked = Some(next);
        let oversleeping = WAKING.mul_f64(outside.rng.f64());
        worker.ready = outside.clocks.when(next) + oversleeping;
    }

    fn serve(&mut self, number: usize, time: Time, sweep: &mut Sweep, outside: &mut Outside) {
        let Core { guard, registry } = &*self.core;
        let slot = self.workers[number].schedule.take(time);
        if registry.is_shard_empty(slot.shard) {
            return;
        }
        registry.sweep(slot.shard, time, |ip| guard.is_pressed(ip), sweep);
        let due = outside.clocks.when(slot.due);
        self.ping(&sweep.v4, &sweep.locals, due, outside);
        self.ping(&sweep.v6, &sweep.locals, due, outside);
        outside.oracle.removed(&sweep.removed, outside.clocks.now, outside.socket);
        for (client, _) in sweep.removed.drain(..) {
            guard.release(client.ip());
        }
    }

    fn ping<A: Copy + Into<SocketAddr>>(
        &self,
        targets: &[Target<A>],
        locals: &LocalAddresses,
        due: When,
        outside: &mut Outside,
    ) {
        let registry = &self.core.registry;
        for target in targets {
            let client = target.client.into();
            // The kernel has no room for it.
            let is_sent = outside.rng.u16(..) > 30;
            if is_sent {
                outside.pinged.push(client);
            } else {
                registry.take_ping_back(client);
            }
            let local = locals.of(target.local);
            outside.oracle.pinged(client, local, due, outside.clocks.now, is_sent);
        }
    }
}
