//! Pings the clients of the shards it owns, each shard in its slot of the second.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::clock::{self, Time};
use crate::metrics::Metrics;
use crate::net::{SendFailure, Socket};
use crate::registry::{Registry, Sweep, Target};
use crate::schedule::Schedule;
use crate::throttle::Throttle;
use crate::wire::PING;

/// What the kernel needs to get rid of some of what it holds.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(1);

/// How long a slot waits for room altogether, at the most.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// One of the tasks that send.
#[derive(Debug)]
pub struct Worker {
    socket: Arc<Socket>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    warnings: Arc<Warnings>,
    schedule: Schedule,
}

/// What all workers together may warn of.
#[derive(Debug, Default)]
pub struct Warnings {
    failed_sends: [Throttle; SendFailure::ALL.len()],
    skipped_slots: Throttle,
}

impl Worker {
    /// A worker that walks `schedule` and sends through `socket`.
    #[must_use]
    pub fn new(
        socket: Arc<Socket>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        warnings: Arc<Warnings>,
        schedule: Schedule,
    ) -> Self {
        Self { socket, registry, metrics, warnings, schedule }
    }

    /// Serves slot after slot, for ever.
    pub async fn run(mut self) -> Infallible {
        let mut sweep = Sweep::default();
        let mut destinations = Vec::new();
        loop {
            match self.schedule.deadline().since(clock::now()) {
                // Also a worker that is behind lets the others have their turn.
                Duration::ZERO => tokio::task::yield_now().await,
                early => tokio::time::sleep(early).await,
            }
            self.serve_slot(&mut sweep, &mut destinations).await;
        }
    }

    async fn serve_slot(&mut self, sweep: &mut Sweep, destinations: &mut Vec<SocketAddr>) {
        let now = clock::now();
        let slot = self.schedule.take(now);
        self.metrics.served(slot.lateness);
        if slot.skipped > 0 {
            self.metrics.skipped_slots.add(slot.skipped);
            if let Some(left_out) = self.warnings.skipped_slots.pass(now) {
                warn!(left_out, "skipped slots that were a whole second late");
            }
        }
        self.registry.sweep(slot.shard, now, sweep);
        self.metrics.expired.add(sweep.expired.len() as u64);
        for client in &sweep.expired {
            debug!(%client, "expired");
        }
        let patient_until = self.schedule.deadline().min(now + LONGEST_WAIT);
        self.ping_all(&mut sweep.v4, destinations, patient_until).await;
        self.ping_all(&mut sweep.v6, destinations, patient_until).await;
    }

    async fn ping_all<A: Copy + Into<SocketAddr>>(
        &self,
        targets: &mut [Target<A>],
        destinations: &mut Vec<SocketAddr>,
        patient_until: Time,
    ) {
        // A call to the kernel sends from one address.
        targets.sort_unstable_by_key(|target| target.local);
        for group in targets.chunk_by(|a, b| a.local == b.local) {
            destinations.clear();
            destinations.extend(group.iter().map(|target| target.client.into()));
            let local = self.registry.address_of(group[0].local);
            self.ping(local, destinations, patient_until).await;
        }
    }

    /// Pings every client once. One that the kernel has no room for is tried once more, until
    /// `patient_until` after a wait.
    async fn ping(&self, local: Option<IpAddr>, clients: &[SocketAddr], patient_until: Time) {
        let mut done = 0;
        let mut retried = None;
        while done < clients.len() {
            let (sent, error) = self.socket.send(&PING, local, &clients[done..]);
            self.metrics.pings.add(sent as u64);
            done += sent;
            let Some(error) = error else { break };
            let failure = SendFailure::from(&error);
            if failure.is_for_want_of_room() && retried != Some(done) {
                retried = Some(done);
                if clock::now() < patient_until {
                    tokio::time::sleep(WAIT_FOR_ROOM).await;
                }
                continue;
            }
            let client = clients[done];
            if local.is_some()
                && failure.may_be_the_local_address()
                && self.socket.send(&PING, None, &[client]).1.is_none()
            {
                self.metrics.pings.add(1);
            } else {
                self.fail(client, failure, clock::now());
            }
            done += 1;
        }
    }

    fn fail(&self, client: SocketAddr, failure: SendFailure, now: Time) {
        self.metrics.failed_sends[failure as usize].add(1);
        if let Some(left_out) = self.warnings.failed_sends[failure as usize].pass(now) {
            warn!(%client, reason = failure.label(), left_out, "cannot send");
        }
    }
}
