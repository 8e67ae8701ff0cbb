//! The thread that reads the snapshot at startup and rewrites it regularly.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use super::file::{Found, SnapshotFile, remedy};
use super::{Header, Moment, Written, write};
use crate::catalogue::daemon::{SNAPSHOT_FAILED, SNAPSHOT_UNUSED};
use crate::clock::{self, Time};
use crate::disk;
use crate::metrics::{Failure, LastSnapshot};
use crate::shared::Shared;
use crate::threads;

/// The time limit for the final snapshot, so that an unresponsive disk cannot block the shutdown.
pub(super) const FINAL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of clients written between two pauses.
const CLIENTS_A_PAUSE: usize = 1_000;

/// Where to write the snapshot, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The path of the file.
    pub path: PathBuf,
    /// The longest time until a new client is in the file.
    pub interval: Duration,
}

/// The thread that reads the snapshot and then writes it. Only this thread touches the files, one operation at
/// a time, so a slow disk cannot reorder them.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    ended: oneshot::Receiver<()>,
}

#[derive(Debug)]
enum Order {
    /// Start to write snapshots regularly.
    Keep(Arc<Shared>),
    /// Write the final snapshot. The time is the one up to which every slot has been served, if it is known.
    End(Option<Time>),
}

impl Keeper {
    /// Starts the thread and returns the snapshot that it finds for a daemon at `port`. If the disk does not
    /// answer within [`disk::TIMEOUT`], the daemon starts without the clients of the snapshot.
    ///
    /// # Errors
    /// If the system refuses a new thread.
    pub async fn start(settings: Settings, port: u16) -> io::Result<(Self, Found)> {
        let (orders, received) = mpsc::channel();
        let (tell, mut found) = oneshot::channel();
        let (says, ended) = oneshot::channel();
        threads::start("snapshot", move || {
            run(settings, port, &received, tell);
            let _ = says.send(());
        })?;
        let answer = timeout(disk::TIMEOUT, &mut found).await;
        found.close();
        let found = answer.map_or_else(|_| found.try_recv().ok(), Result::ok);
        let found = found.unwrap_or_else(|| {
            let unused = disk::no_answer().to_string();
            warn!("{}", SNAPSHOT_UNUSED.with(&[("reason", &unused)]));
            Found { snapshot: None, unused: Some(unused) }
        });
        Ok((Self { orders, ended }, found))
    }

    /// Starts to write the clients regularly.
    pub fn keep(&self, shared: Arc<Shared>) {
        let _ = self.orders.send(Order::Keep(shared));
    }

    /// Writes the final snapshot and syncs it to the disk. The daemon must have stopped. `pinged_until` is
    /// the time up to which the daemon served every slot, and after which it served none. `None` means that
    /// this time is unknown.
    pub async fn end(self, pinged_until: Option<Time>) {
        let _ = self.orders.send(Order::End(pinged_until));
        if timeout(FINAL_SNAPSHOT_TIMEOUT, self.ended).await.is_err() {
            warn!(
                "the final snapshot took longer than {FINAL_SNAPSHOT_TIMEOUT:?}, so the daemon exits without it, and the previous snapshot stays in place. Check the disk of SNAPSHOT_PATH."
            );
        }
    }
}

fn run(settings: Settings, port: u16, orders: &Receiver<Order>, tell: oneshot::Sender<Found>) {
    let mut place = SnapshotFile::new(settings.path);
    if let Err(late) = tell.send(place.find(port))
        && late.snapshot.is_some()
    {
        place.found_too_late();
    }
    if let Ok(Order::Keep(shared)) = orders.recv() {
        Writer { place, interval: settings.interval, port, shared }.run(orders);
    }
}

#[derive(Debug)]
struct Writer {
    place: SnapshotFile,
    interval: Duration,
    port: u16,
    shared: Arc<Shared>,
}

