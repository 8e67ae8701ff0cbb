//! Pings the clients of the shards it owns, each shard in its slot of the second.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use tracing::warn;

use crate::clock::{self, Time};
use crate::engine::registry::{LocalAddresses, Sweep, Target};
use crate::engine::schedule::{Schedule, owner};
use crate::net::{self, BATCH, Reaction, SendFailure, Sender};
use crate::state::State;
use crate::throttle::Throttle;
use crate::wire::PING;

/// What the kernel needs to get rid of some of what it holds.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(1);

/// How long a slot waits for room altogether, at the most.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// How long a worker without clients sleeps. Well below a second, so that it skips no slot.
pub const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// How long a worker that is behind may take for the slots that are due at the end.
pub const LAST_PATIENCE: Duration = Duration::from_millis(50);

/// Wakes workers, which sleep past the slots of shards that are empty.
#[derive(Debug)]
pub struct Alarm {
    sleepers: Vec<Sleeper>,
    /// In nanoseconds.
    end: AtomicU64,
}

/// What the alarm knows of a worker.
#[derive(Debug)]
struct Sleeper {
    thread: OnceLock<Thread>,
    /// When it was woken first since it looked for empty shards, in nanoseconds.
    woken: AtomicU64,
}

impl Sleeper {
    fn new() -> Self {
        Self { thread: OnceLock::new(), woken: u64::MAX.into() }
    }
}

impl Alarm {
    /// An alarm for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { sleepers: (0..workers).map(|_| Sleeper::new()).collect(), end: u64::MAX.into() }
    }

    /// Names the thread of a worker. This comes before any wake-up, so that no thread misses one.
    pub fn set_thread(&self, worker: usize, thread: Thread) {
        let _ = self.sleepers[worker].thread.set(thread);
    }

    /// Tells the owner of `shard` that it is not empty any more since `now`.
    pub fn wake(&self, shard: usize, now: Time) {
        let sleeper = &self.sleepers[owner(shard, self.sleepers.len())];
        sleeper.woken.fetch_min(now.as_nanos(), AcqRel);
        if let Some(thread) = sleeper.thread.get() {
            thread.unpark();
        }
    }

    /// Tells every worker to end with the slots that are due before `time`, which is now or a little later.
    pub fn end(&self, time: Time) {
        self.end.store(time.as_nanos(), Release);
        let threads = self.sleepers.iter().filter_map(|sleeper| sleeper.thread.get());
        threads.for_each(Thread::unpark);
    }

    /// When the workers end: in the far future until [`Self::end`] sets it.
    fn end_time(&self) -> Time {
        Time::from_nanos(self.end.load(Acquire))
    }

    /// Whether a worker whose next slot is `due` then has ended.
    fn is_over(&self, due: Time, now: Time) -> bool {
        let end = self.end_time();
        due >= end || now > end + LAST_PATIENCE
    }
}

/// One of those that send. Each has a thread of its own, which no other task can hold up.
#[derive(Debug)]
pub struct Worker {
    sender: Sender,
    state: Arc<State>,
    alarm: Arc<Alarm>,
    warnings: Arc<Warnings>,
    schedule: Schedule,
    /// What was due before is late by no fault of this daemon.
    begun: Time,
}

/// The serving of a slot.
#[derive(Clone, Copy, Debug)]
struct Round {
    due: Time,
    /// Until when to wait for room.
    patient_until: Time,
}

/// The local address that the pings of a group leave from.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// `None` is the kernel's choice.
    address: Option<IpAddr>,
    is_checked: bool,
}

impl Source {
    /// Returns the address if the machine has lost it, and goes on from the kernel's choice. The check takes
    /// a few system calls, so a group makes it once.
    fn drop_if_gone(&mut self, sender: &Sender) -> Option<IpAddr> {
        let unchecked = self.address.filter(|_| !self.is_checked);
        self.is_checked = true;
        let gone = unchecked.filter(|address| !sender.is_local(*address));
        if gone.is_some() {
            self.address = None;
        }
        gone
    }
}

