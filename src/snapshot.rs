//! The clients on disk, so that a daemon that is started anew goes on where the last one was.
//!
//! A thread writes them every few seconds, shard by shard, and once more at the end ([`Keeper`]). At the
//! start it reads them before the first ping ([`Snapshot::restore`]): each client keeps what was
//! left of its time, and on the same machine its phase in the second.

mod file;
mod format;
mod frames;
mod keeper;
mod moment;
mod show;

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;

pub use self::file::{Found, lock_path};
pub use self::format::Header;
use self::format::{Frame, Shard};
use self::frames::{FrameReader, FrameWriter};
pub use self::frames::{MAGIC, Unusable, VERSION};
pub use self::keeper::{Keeper, Settings};
pub use self::moment::Moment;
pub use self::show::{Command, run};

use crate::clock::Time;
use crate::engine::Engine;
use crate::engine::registry::{Refreshed, Registry, Seed, View};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The clients.
    pub clients: u64,
    /// The bytes.
    pub bytes: u64,
}

/// Writes the clients shard by shard, each as it is at its turn. A shard is locked while it is copied, not
/// while it is written. After each `pause` is told how many clients there were in it, and may break off;
/// then nothing is returned.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: impl Write,
    header: &Header,
    registry: &Registry,
    now: impl Fn() -> Time,
    mut pause: impl FnMut(usize) -> ControlFlow<()>,
) -> io::Result<Option<Written>> {
    let mut frames = FrameWriter::begin(out)?;
    frames.write(header)?;
    let mut clients = 0;
    let mut views = Vec::new();
    for shard in 0..registry.shards() {
        let at = now();
        views.clear();
        registry.look_at(shard, at, |view| views.push(view));
        if views.is_empty() {
            continue;
        }
        clients += views.len() as u64;
        frames.write(&Frame::Shard(Shard::of(&views, at)))?;
        if pause(views.len()).is_break() {
            return Ok(None);
        }
    }
    frames.write(&Frame::End(clients))?;
    frames.end().map(|bytes| Some(Written { clients, bytes }))
}

/// A snapshot that is whole.
#[derive(Clone)]
pub struct Snapshot {
    bytes: Vec<u8>,
    header: Header,
    /// Where the clients begin.
    shards_at: usize,
    clients: u64,
}

/// What became of a snapshot's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Who are clients again.
    pub clients: u64,
    /// Whose time is over meanwhile.
    pub expired: u64,
    /// Whom the guard does not let in, or whom the daemon does not serve any more.
    pub refused: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, clients, .. } = self;
        f.debug_struct("Snapshot")
            .field("header", header)
            .field("clients", clients)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Reads what [`write()`] wrote, from the first byte to the last.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Unusable> {
        let mut frames = FrameReader::begin(&bytes)?;
        let header = frames.read()?;
        let shards_at = frames.position();
        let mut found = 0;
        loop {
            let position = frames.position();
            match frames.read()? {
                Frame::Shard(shard) => found += shard.len() as u64,
                Frame::End(clients) if clients == found && frames.is_at_the_end() => break,
                Frame::End(_) => return Err(Unusable::Damaged(position)),
            }
        }
        Ok(Self { bytes, header, shards_at, clients: found })
    }

    /// What is known besides the clients.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The keys by which the clients have their shards.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.header.seed
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.clients
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients == 0
    }

    /// The size of the file.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a daemon at `port` can use it now.
    ///
    /// # Errors
    /// With the reason why not.
    pub fn suits(&self, port: u16, now: &Moment) -> Result<(), Unusable> {
        if self.header.port != port {
            return Err(Unusable::OtherPort(self.header.port));
        }
        now.since(&self.header.taken).map(|_age| ()).map_err(Unusable::FromTheFuture)
    }

    /// Where the daemon that wrote this ended, if it did and the clock has run on since: every slot that was
    /// due before has been served, and none after.
    #[must_use]
    pub fn pinged_until(&self, now: &Moment) -> Option<Time> {
        let is_sound =
            |until: &Time| *until <= now.now && now.is_of_the_same_boot(&self.header.taken);
        self.header.pinged_until.filter(is_sound)
    }

    /// Calls `each` with every client, its times shifted as if the snapshot had been begun at `taken`.
    pub fn for_each(&self, taken: Time, mut each: impl FnMut(View)) {
        let mut frames = FrameReader::at(self.shards_at, &self.bytes);
        while let Ok(Frame::Shard(shard)) = frames.read() {
            shard.clients(self.header.taken.now, taken).for_each(&mut each);
        }
    }

    /// Restores the clients that have not expired, are `served` and pass the guard. A
    /// heartbeat from the future counts as expired, and so do all clients of a snapshot from the future.
    ///
    /// A snapshot may hold more clients than there is room for: while it was written, some made way for others
    /// that are in it too. So the clients that would have to make way come last.
    pub fn restore(
        &self,
        engine: &Engine,
        served: impl Fn(SocketAddr) -> bool,
        now: &Moment,
    ) -> Restored {
        let Ok(age) = now.since(&self.header.taken) else {
            return Restored { expired: self.clients, ..Restored::default() };
        };
        let taken = now.now.before(age);
        // On another boot interfaces may have other numbers.
        let has_its_interface = |client: SocketAddr| match client {
            SocketAddr::V6(client) if client.scope_id() != 0 => {
                now.is_of_the_same_boot(&self.header.taken)
            }
            _ => true,
        };
        let registry = engine.registry();
        let mut restored = Restored::default();
        let mut those_who = |make_way: bool| {
            let mut left = 0;
            self.for_each(taken, |client| {
                let silence = now.now.since(client.last_heartbeat);
                if client.last_heartbeat > now.now || silence > registry.expiration() {
                    restored.expired += u64::from(!make_way);
                } else if make_way == (client.heartbeats == 1 && silence > registry.probation()) {
                    let is_served = served(client.address) && has_its_interface(client.address);
                    restored.count(if is_served {
                        engine.restore(&client)
                    } else {
                        Refreshed::Refused
                    });
                } else {
                    left += 1;
                }
            });
            left
        };
        if those_who(false) > 0 {
            those_who(true);
        }
        restored
    }
}

impl Restored {
    fn count(&mut self, refreshed: Refreshed) {
        match refreshed {
            Refreshed::Registered { .. } => self.clients += 1,
            Refreshed::Refused => self.refused += 1,
            Refreshed::Renewed => {}
        }
    }
}

#[cfg(test)]
mod tests;
