//! A temporary folder for snapshots.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Attempts to remove a folder, because a daemon could still be writing to it.
const TRIES: u32 = 100;

/// A new temporary folder that only this user can open. It is removed on drop.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates a folder that is also removed when SIGINT or SIGTERM ends this process.
    pub(crate) fn for_this_process() -> io::Result<Self> {
        let folder = Self::make()?;
        let path = folder.0.clone();
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::spawn(move || {
            let kind = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                }
            });
            remove(&path);
            process::exit(128 + kind.as_raw_value());
        });
        Ok(folder)
    }

    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("wakeupd-bench-{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot create {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a folder, even if a daemon is still writing to it.
fn remove(folder: &Path) {
    let _ = (0..TRIES).find(|_| fs::remove_dir_all(folder).is_ok());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_folder_is_private_and_is_removed_with_its_contents() {
        let folder = Folder::make().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "something").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
