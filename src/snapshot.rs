//! Persists the clients on disk, so that they survive a restart of the daemon.
//!
//! A thread writes them every few seconds, shard by shard, and once more at shutdown ([`Keeper`]). At startup
//! the daemon reads them before the first ping ([`Snapshot::restore`]). Each client keeps the rest of its time
//! and, on the same boot of the machine, its phase within the second.

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

pub use self::file::{Found, lock_path, remedy};
pub use self::format::Header;
use self::format::{Frame, Shard};
use self::frames::{FrameReader, FrameWriter};
pub use self::frames::{MAGIC, Unusable, VERSION};
pub use self::keeper::{Keeper, Settings};
pub use self::moment::Moment;
pub use self::show::run;

use crate::clock::Time;
use crate::engine::Engine;
use crate::engine::registry::{Refreshed, Registry, Seed, View};

/// The size of a snapshot that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number of clients in it.
    pub clients: u64,
    /// The size of the file, in bytes.
    pub bytes: u64,
}

/// Writes the clients shard by shard, each shard with its clients at that time. A shard is locked while it is
/// copied, not while it is written. After each shard, `pause` is called with the number of clients in the
/// shard. If `pause` returns `Break`, the other shards are not written, and the result is `None`.
///
/// # Errors
/// If writing to `out` fails.
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

/// A complete snapshot in memory. Its checksums have been verified.
#[derive(Clone)]
pub struct Snapshot {
    bytes: Vec<u8>,
    header: Header,
    /// The position of the first shard in `bytes`.
    shards_at: usize,
    clients: u64,
}

/// The result of a restore, in clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Clients that were registered again.
    pub clients: u64,
    /// Clients that expired since the snapshot.
    pub expired: u64,
    /// Clients that the guard refused or that this daemon does not serve.
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
    /// Parses the output of [`write()`], from the first byte to the last.
    ///
    /// # Errors
    /// If the bytes are not a complete, undamaged snapshot of this version.
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

    /// The metadata of the snapshot.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The keys of the hash that assigns clients to shards.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.header.seed
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.clients
    }

    /// True for a snapshot without clients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients == 0
    }

    /// The size of the file, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Checks that a daemon at `port` can use the snapshot now.
    ///
    /// # Errors
    /// If the snapshot is for another port, or the time of the snapshot lies in the future.
    pub fn suits(&self, port: u16, now: &Moment) -> Result<(), Unusable> {
        if self.header.port != port {
            return Err(Unusable::OtherPort(self.header.port));
        }
        now.since(&self.header.taken).map(|_age| ()).map_err(Unusable::FromTheFuture)
    }

    /// The time up to which the previous daemon served every slot, and after which it served none. `None` if
    /// that daemon did not stop cleanly, if the machine has been rebooted since, or if the time lies in the
    /// future.
    #[must_use]
    pub fn pinged_until(&self, now: &Moment) -> Option<Time> {
        let is_sound =
            |until: &Time| *until <= now.now && now.is_of_the_same_boot(&self.header.taken);
        self.header.pinged_until.filter(is_sound)
    }

    /// Calls `each` with every client, its times shifted as if the snapshot had been started at `taken`.
    pub fn for_each(&self, taken: Time, mut each: impl FnMut(View)) {
        let mut frames = FrameReader::at(self.shards_at, &self.bytes);
        while let Ok(Frame::Shard(shard)) = frames.read() {
            shard.clients(self.header.taken.now, taken).for_each(&mut each);
        }
    }

    /// Restores the clients that have not expired, are `served` and pass the guard. A client with a last
    /// heartbeat in the future is treated as expired, and so are all clients of a snapshot with a time in the
    /// future.
    ///
    /// A snapshot may hold more clients than the guard's caps admit: some of its clients were evicted to make
    /// room for others while the snapshot was written. So the clients that would be evicted first are
    /// restored last.
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
        // After a reboot the interfaces may have other numbers.
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
                        Refreshed::NoRoom
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
            Refreshed::NoRoom => self.refused += 1,
            Refreshed::Renewed => {}
        }
    }
}

#[cfg(test)]
mod tests;
