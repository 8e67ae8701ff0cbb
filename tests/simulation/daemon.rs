//! Drives the engine as the daemon's threads do. The world schedules the threads and keeps the time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use wakeupd::clock::Time;
use wakeupd::engine::guard::{Refused, Rules};
use wakeupd::engine::registry::Seed;
use wakeupd::engine::{self, Batch, Engine, ICMP_PAUSE, Outcome, Settings};
use wakeupd::listener::receive_interval;
use wakeupd::net::BATCH;
use wakeupd::snapshot::Snapshot;

use crate::clocks::{Clocks, When};
use crate::network::{Datagram, Socket};
use crate::oracle::{Due, Heard, Oracle};
use crate::plan::Plan;

pub const LOCAL_NETS: &str = "10.0.0.0/8";
pub const REFUSE_NETS: &str = "100.64.0.0/10";

/// How long the machine takes to wake a thread, to serve a slot and to record a batch.
const WAKING: Duration = Duration::from_micros(60);
const SERVING: Duration = Duration::from_micros(20);
const RECORDING: Duration = Duration::from_micros(200);

/// The world as the daemon sees it.
pub struct Outside<'a> {
    pub clocks: &'a Clocks,
    pub socket: &'a mut Socket,
    pub oracle: &'a mut Oracle,
    /// The clients that were sent a ping.
    pub pinged: &'a mut Vec<SocketAddr>,
    pub rng: &'a mut Rng,
}

/// The thread that runs next.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    Listener,
    Worker(usize),
    Keeper,
}

#[derive(Debug)]
pub struct Daemon {
    pub engine: Rc<Engine>,
    workers: Vec<Worker>,
    listener: Listener,
    /// When the next snapshot begins.
    pub keeper: When,
    frozen_until: When,
    /// When the workers end.
    pub end: Option<Time>,
}

#[derive(Debug)]
struct Listener {
    ready: When,
    held_until: When,
    /// Whether it received a full batch, so more may be waiting.
    is_draining: bool,
}

#[derive(Debug)]
struct Worker {
    ready: When,
    held_until: When,
    is_asleep: bool,
    has_ended: bool,
}

impl Daemon {
    /// Starts from the snapshot, if there is a usable one. The socket holds no datagram that arrived before
    /// `drained_until`.
    pub fn start(
        plan: &Plan,
        disk: Option<&[u8]>,
        drained_until: Time,
        clocks: &Clocks,
        rng: &mut Rng,
    ) -> Self {
        let now = clocks.moment();
        let snapshot =
            disk.map(|bytes| Snapshot::parse(bytes.to_vec()).expect("a complete snapshot parses"));
        let snapshot = snapshot.filter(|snapshot| now.since(&snapshot.header().taken).is_ok());
        let fresh = Seed([rng.u64(..), rng.u64(..)]);
        let seed = snapshot.as_ref().map_or(fresh, Snapshot::seed);
        let rules = Rules {
            refuse_nets: REFUSE_NETS.parse().unwrap(),
            local_nets: LOCAL_NETS.parse().unwrap(),
            ..Rules::new(plan.caps)
        };
        let settings = Settings {
            seed,
            workers: plan.workers,
            load: plan.load,
            max_icmp_errors: 500,
            receive_capacity: plan.buffer + 1,
            drained_until,
            ..Settings::new(rules, plan.expiration, now.now)
        };
        let engine = Engine::new(settings, now.now);
        let (mut from, mut slots) = (now.now, None);
        if let Some(snapshot) = snapshot {
            snapshot.restore(&engine, |_| true, &now);
            from = snapshot.pinged_until(&now).unwrap_or(from);
            slots = Some(snapshot.header().slots);
        }
        engine.resume(now.now, from, slots);
        let (ready, held_until) = (clocks.now, clocks.now);
        let worker = |_| Worker { ready, held_until, is_asleep: false, has_ended: false };
        Self {
            engine: Rc::new(engine),
            workers: (0..plan.workers).map(worker).collect(),
            listener: Listener { ready, held_until, is_draining: false },
            keeper: clocks.now,
            frozen_until: clocks.now,
            end: None,
        }
    }

    /// The next thread to run, and its time.
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

    /// Stops all threads until then.
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

    /// Wakes the listener.
    pub fn rouse(&mut self, now: When, rng: &mut Rng) {
        if !self.listener.is_draining {
            let woken = now + WAKING.mul_f64(rng.f64());
            self.listener.ready = self.listener.ready.min(woken);
        }
    }

