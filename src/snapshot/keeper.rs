//! Keeps the snapshot young.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Header, Moment, Written, file, write};
use crate::clock::{self, Time};
use crate::metrics::LastSnapshot;
use crate::state::State;

/// How long the last snapshot may take. A disk that does not answer must not keep the daemon from ending.
const LONGEST_END: Duration = Duration::from_secs(2);

/// Between two pauses.
const CLIENTS_A_PAUSE: u32 = 1_000;

/// Where the clients are kept, and how old what is kept there may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Who has been a client for as long is in it.
    pub interval: Duration,
}

/// The thread that writes snapshots.
#[derive(Debug)]
pub struct Keeper {
    end: Sender<Option<Time>>,
    ended: oneshot::Receiver<()>,
}

impl Keeper {
    /// Starts to write the clients of the daemon at `port`.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn start(settings: Settings, port: u16, state: Arc<State>) -> io::Result<Self> {
        let (end, ends) = mpsc::channel();
        let (says, ended) = oneshot::channel();
        let writer = Writer { settings, port, state };
        thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            writer.run(&ends);
            let _ = says.send(());
        })?;
        Ok(Self { end, ended })
    }

    /// Writes the last snapshot, onto the disk. The daemon has ended: every slot that was due before
    /// `pinged_until` has been served, and none after, if that can be said.
    pub async fn end(self, pinged_until: Option<Time>) {
        let _ = self.end.send(pinged_until);
        if tokio::time::timeout(LONGEST_END, self.ended).await.is_err() {
            warn!(
                "the last snapshot takes longer than {LONGEST_END:?}, so the one before it stays"
            );
        }
    }
}

#[derive(Debug)]
struct Writer {
    settings: Settings,
    port: u16,
    state: Arc<State>,
}

/// When a snapshot is written.
#[derive(Clone, Copy, Debug)]
enum When {
    /// While the daemon serves.
    Meanwhile,
    /// When it has ended, and where.
    AtTheEnd(Option<Time>),
}

impl Writer {
    fn run(&self, ends: &Receiver<Option<Time>>) {
        // Who comes when his shard has just been written is in the next snapshot. So that this is there
        // after an interval at the latest, it is begun after four fifths and written in less than one.
        let period = self.settings.interval * 4 / 5;
        let mut due = clock::now();
        loop {
            let mut wait = |time| match ends.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
                Ok(pinged_until) => ControlFlow::Break(Some(pinged_until)),
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

    /// Writes a snapshot in a sixth of the interval and what it takes, unless the end comes.
    fn save_slowly<E: Copy>(
        &self,
        mut wait: impl FnMut(Duration) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        let snapshots = &self.state.metrics.snapshots;
        let clients = self.state.registry.len();
        let begun = clock::now();
        if clients == 0
            && snapshots.failure().is_none()
            && snapshots.last().is_some_and(|last| last.clients == 0)
        {
            snapshots.confirm(begun);
            return ControlFlow::Continue(());
        }
        let for_each =
            self.settings.interval / 6 / u32::try_from(clients.max(1)).unwrap_or(u32::MAX);
        let (mut written, mut end) = (0, ControlFlow::Continue(()));
        let result = self.write(When::Meanwhile, |more| {
            written += u32::try_from(more).unwrap_or(u32::MAX);
            if written >= CLIENTS_A_PAUSE {
                end = wait(for_each * written);
                written = 0;
            }
            end.map_break(|_| ())
        });
        self.account_for(begun, result);
        end
    }

    fn save_at_the_end(&self, pinged_until: Option<Time>) {
        let begun = clock::now();
        let result = self.write(When::AtTheEnd(pinged_until), |_| ControlFlow::Continue(()));
        if let Ok(Some(Written { clients, bytes })) = result {
            let took_ms = (clock::now().since(begun).as_secs_f64() * 1e3).round();
            info!(clients, bytes, took_ms, "wrote the last snapshot");
        }
        self.account_for(begun, result);
    }

    fn write(
        &self,
        when: When,
        pause: impl FnMut(usize) -> ControlFlow<()>,
    ) -> io::Result<Option<Written>> {
        let (is_last, pinged_until) = match when {
            When::Meanwhile => (false, None),
            When::AtTheEnd(pinged_until) => (true, pinged_until),
        };
        let registry = &self.state.registry;
        let header = Header {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            taken: Moment::now(),
            port: self.port,
            seed: registry.seed(),
            pinged_until,
        };
        file::replace(&self.settings.path, is_last, |out| {
            write(out, &header, registry, clock::now, pause)
        })
    }

    fn account_for(&self, begun: Time, result: io::Result<Option<Written>>) {
        let snapshots = &self.state.metrics.snapshots;
        let path = self.settings.path.display();
        let was_failing = snapshots.failure().is_some();
        match result {
            Ok(None) => {}
            Ok(Some(Written { clients, bytes })) => {
                let took = clock::now().since(begun);
                snapshots.wrote(LastSnapshot { begun, took, clients, bytes });
                if was_failing {
                    info!(%path, clients, "the snapshot can be written again");
                }
            }
            Err(error) => {
                if !was_failing {
                    warn!(%path, %error, "cannot write the snapshot, so a restart would forget who came since: {}", remedy(&error));
                }
                snapshots.fail(error.to_string());
            }
        }
    }
}

/// What to do about it.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on its disk",
        ErrorKind::ReadOnlyFilesystem => "make its disk writable, or set SNAPSHOT_PATH to another",
        ErrorKind::NotFound => "create its folder, or correct SNAPSHOT_PATH",
        ErrorKind::PermissionDenied => {
            "let the user of the daemon write to its folder, or set SNAPSHOT_PATH to another"
        }
        _ => "see whether its disk is well, or set SNAPSHOT_PATH to another",
    }
}