/// What all workers together may warn of.
#[derive(Debug, Default)]
pub struct Warnings {
    failed_sends: [Throttle; SendFailure::ALL.len()],
    skipped_slots: Throttle,
}

impl Worker {
    /// A worker that walks `schedule` and sends through `sender`.
    #[must_use]
    pub fn new(
        sender: Sender,
        state: Arc<State>,
        alarm: Arc<Alarm>,
        warnings: Arc<Warnings>,
        schedule: Schedule,
    ) -> Self {
        Self { sender, state, alarm, warnings, schedule, begun: clock::now() }
    }

    /// Serves slot after slot until the alarm says that all is over.
    ///
    /// # Errors
    /// With what broke the socket, so that nobody could be pinged any more.
    pub fn run(mut self) -> io::Result<()> {
        let number = self.schedule.worker();
        let alarm = self.alarm.clone();
        let sleeper = &alarm.sleepers[number];
        let mut sweep = Sweep::default();
        let mut destinations = Vec::new();
        loop {
            let now = clock::now();
            if self.alarm.is_over(self.schedule.deadline(), now) {
                return Ok(());
            }
            self.state.health.workers[number].tick(now);
            if self.schedule.deadline() <= now {
                self.serve(now, &mut sweep, &mut destinations)?;
            } else {
                sleeper.woken.store(u64::MAX, Release);
                let next = self.next_deadline(now);
                thread::park_timeout(next.since(now));
                // Who registered meanwhile when its slot was over waits for the next. A slot that came
                // after is served, be it late.
                let woken = Time::from_nanos(sleeper.woken.load(Acquire));
                let passed = self.schedule.pass(next.min(woken).min(clock::now()));
                self.state.metrics.served_slots.add(passed);
            }
        }
    }

    /// When the worker must wake up: at the first slot with a non-empty shard, or at the end. Without the
    /// end, a worker with only empty slots left would sleep past it.
    fn next_deadline(&self, now: Time) -> Time {
        let latest = self.alarm.end_time().min(now + LONGEST_SLEEP);
        self.schedule
            .upcoming()
            .take_while(|(_, deadline)| *deadline < latest)
            .find(|(shard, _)| !self.state.registry.is_shard_empty(*shard))
            .map_or(latest, |(_, deadline)| deadline)
    }

    fn serve(
        &mut self,
        now: Time,
        sweep: &mut Sweep,
        destinations: &mut Vec<SocketAddr>,
    ) -> io::Result<()> {
        let slot = self.schedule.take(now);
        self.state.metrics.served_slots.add(1);
        if slot.skipped_seconds > 0 {
            self.skip(slot.skipped_seconds);
            if let Some(left_out) = self.warnings.skipped_slots.pass(now) {
                warn!(left_out, "skipped slots: a worker was a whole second late");
            }
        }
        if self.state.registry.is_shard_empty(slot.shard) {
            return Ok(());
        }
        self.state.registry.sweep(slot.shard, now, |ip| self.state.guard.is_pressed(ip), sweep);
        let patient_until = self.schedule.deadline().min(now + LONGEST_WAIT);
        let round = Round { due: slot.due.max(self.begun), patient_until };
        let Sweep { v4, v6, removed, locals } = sweep;
        self.ping_all(v4, locals, destinations, round)?;
        self.ping_all(v6, locals, destinations, round)?;
        // The pings come first: there may be many to count.
        for (client, removal) in removed.drain(..) {
            self.state.account_for(client, removal);
        }
        Ok(())
    }

    fn skip(&self, seconds: u64) {
        let clients = self.schedule.shards().map(|shard| self.state.registry.shard_len(shard));
        let (slots, clients) =
            clients.fold((0, 0), |(n, sum), clients| (n + 1, sum + clients as u64));
        self.state.metrics.skipped_slots.add(seconds * slots);
        self.state.metrics.skipped_pings.add(seconds * clients);
    }