    /// Begins the shutdown, as SIGTERM does.
    pub fn terminate(&mut self, clocks: &Clocks) {
        let end = clocks.boottime(clocks.now);
        self.engine.end(end);
        self.end = Some(end);
        self.listener.ready = When::NEVER;
        self.keeper = When::NEVER;
        for worker in self.workers.iter_mut().filter(|worker| worker.is_asleep) {
            worker.ready = worker.ready.min(clocks.now + WAKING);
        }
    }

    /// Whether all workers have ended.
    pub fn has_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.has_ended)
    }

    pub fn listen(&mut self, outside: &mut Outside) {
        let now = outside.clocks.now;
        let time = outside.clocks.boottime(now);
        self.take_errors(time, outside);
        let mut count = 0;
        while count < BATCH {
            let Some(datagram) = outside.socket.take() else { break };
            count += 1;
            self.receive(datagram, time, outside);
        }
        self.listener.is_draining = count == BATCH;
        self.engine.handle_received(time, count, count < BATCH);
        self.listener.ready = now
            + if count == BATCH {
                RECORDING
            } else if outside.socket.is_empty() {
                receive_interval(self.engine.guard().total())
            } else {
                WAKING
            };
    }

    fn take_errors(&mut self, time: Time, outside: &mut Outside) {
        let was_listening = self.engine.wants_icmp_errors(time);
        while let Some(client) = outside.socket.take_error() {
            if self.engine.handle_icmp_error(time, Some(client)) {
                outside.oracle.muted(client, outside.clocks.now);
            }
        }
        if was_listening && !self.engine.wants_icmp_errors(time) {
            outside.oracle.ignoring(outside.clocks.now + ICMP_PAUSE);
        }
    }

    fn receive(&mut self, datagram: Datagram, time: Time, outside: &mut Outside) {
        let Datagram { source, local, stamp, .. } = datagram;
        let now = outside.clocks.now;
        let waited = outside.clocks.wall().since(Time::default() + stamp);
        let received = engine::Datagram { source, local: Some(local), payload: &[], waited };
        let heard = match self.engine.handle_datagram(time, &received) {
            Outcome::Refused { reason, .. } => match reason {
                Refused::Stale => Heard::Stale,
                Refused::MaxClients
                | Refused::MaxClientsPerAddress
                | Refused::MaxClientsPerPrefix => Heard::Refused,
                _ => Heard::Barred,
            },
            Outcome::Accepted { registered: None, .. } => Heard::Renewed,
            Outcome::Accepted { registered: Some(registered), .. } => {
                let woken = self.workers[..registered.wakes].iter_mut();
                for worker in woken.filter(|worker| worker.is_asleep) {
                    let woken = now + WAKING.mul_f64(outside.rng.f64());
                    worker.ready = worker.ready.min(woken);
                }
                outside.oracle.follow(Due { at: now, slots: self.engine.slots(time) });
                Heard::Registered
            }
        };
        outside.oracle.heard(datagram, now, heard);
    }

    pub fn work(&mut self, number: usize, batch: &mut Batch, outside: &mut Outside) {
        let now = outside.clocks.now;
        let time = outside.clocks.boottime(now);
        let worker = &mut self.workers[number];
        worker.is_asleep = false;
        if let Some(slot) = self.engine.poll_slot(time, number, batch) {
            worker.ready = now + SERVING;
            let due = Due { at: outside.clocks.when(slot.due), slots: self.engine.slots(slot.due) };
            self.send(batch, due, outside);
            self.engine.handle_sent(batch);
            outside.oracle.removed(batch.removed(), now, outside.socket);
        } else if let Some(deadline) = self.engine.poll_timeout(time, number) {
            worker.is_asleep = true;
            let oversleeping = WAKING.mul_f64(outside.rng.f64());
            worker.ready = outside.clocks.when(deadline) + oversleeping;
        } else {
            worker.has_ended = true;
        }
    }

    fn send(&self, batch: &mut Batch, due: Due, outside: &mut Outside) {
        batch.for_each(|transmit| {
            for client in transmit.destinations {
                // Sometimes the kernel's send buffer is full.
                let is_sent = outside.rng.u16(..) > 30;
                if is_sent {
                    outside.pinged.push(*client);
                } else {
                    self.engine.handle_failed_send(*client);
                }
                let now = outside.clocks.now;
                outside.oracle.pinged(*client, transmit.source, due, now, is_sent);
            }
        });
    }
}
