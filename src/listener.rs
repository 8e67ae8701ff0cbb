//! Receives heartbeats and records them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, trace, warn};

use crate::clock::{self, Time};
use crate::guard::{self, Refused};
use crate::metrics::Metrics;
use crate::net::{BATCH, Datagram, Socket};
use crate::registry::{Refreshed, Registry};
use crate::throttle::Throttle;
use crate::worker::Alarm;

/// How often the socket is looked at even when nothing seems to arrive. The clients whose time is
/// over are removed only after such a look.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long to leave a socket alone that fails.
const RECOVERY: Duration = Duration::from_millis(10);

/// The task that receives.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<Socket>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    alarm: Arc<Alarm>,
    refusals: [Throttle; Refused::ALL.len()],
    failures: Throttle,
}

impl Listener {
    /// A listener that records what `socket` receives in `registry`.
    #[must_use]
    pub fn new(
        socket: Arc<Socket>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        alarm: Arc<Alarm>,
    ) -> Self {
        Self {
            socket,
            registry,
            metrics,
            alarm,
            refusals: Default::default(),
            failures: Throttle::default(),
        }
    }

    /// Receives until the socket breaks, and tells what broke it.
    pub async fn run(self) -> io::Error {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let _ = tokio::time::timeout(LOOK_INTERVAL, self.socket.readable()).await;
            match self.drain(&mut batch).await {
                Ok(()) => {}
                Err(error) if is_fatal(&error) => return error,
                Err(error) => {
                    if let Some(left_out) = self.failures.pass(clock::now()) {
                        warn!(%error, left_out, "cannot receive");
                    }
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
    }

    async fn drain(&self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        loop {
            let now = clock::now();
            batch.clear();
            self.socket.receive(batch)?;
            for datagram in batch.iter() {
                self.record(*datagram, now);
            }
            if batch.len() < BATCH {
                self.registry.heard_until(now);
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    fn record(&self, datagram: Datagram, now: Time) {
        let Datagram { source, local, length } = datagram;
        trace!(%source, length, "datagram");
        if let Err(reason) = guard::admit(source) {
            return self.refuse(source, reason, now);
        }
        self.metrics.heartbeats.add(1);
        if let Refreshed::Registered { shard, is_first } = self.registry.refresh(source, local, now)
        {
            if is_first {
                self.alarm.wake(shard);
            }
            self.metrics.registered.add(1);
            debug!(client = %source, "registered");
        }
    }

    fn refuse(&self, source: SocketAddr, reason: Refused, now: Time) {
        self.metrics.refused[reason as usize].add(1);
        if let Some(left_out) = self.refusals[reason as usize].pass(now) {
            warn!(%source, reason = reason.label(), left_out, "refused a datagram");
        }
    }
}

/// Whether the socket itself is broken, so that trying again is of no use.
fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EFAULT)
    )
}
