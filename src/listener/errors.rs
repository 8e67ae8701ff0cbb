//! What the network says of the pings: that a client's port is closed.

use std::io;

use tracing::{debug, warn};

use crate::clock::Time;
use crate::engine::guard::{Budget, Unreachable};
use crate::net::{BATCH, NetworkError, Socket};
use crate::state::State;

/// Mutes clients whose port is closed, as long as there are not too many errors to look at.
#[derive(Debug)]
pub(super) struct Errors {
    unreachable: Unreachable,
    budget: Budget,
    deaf_until: Option<Time>,
    batch: Vec<NetworkError>,
}

impl Errors {
    /// Looks at up to so many errors a second.
    pub(super) fn new(max_per_second: u32) -> Self {
        Self {
            unreachable: Unreachable::new(max_per_second),
            budget: Budget::new(max_per_second),
            deaf_until: None,
            batch: Vec::new(),
        }
    }

    /// Takes all that is waiting.
    pub(super) fn take(&mut self, socket: &Socket, state: &State, now: Time) -> io::Result<()> {
        if self.deaf_until.is_some_and(|until| until <= now) {
            socket.report_errors(true)?;
            self.deaf_until = None;
        }
        loop {
            self.batch.clear();
            socket.receive_errors(&mut self.batch)?;
            state.metrics.network_errors.add(self.batch.len() as u64);
            for index in 0..self.batch.len() {
                if !self.listens(socket, now)? {
                    continue;
                }
                let NetworkError::PortUnreachable(client) = self.batch[index] else { continue };
                let Some(last_heartbeat) = state.registry.last_heartbeat(client, now) else {
                    continue;
                };
                if self.unreachable.report(client, last_heartbeat, now) {
                    state.metrics.muted.add(1);
                    if state.guard.enforces() {
                        state.registry.mute(client);
                        debug!(%client, "muted: its port is closed");
                    }
                }
            }
            if self.batch.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Whether one error more is to be looked at. If there are too many, it begins to be deaf.
    fn listens(&mut self, socket: &Socket, now: Time) -> io::Result<bool> {
        if self.deaf_until.is_some() {
            return Ok(false);
        }
        if self.budget.spend(now) {
            return Ok(true);
        }
        socket.report_errors(false)?;
        self.deaf_until = Some(now + Budget::PAUSE);
        warn!(
            "more than {} ICMP errors in a second, so clients with a closed port are not muted for {} s. If a crowd of your own ends at once, raise MAX_ICMP_ERRORS_PER_SECOND",
            self.budget.max_per_second(),
            Budget::PAUSE.as_secs()
        );
        Ok(false)
    }
}
