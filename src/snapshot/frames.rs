//! The binary encoding of a snapshot.
//!
//! A snapshot begins with [`MAGIC`] and the version, a `u32`. Frames follow. Each frame has the length and
//! the CRC-32 (as in ISO 3309 and zlib) of its content, both `u32`, and then the content in the format of
//! [postcard](https://postcard.jamesmunns.com). Each `u32` is little-endian.

use std::io::{self, Write};
use std::mem;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The first bytes of a snapshot.
pub const MAGIC: [u8; 8] = *b"wakeupd\0";

/// The version of the format that wakeupd writes, and the only version that it reads.
pub const VERSION: u32 = 2;

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// The file does not begin with [`MAGIC`].
    #[error("the file is not a wakeupd snapshot")]
    NotOurs,
    /// The file has another version of the format, for example because a later wakeupd wrote it.
    #[error("the format version of the file is {0}, but this wakeupd reads only version {VERSION}")]
    Version(u32),
    /// The file is truncated.
    #[error("the file is truncated after {0} bytes")]
    CutOff(usize),
    /// A checksum or the content of a frame is wrong.
    #[error("the file is damaged at byte {0}")]
    Damaged(usize),
    /// A daemon on another port wrote the snapshot, and its clients expect pings from that port.
    #[error("the snapshot was taken on UDP port {0}, and its clients expect pings from that port")]
    OtherPort(u16),
    /// The age is unknown, because the time of the snapshot lies in the future.
    #[error(
        "the time of the snapshot is {0:?} in the future, so the clock must have been set back"
    )]
    FromTheFuture(Duration),
}

/// Writes frames one after the other.
#[derive(Debug)]
pub(super) struct FrameWriter<W> {
    out: W,
    content: Vec<u8>,
    written: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Writes the magic bytes and the version.
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let written = MAGIC.len() as u64 + 4;
        Ok(Self { out, content: Vec::new(), written })
    }

    pub(super) fn write(&mut self, content: &impl Serialize) -> io::Result<()> {
        self.content.clear();
        let buffer = mem::take(&mut self.content);
        self.content = postcard::to_extend(content, buffer).map_err(io::Error::other)?;
        let length = u32::try_from(self.content.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&self.content).to_le_bytes())?;
        self.out.write_all(&self.content)?;
        self.written += 8 + u64::from(length);
        Ok(())
    }

    /// Flushes the output and returns the number of bytes written.
    pub(super) fn end(mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.written)
    }
}

/// Reads frames one after the other.
#[derive(Clone, Debug)]
pub(super) struct FrameReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> FrameReader<'a> {
    /// Checks the magic bytes and the version.
    pub(super) fn begin(bytes: &'a [u8]) -> Result<Self, Unusable> {
        let mut reader = Self::at(0, bytes);
        if reader.take().ok() != Some(MAGIC) {
            return Err(Unusable::NotOurs);
        }
        match u32::from_le_bytes(reader.take()?) {
            VERSION => Ok(reader),
            other => Err(Unusable::Version(other)),
        }
    }

    /// Continues to read `bytes` at `position`.
    pub(super) fn at(position: usize, bytes: &'a [u8]) -> Self {
        Self { bytes, position }
    }

    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Result<T, Unusable> {
        let begin = self.position;
        let [length, checksum] = [self.take()?, self.take()?].map(u32::from_le_bytes);
        let content = self.slice(usize::try_from(length).unwrap_or(usize::MAX))?;
        let is_whole = crc32fast::hash(content) == checksum;
        match postcard::take_from_bytes(content) {
            Ok((value, [])) if is_whole => Ok(value),
            _ => Err(Unusable::Damaged(begin)),
        }
    }

    pub(super) fn is_at_the_end(&self) -> bool {
        self.position == self.bytes.len()
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        let slice = self.slice(N)?;
        Ok(slice.try_into().expect("the slice has the length of the array"))
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Unusable> {
        let rest = &self.bytes[self.position..];
        let slice = rest.get(..length).ok_or(Unusable::CutOff(self.bytes.len()))?;
        self.position += length;
        Ok(slice)
    }
}
