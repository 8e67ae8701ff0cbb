//! Receives datagrams and ICMP errors, and hands them to the engine.

mod errors;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, info, trace, warn};

use crate::clock::{self, Time};
use crate::engine::guard::Refused;
use crate::engine::{self, Outcome, Registered};
use crate::net::{self, BATCH, Datagram, Socket};
use crate::shared::Shared;
use crate::throttle::Throttle;
use crate::worker::WorkerThreads;
use errors::IcmpErrors;

/// The longest time between two receive calls with `clients` clients, even if the runtime reports no arrival. Clients
/// expire only after a receive call. Without clients, the calls only show the watchdog that the listener is alive.
#[must_use]
pub const fn receive_interval(clients: u32) -> Duration {
    Duration::from_millis(if clients == 0 { 2_000 } else { 500 })
}

/// The pause after a failed receive call.
const BACKOFF: Duration = Duration::from_millis(10);

/// The task that receives datagrams and ICMP errors.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<Socket>,
    shared: Arc<Shared>,
    workers: Arc<WorkerThreads>,
    errors: IcmpErrors,
    refusals: [Throttle; Refused::ALL.len()],
    failures: Throttle,
}

impl Listener {
    /// Creates a listener on `socket`. It wakes `workers` for clients that register in empty shards.
    #[must_use]
    pub fn new(socket: Arc<Socket>, shared: Arc<Shared>, workers: Arc<WorkerThreads>) -> Self {
        let errors = IcmpErrors::default();
        let refusals = Default::default();
        Self { socket, shared, workers, errors, refusals, failures: Throttle::default() }
    }

    /// Receives until the socket breaks. Returns the error that broke it.
    pub async fn run(mut self) -> io::Error {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let interval = receive_interval(self.shared.engine.guard().total());
            let _ = tokio::time::timeout(interval, self.socket.readable()).await;
            match self.drain(&mut batch).await {
                Ok(()) => {}
                Err(error) if is_fatal(&error) => return error,
                Err(error) => {
                    self.shared.metrics.failed_receives.add(1);
                    if let Some(suppressed) = self.failures.pass(clock::now()) {
                        warn!(%error, suppressed, "cannot receive datagrams");
                    }
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
    }

    /// Receives until the receive buffer is empty, even if reading the ICMP errors fails.
    async fn drain(&mut self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        loop {
            let now = clock::now();
            self.shared.watchdog.listener.tick(now);
            let errors_read = self.errors.drain(&self.socket, &self.shared, now);
            batch.clear();
            self.socket.receive(batch)?;
            let wall = clock::wall();
            for datagram in batch.iter() {
                self.handle(datagram, wall, now);
            }
            let is_empty = batch.len() < BATCH;
            self.shared.engine.handle_received(now, batch.len(), is_empty);
            if is_empty {
                return errors_read;
            }
            tokio::task::yield_now().await;
        }
    }

    fn handle(&self, datagram: &Datagram, wall: Time, now: Time) {
        let Datagram { source, local, length, arrived, .. } = *datagram;
        trace!(%source, length, "received a datagram");
        let waited = arrived.map(|arrived| wall.since(Time::default() + arrived));
        let outcome = self.shared.engine.handle_datagram(
            now,
            &engine::Datagram {
                source,
                local,
                payload: datagram.payload(),
                waited: waited.unwrap_or_default(),
            },
        );
        for reason in outcome.reasons() {
            let Some(suppressed) = self.refusals[reason as usize].pass(now) else { continue };
            let label = reason.label();
            if outcome.refused() == Some(reason) {
                warn!(%source, reason = label, suppressed, "refused a datagram");
            } else {
                warn!(%source, reason = label, suppressed, "would refuse a datagram with GUARD_MODE=enforce");
            }
        }
        if let Outcome::Accepted { registered: Some(Registered { wakes, .. }), .. } = outcome {
            for beat in &self.shared.watchdog.workers[..wakes] {
                beat.wake(now);
            }
            self.workers.wake(wakes);
            if self.shared.engine.counters().registrations.get() == 1 {
                info!(client = %source, "the first client sends heartbeats. To log every client, set LOG_LEVEL=DEBUG.");
            }
            debug!(client = %source, "registered");
        }
    }
}

/// Whether every later receive call would fail as well.
fn is_fatal(error: &io::Error) -> bool {
    net::is_broken(error) || error.raw_os_error().map(Errno::from_raw) == Some(Errno::EINVAL)
}