/// The occasion for a snapshot.
#[derive(Clone, Copy, Debug)]
enum When {
    /// While the daemon serves clients.
    Meanwhile,
    /// At shutdown, with the time up to which every slot has been served.
    AtTheEnd(Option<Time>),
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        // A client that registers after its shard was written must wait for the next snapshot. That one starts
        // after four fifths of the interval and takes less than a fifth, so it is complete within one interval.
        let period = self.interval * 4 / 5;
        let mut due = clock::now();
        loop {
            let mut wait = |time| match orders.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) | Ok(Order::Keep(_)) => ControlFlow::Continue(()),
                Ok(Order::End(pinged_until)) => ControlFlow::Break(Some(pinged_until)),
                Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(None),
            };
            let mut end = self.save_slowly(&mut wait);
            due = (due + period).max(clock::now());
            if end.is_continue() {
                end = wait(due.since(clock::now()));
            }
            match end {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Some(pinged_until)) => {
                    return self.save_at_the_end(pinged_until);
                }
                ControlFlow::Break(None) => return,
            }
        }
    }

    /// Writes a snapshot, with pauses that spread it over a sixth of the interval. Each pause calls `wait`. If `wait`
    /// breaks, because the daemon stops, abandons the snapshot, keeps the previous file and returns the break.
    fn save_slowly<E: Copy>(
        &mut self,
        mut wait: impl FnMut(Duration) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        let shared = Arc::clone(&self.shared);
        let snapshots = &shared.metrics.snapshots;
        let begun = clock::now();
        if shared.engine.registry().is_empty()
            && snapshots.failure().is_none()
            && snapshots.last().is_some_and(|last| last.clients == 0)
        {
            snapshots.confirm(begun);
            return ControlFlow::Continue(());
        }
        let mut pace = Pace::new(begun + self.interval / 6);
        let mut end = ControlFlow::Continue(());
        let result = self.write(When::Meanwhile, |more| {
            if let Some(pause) = pace.pause(more, || shared.engine.registry().len(), clock::now) {
                end = wait(pause);
            }
            end.map_break(|_| ())
        });
        self.account_for(begun, result);
        end
    }

    fn save_at_the_end(&mut self, pinged_until: Option<Time>) {
        let begun = clock::now();
        let result = self.write(When::AtTheEnd(pinged_until), |_| ControlFlow::Continue(()));
        if let Ok(Some(Written { clients, bytes })) = result {
            let took_ms = (clock::now().since(begun).as_secs_f64() * 1e3).round();
            info!(clients, bytes, took_ms, "wrote the final snapshot");
        }
        self.account_for(begun, result);
    }

    fn write(
        &mut self,
        when: When,
        pause: impl FnMut(usize) -> ControlFlow<()>,
    ) -> io::Result<Option<Written>> {
        let (is_last, pinged_until) = match when {
            When::Meanwhile => (false, None),
            When::AtTheEnd(pinged_until) => (true, pinged_until),
        };
        let engine = &self.shared.engine;
        let (registry, taken) = (engine.registry(), Moment::now());
        let slots = engine.slots(pinged_until.unwrap_or(taken.now));
        let header = Header {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            taken,
            port: self.port,
            seed: registry.seed(),
            slots,
            pinged_until,
        };
        self.place.replace(is_last, |out| write(out, &header, registry, clock::now, pause))
    }

    fn account_for(&self, begun: Time, result: io::Result<Option<Written>>) {
        let snapshots = &self.shared.metrics.snapshots;
        let path = self.place.path().display();
        let was_failing = snapshots.failure().is_some();
        match result {
            Ok(None) => {}
            Ok(Some(Written { clients, bytes })) => {
                let took = clock::now().since(begun);
                snapshots.wrote(LastSnapshot { begun, took, clients, bytes });
                if was_failing {
                    info!(%path, clients, "the daemon can write the snapshot again");
                }
            }
            Err(error) => {
                let remedy = remedy(&error);
                if !was_failing {
                    let problem = SNAPSHOT_FAILED.with(&[("reason", &error), ("remedy", &remedy)]);
                    warn!(%path, %error, "{problem}");
                }
                snapshots.fail(Failure { reason: error.to_string(), remedy });
            }
        }
    }
}

/// Spreads a snapshot over the time until `end`. Each pause takes a share of that time in proportion to the
/// clients just written. Clients that register during the snapshot shorten the pauses, so it takes no longer.
#[derive(Debug)]
struct Pace {
    end: Time,
    written: usize,
    /// Clients written since the last pause.
    recent: usize,
}

impl Pace {
    fn new(end: Time) -> Self {
        Self { end, written: 0, recent: 0 }
    }

    /// Returns the pause after `more` clients, if one is due. `clients` returns the current total.
    fn pause(
        &mut self,
        more: usize,
        clients: impl FnOnce() -> usize,
        now: impl FnOnce() -> Time,
    ) -> Option<Duration> {
        self.written += more;
        self.recent += more;
        if self.recent < CLIENTS_A_PAUSE {
            return None;
        }
        let recent = std::mem::take(&mut self.recent);
        let left = clients().saturating_sub(self.written);
        let share = u32::try_from(1 + left / recent).unwrap_or(u32::MAX);
        Some(self.end.since(now()) / share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(800);

    /// Writes shards of 300 clients in no time and returns the total length of the pauses.
    fn pauses(clients: impl Fn(usize) -> usize) -> Duration {
        let begun = Time::from_secs(1_000);
        let mut pace = Pace::new(begun + BUDGET);
        let (mut now, mut written) = (begun, 0);
        while written < clients(written) {
            written += 300;
            if let Some(pause) = pace.pause(300, || clients(written), || now) {
                now = now + pause;
            }
        }
        now.since(begun)
    }

    #[test]
    fn a_snapshot_stays_in_its_time_budget_as_clients_come_and_go() {
        assert!(pauses(|_| 900).is_zero(), "few clients take no pause");
        let spread = BUDGET * 8 / 10..=BUDGET;
        for clients in [1_200, 10_000, 1_000_000] {
            assert!(spread.contains(&pauses(|_| clients)), "{clients}");
        }
        let burst = |written| if written < 1_200 { 2_000 } else { 152_000 };
        assert!(pauses(burst) <= BUDGET, "{:?}", pauses(burst));
        let exodus = |written| if written < 1_200 { 152_000 } else { 2_000 };
        assert!(pauses(exodus) <= BUDGET);
    }
}
