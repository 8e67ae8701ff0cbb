//! Reads the ICMP errors about pings, and pauses when the engine's rate limit is exceeded.

use std::io;

use tracing::{debug, warn};

use crate::catalogue::log::ICMP_ERRORS_IGNORED;
use crate::clock::Time;
use crate::engine::ICMP_PAUSE;
use crate::net::{BATCH, NetworkError, Socket};
use crate::shared::Shared;

/// Passes ICMP errors to the engine.
#[derive(Debug)]
pub(super) struct IcmpErrors {
    /// Whether the kernel queues the errors.
    is_on: bool,
    batch: Vec<NetworkError>,
}

impl Default for IcmpErrors {
    fn default() -> Self {
        Self { is_on: true, batch: Vec::new() }
    }
}

impl IcmpErrors {
    /// Reads all pending errors.
    pub(super) fn drain(&mut self, socket: &Socket, shared: &Shared, now: Time) -> io::Result<()> {
        self.switch(socket, shared, now)?;
        loop {
            self.batch.clear();
            socket.receive_errors(&mut self.batch)?;
            shared.metrics.network_errors.add(self.batch.len() as u64);
            for error in &self.batch {
                let unreachable = match error {
                    NetworkError::PortUnreachable(client) => Some(*client),
                    NetworkError::Other => None,
                };
                if shared.engine.handle_icmp_error(now, unreachable) {
                    debug!(
                        client = unreachable.map(tracing::field::display),
                        "muted a client with a closed port"
                    );
                }
            }
            self.switch(socket, shared, now)?;
            if self.batch.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Switches the error queue on or off, as the engine requests.
    fn switch(&mut self, socket: &Socket, shared: &Shared, now: Time) -> io::Result<()> {
        let is_wanted = shared.engine.wants_icmp_errors(now);
        if is_wanted == self.is_on {
            return Ok(());
        }
        socket.report_errors(is_wanted)?;
        self.is_on = is_wanted;
        if !is_wanted {
            let limit = shared.engine.max_icmp_errors();
            let pause = ICMP_PAUSE.as_secs();
            warn!("{}", ICMP_ERRORS_IGNORED.with(&[("limit", &limit), ("pause", &pause)]));
        }
        Ok(())
    }
}
