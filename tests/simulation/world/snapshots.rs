//! The daemon's snapshots.

use std::cell::Cell;
use std::ops::ControlFlow;

use wakeupd::clock::Time;
use wakeupd::snapshot::{self, Header};
use wakeupd_protocol::DEFAULT_PORT;

use super::World;
use crate::clocks::When;
use crate::daemon::Daemon;

impl World {
    fn header(&self, pinged_until: Option<Time>) -> Header {
        let engine = &self.daemon.as_ref().expect("only a running daemon writes").engine;
        let taken = self.clocks.moment();
        Header {
            program: "simulation".to_owned(),
            port: DEFAULT_PORT,
            seed: engine.registry().seed(),
            slots: engine.slots(pinged_until.unwrap_or(taken.now)),
            taken,
            pinged_until,
        }
    }

    /// Writes the final snapshot.
    pub(super) fn save(&mut self, pinged_until: Option<Time>) {
        let header = self.header(pinged_until);
        let Some(daemon) = &self.daemon else { return };
        let now = self.clocks.boottime(self.clocks.now);
        let mut bytes = Vec::new();
        let goes_on = |_| ControlFlow::Continue(());
        snapshot::write(&mut bytes, &header, daemon.engine.registry(), || now, goes_on)
            .expect("a write to memory never fails");
        self.disk = Some(bytes);
        self.oracle.saved(self.clocks.now, self.clocks.wall_set());
    }

    /// Writes a periodic snapshot while the world keeps running.
    pub(super) fn save_slowly(&mut self) {
        let header = self.header(None);
        let Some(daemon) = &mut self.daemon else { return };
        daemon.keeper = When::NEVER;
        let (engine, life) = (daemon.engine.clone(), self.life);
        let (begun, wall_set) = (self.clocks.now, self.clocks.wall_set());
        let interval = self.plan.snapshot_interval;
        let time = Cell::new(self.clocks.boottime(begun));
        let mut shards = 0;
        let goes_on = |_| {
            shards += 1;
            if shards % 16 == 0 {
                self.run_until(self.clocks.now + interval / 5 / 16);
                self.run_until(self.daemon.as_ref().map_or(When::default(), Daemon::frozen_until));
                time.set(self.clocks.boottime(self.clocks.now));
            }
            let is_here = |daemon: &Daemon| life == self.life && daemon.end.is_none();
            if self.daemon.as_ref().is_some_and(is_here) && self.oracle.failure.is_none() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let mut bytes = Vec::new();
        let written =
            snapshot::write(&mut bytes, &header, engine.registry(), || time.get(), goes_on);
        if written.expect("a write to memory never fails").is_none() {
            return;
        }
        self.disk = Some(bytes);
        self.oracle.saved(begun, wall_set);
        if let Some(daemon) = &mut self.daemon {
            daemon.keeper = (begun + interval * 4 / 5).max(self.clocks.now);
        }
    }
}
