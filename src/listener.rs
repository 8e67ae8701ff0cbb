//! Receives heartbeats and records them.

mod errors;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, info, trace, warn};

use crate::clock::{self, Time};
use crate::engine::guard::{Backlog, Refused, Stale};
use crate::engine::registry::Refreshed;
use crate::net::{self, BATCH, Datagram, Socket};
use crate::state::State;
use crate::throttle::Throttle;
use crate::worker::Alarm;
use errors::Errors;

/// How often the socket is looked at even when nothing seems to arrive. The clients whose time is
/// over are removed only after such a look.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long to leave a socket alone that fails.
const RECOVERY: Duration = Duration::from_millis(10);

/// The task that receives.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<Socket>,
    state: Arc<State>,
    alarm: Arc<Alarm>,
    errors: Errors,
    backlog: Backlog,
    refusals: [Throttle; Refused::ALL.len()],
    failures: Throttle,
}

impl Listener {
    /// A listener that records in the registry what `socket` receives and the guard lets in. Nothing that
    /// arrived before `drained_until` waits in the socket. Of ICMP errors it looks at `max_icmp_errors` a
    /// second.
    #[must_use]
    pub fn new(
        socket: Arc<Socket>,
        state: Arc<State>,
        alarm: Arc<Alarm>,
        drained_until: Time,
        max_icmp_errors: u32,
    ) -> Self {
        Self {
            backlog: Backlog::new(state.registry.expiration(), drained_until),
            socket,
            state,
            alarm,
            errors: Errors::new(max_icmp_errors),
            refusals: Default::default(),
            failures: Throttle::default(),
        }
    }

    /// Receives until the socket breaks, and tells what broke it.
    pub async fn run(mut self) -> io::Error {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let _ = tokio::time::timeout(LOOK_INTERVAL, self.socket.readable()).await;
            match self.drain(&mut batch).await {
                Ok(()) => {}
                Err(error) if is_fatal(&error) => return error,
                Err(error) => {
                    self.state.metrics.failed_receives.add(1);
                    if let Some(left_out) = self.failures.pass(clock::now()) {
                        warn!(%error, left_out, "cannot receive");
                    }
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
    }

    /// Receives all that is waiting, also where the kernel would not tell what the network said.
    async fn drain(&mut self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        let mut begun = clock::now();
        let mut received = 0;
        loop {
            let now = clock::now();
            self.state.health.listener.tick(now);
            let told = self.errors.take(&self.socket, &self.state, now);
            batch.clear();
            self.socket.receive(batch)?;
            let stale = self.backlog.stale(now, clock::wall);
            for datagram in batch.iter() {
                self.record(*datagram, &stale, now);
            }
            if batch.len() < BATCH {
                self.heard_until(now);
                return told;
            }
            // In a flood there is always something waiting. But what was waiting when this began has
            // been received once it is more than the socket holds.
            received += batch.len();
            if received > self.socket.most_waiting() {
                self.heard_until(begun);
                (begun, received) = (now, 0);
            }
            tokio::task::yield_now().await;
        }
    }

    fn heard_until(&mut self, time: Time) {
        self.state.registry.heard_until(time);
        self.backlog.drained_until(time);
    }

    fn record(&self, datagram: Datagram, stale: &Stale, now: Time) {
        let Datagram { source, local, length, arrived } = datagram;
        trace!(%source, length, "datagram");
        let guard = &self.state.guard;
        let age = if stale.covers(arrived) { Err(Refused::Stale) } else { Ok(()) };
        if !self.is_admitted(source, age.and_then(|()| guard.admit(source)), now) {
            return;
        }
        let admit = || self.is_admitted(source, guard.reserve(source.ip()), now);
        match self.state.registry.refresh(source, local, now, admit) {
            Refreshed::Refused => return,
            Refreshed::Renewed => {}
            Refreshed::Registered { shard, is_first } => {
                if is_first {
                    self.alarm.wake(shard, now);
                }
                if self.state.metrics.registered.get() == 0 {
                    info!(client = %source, "first client; LOG_LEVEL=DEBUG shows every client");
                }
                self.state.metrics.registered.add(1);
                debug!(client = %source, "registered");
            }
        }
        self.state.metrics.heartbeats.add(1);
    }

    /// Counts and reports a refusal. Returns whether the datagram goes on in the guard's mode.
    fn is_admitted(&self, source: SocketAddr, verdict: Result<(), Refused>, now: Time) -> bool {
        let Err(reason) = verdict else { return true };
        let is_refused = self.state.guard.refuses(reason);
        self.state.metrics.refused[reason as usize].add(1);
        if let Some(left_out) = self.refusals[reason as usize].pass(now) {
            let reason = reason.label();
            if is_refused {
                warn!(%source, reason, left_out, "refused a datagram");
            } else {
                warn!(%source, reason, left_out, "would refuse a datagram");
            }
        }
        !is_refused
    }
}

/// Whether trying again is of no use.
fn is_fatal(error: &io::Error) -> bool {
    net::is_broken(error) || error.raw_os_error().map(Errno::from_raw) == Some(Errno::EINVAL)
}
