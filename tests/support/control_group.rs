//! A control group with a limit.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// A control group with a limit.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A control group with a memory limit in bytes.
    pub fn with_memory(bytes: u64) -> Option<Self> {
        Self::new("memory", "memory.max", "memory.limit_in_bytes", bytes)
    }

    /// A control group with a limit on threads.
    pub fn with_threads(threads: u64) -> Option<Self> {
        Self::new("pids", "pids.max", "pids.max", threads)
    }

    /// Creates a group below that of this process, or below its nearest ancestor that supports the limit.
    fn new(controller: &str, file: &str, old_file: &str, limit: u64) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wakeupd-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (root, file) = match fields.next()? {
                "" => (PathBuf::from("/sys/fs/cgroup"), file),
                name if name == controller => (Path::new("/sys/fs/cgroup").join(name), old_file),
                _ => return None,
            };
            let own = root.join(fields.next()?.trim_start_matches('/'));
            own.ancestors().take_while(|folder| folder.starts_with(&root)).find_map(|folder| {
                let group = folder.join(&name);
                fs::create_dir(&group).ok()?;
                let group = Self(group);
                // The file exists only if the folder is a control group.
                let mut file = OpenOptions::new().write(true).open(group.0.join(file)).ok()?;
                file.write_all(limit.to_string().as_bytes()).ok()?;
                Some(group)
            })
        })
    }

    /// A shell command that moves the shell into the group.
    pub fn preparation(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A process of the group may still be exiting.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
