//! The regular check of all clients.

use std::time::Duration;

use wakeupd::engine::Engine;

use super::Oracle;
use crate::client::SECOND;
use crate::clocks::When;

impl Oracle {
    /// Checks all clients.
    pub fn audit(&mut self, now: When, engine: &Engine) {
        let counts = [engine.registry().len(), engine.guard().total() as usize, self.rooms.all()];
        if counts != [self.rooms.all(); 3] {
            self.fail(
                None,
                now,
                format!("client counts of registry, guard and oracle differ: {counts:?}"),
            );
        }
        let mut addresses: Vec<_> = self.clients.keys().copied().collect();
        addresses.sort_unstable();
        self.audits += 1;
        if let Some(address) = addresses.get(self.audits % addresses.len().max(1)) {
            let (true_count, count) =
                (self.rooms.count(address.ip()), engine.guard().count(address.ip()));
            if count != true_count {
                self.fail(
                    Some(*address),
                    now,
                    format!("counted {count:?} clients, not {true_count:?}"),
                );
            }
        }
        let is_calm = self.troubles.is_calm(now);
        for address in addresses {
            let client = &self.clients[&address];
            let silence = now.since(client.last_heard());
            if client.is_registered {
                self.settle(address, now);
                if is_calm && silence > self.expiration + 2 * SECOND {
                    self.fail(Some(address), now, format!("still registered after {silence:?}"));
                }
            } else if silence > self.expiration + Duration::from_secs(900) {
                self.clients.remove(&address);
            }
        }
    }
}
