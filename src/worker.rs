//! Sends the pings of the worker's shards, each shard in its slot of the second.

mod threads;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::{debug, warn};

pub use self::threads::WorkerThreads;
use crate::catalogue::log::SLOTS_SKIPPED;
use crate::clock::{self, Time};
use crate::engine::{Batch, Slot, Transmit};
use crate::net::{self, BATCH, Reaction, SendFailure, Sender};
use crate::shared::Shared;
use crate::throttle::Throttle;

/// The delay before a retry when the kernel had no room for a ping.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(1);

/// The maximum total delay for retries in a slot.
const MAX_WAIT_FOR_ROOM: Duration = Duration::from_millis(10);

/// A worker. It runs in its own thread, so no other task can delay it.
#[derive(Debug)]
pub struct Worker {
    number: usize,
    sender: Sender,
    shared: Arc<Shared>,
    warnings: Arc<Warnings>,
    /// When the worker started. The lateness of a ping that was due earlier is measured from this time.
    started: Time,
}

/// The deadlines for the pings of a slot.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    due: Time,
    /// Until this time, the worker waits before each retry.
    patient_until: Time,
}

/// The local address from which the pings of a group leave.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// `None` means that the kernel chooses the source address.
    address: Option<IpAddr>,
    is_checked: bool,
}

impl Source {
    /// Returns the address if the machine no longer has it, otherwise `None`. After a loss, the kernel
    /// chooses the address for the rest of the group. The check takes a few system calls, so it runs once per
    /// group.
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

/// Rate-limits the warnings of all workers together.
#[derive(Debug, Default)]
pub struct Warnings {
    failed_pings: [Throttle; SendFailure::ALL.len()],
    skipped_slots: Throttle,
}

impl Worker {
    /// Creates worker number `number` of the engine, which sends through `sender`.
    #[must_use]
    pub fn new(
        number: usize,
        sender: Sender,
        shared: Arc<Shared>,
        warnings: Arc<Warnings>,
    ) -> Self {
        Self { number, sender, shared, warnings, started: clock::now() }
    }

    /// Serves slot after slot until the engine ends.
    ///
    /// # Errors
    /// If the socket is broken, so no client could be pinged any more.
    pub fn run(self) -> io::Result<()> {
        let shared = &self.shared;
        let mut batch = Batch::default();
        let beat = &shared.watchdog.workers[self.number];
        loop {
            let now = clock::now();
            beat.tick(now);
            if let Some(slot) = shared.engine.poll_slot(now, self.number, &mut batch) {
                self.serve(&slot, &mut batch, now)?;
            } else if let Some(deadline) = shared.engine.poll_timeout(now, self.number) {
                beat.sleep(deadline);
                thread::park_timeout(deadline.since(now));
            } else {
                return Ok(());
            }
        }
    }

    fn serve(&self, slot: &Slot, batch: &mut Batch, now: Time) -> io::Result<()> {
        if slot.skipped_seconds > 0
            && let Some(suppressed) = self.warnings.skipped_slots.pass(now)
        {
            warn!(suppressed, "{}", SLOTS_SKIPPED.summary);
        }
        let deadlines = Deadlines {
            due: slot.due.max(self.started),
            patient_until: slot.next_due.min(now + MAX_WAIT_FOR_ROOM),
        };
        batch.try_for_each(|transmit| self.send(transmit, deadlines))?;
        self.shared.engine.handle_sent(batch);
        for (client, removal) in batch.removed() {
            debug!(%client, reason = removal.label(), "removed");
        }
        Ok(())
    }

    /// Sends a datagram to each destination once. If the kernel has no room for a datagram, that datagram is
    /// retried once, after a delay. After `patient_until`, the retry comes without a delay, and only for the
    /// first such datagram.
    fn send(&self, transmit: Transmit<'_>, deadlines: Deadlines) -> io::Result<()> {
        let Transmit { emission, source, destinations } = transmit;
        let bound = self.sender.bound();
        let mut source = Source { address: source.or(bound), is_checked: false };
        let (mut done, mut most) = (0, BATCH);
        let mut retried = None;
        while done < destinations.len() {
            let batch = &destinations[done..destinations.len().min(done + most)];
            let (sent, error) = self.sender.send(emission.payload(), source.address, batch);
            let now = clock::now();
            self.shared.metrics.pinged(sent as u64, now.since(deadlines.due));
            done += sent;
            let Some(error) = error else {
                most = BATCH;
                continue;
            };
            let failure = SendFailure::from(&error);
            let is_patient = now < deadlines.patient_until;
            let gone = match net::reaction(&error) {
                Reaction::EndWorker => return Err(error),
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
            let left = &destinations[done..];
            let failed = match gone {
                Some(_) if gone == bound => left.len(),
                Some(_) => continue,
                None => left.len().min(failure.lost_pings()),
            };
            left[..failed].iter().for_each(|client| self.fail(*client, failure, &error, now));
            done += failed;
            // The next ping may fail as well, for example without a route, so do not prepare a whole batch.
            most = 1;
        }
        Ok(())
    }

    fn fail(&self, client: SocketAddr, failure: SendFailure, error: &io::Error, now: Time) {
        self.shared.engine.handle_failed_send(client);
        self.shared.metrics.failed_pings[failure as usize].add(1);
        if let Some(suppressed) = self.warnings.failed_pings[failure as usize].pass(now) {
            let (reason, advice) = (failure.label(), failure.problem().remedy);
            warn!(%client, reason, %error, suppressed, advice, "cannot send a ping");
        }
    }
}