    fn ping_all<A: Copy + Into<SocketAddr>>(
        &self,
        targets: &mut [Target<A>],
        locals: &LocalAddresses,
        destinations: &mut Vec<SocketAddr>,
        round: Round,
    ) -> io::Result<()> {
        // A call to the kernel sends from one address.
        targets.sort_unstable_by_key(|target| target.local);
        for group in targets.chunk_by(|a, b| a.local == b.local) {
            destinations.clear();
            destinations.extend(group.iter().map(|target| target.client.into()));
            self.ping(locals.of(group[0].local), destinations, round)?;
        }
        Ok(())
    }

    /// Pings every client of a group once, from `local`. The first ping that the kernel has no room for is sent
    /// once more. While the round is patient so is any other, after a wait.
    fn ping(&self, local: Option<IpAddr>, clients: &[SocketAddr], round: Round) -> io::Result<()> {
        let bound = self.sender.bound();
        let mut source = Source { address: local.or(bound), is_checked: false };
        let (mut done, mut most) = (0, BATCH);
        let mut retried = None;
        while done < clients.len() {
            let batch = &clients[done..clients.len().min(done + most)];
            let (sent, error) = self.sender.send(&PING, source.address, batch);
            let now = clock::now();
            self.state.metrics.pinged(sent as u64, now.since(round.due));
            done += sent;
            let Some(error) = error else {
                most = BATCH;
                continue;
            };
            if net::is_broken(&error) {
                return Err(error);
            }
            let failure = SendFailure::from(&error);
            let is_patient = now < round.patient_until;
            let gone = match failure.reaction() {
                Reaction::Wait if retried.is_none() || retried != Some(done) && is_patient => {
                    retried = Some(done);
                    if is_patient {
                        thread::sleep(WAIT_FOR_ROOM);
                    }
                    continue;
                }
                Reaction::CheckSource => source.drop_if_gone(&self.sender),
                Reaction::Wait | Reaction::GiveUp => None,
            };
            let left = &clients[done..];
            let failed = match (gone, failure) {
                (Some(_), _) if gone == bound => left.len(),
                (Some(_), _) => continue,
                // Full buffers have no room for the next ones either.
                (None, SendFailure::WouldBlock) => left.len().min(BATCH),
                (None, _) => 1,
            };
            left[..failed].iter().for_each(|client| self.fail(*client, failure, &error, now));
            done += failed;
            // The next may fail as well, as behind a lost route: a whole batch would be prepared in vain.
            most = 1;
        }
        Ok(())
    }

    fn fail(&self, client: SocketAddr, failure: SendFailure, error: &io::Error, now: Time) {
        self.state.registry.take_ping_back(client);
        self.state.metrics.failed_sends[failure as usize].add(1);
        if let Some(left_out) = self.warnings.failed_sends[failure as usize].pass(now) {
            let (reason, advice) = (failure.label(), failure.advice());
            warn!(%client, reason, %error, left_out, advice, "cannot send");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::config::Config;
    use crate::engine::guard::{Guard, Networks};
    use crate::engine::registry::{Registry, SHARDS, Seed};
    use crate::net::Socket;

    #[test]
    fn a_worker_never_sleeps_past_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _within = runtime.enter();
        let mut socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let sender = socket.senders(1).unwrap().remove(0);
        let (config, _) = Config::from_vars(iter::empty()).unwrap();
        let guard = Guard::new(config.guard, socket.address().port(), Networks::default());
        let registry = Registry::new(SHARDS, config.client_expiration, Seed::random());
        let state = Arc::new(State::new(guard, registry, 1));
        let (alarm, now) = (Arc::new(Alarm::new(1)), clock::now());
        let schedule = Schedule::new(now, SHARDS, 0, 1);
        let worker = Worker::new(sender, state, alarm.clone(), Arc::default(), schedule);
        assert_eq!(worker.next_deadline(now), now + LONGEST_SLEEP);
        // Slots of empty shards are due before that.
        let end = now + Duration::from_millis(100);
        alarm.end(end);
        assert_eq!(worker.next_deadline(now), end);
        worker.run().unwrap();
    }
}
