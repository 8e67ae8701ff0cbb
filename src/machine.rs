//! Reads facts about the machine from files in `/proc` and `/sys`.

use std::fmt::Display;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

/// The file for the kernel parameters that the daemon needs. The documentation uses the same name.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/90-wakeupd.conf";

/// A control group limit of this size or more counts as unlimited.
const UNLIMITED: u64 = 1 << 60;

// From linux/if_addr.h.
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

/// The state of IPv6 duplicate address detection: the kernel probes the link for another machine with the same
/// address. Until the last probe times out, no socket can be bound to the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// The address is tentative.
    Running,
    /// Another machine has the address.
    Failed,
}

/// The root of the `proc` and `sys` trees: that of this machine, or a fake one in a test.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// Reads from the `proc` and `sys` trees below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The full path of a file, given relative to the root.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The contents of a file, without surrounding white space.
    ///
    /// # Errors
    /// If the file cannot be read. The error names the file.
    pub fn text(&self, path: &str) -> io::Result<String> {
        let path = self.path(path);
        let bytes = fs::read(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
        })?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Parses a file that holds a single number.
    ///
    /// # Errors
    /// If the file cannot be read or does not hold a number of type `T`.
    pub fn number<T: FromStr>(&self, path: &str) -> io::Result<T> {
        let text = self.text(path)?;
        text.parse().map_err(|_| self.malformed(path, &text))
    }

    /// Parses a file that holds a single number. Returns `None` if the file does not exist.
    ///
    /// # Errors
    /// If the file exists but cannot be read or does not hold a number of type `T`.
    pub fn number_if_any<T: FromStr>(&self, path: &str) -> io::Result<Option<T>> {
        if_any(self.number(path))
    }

    /// The text after `name` in a line of a table such as `/proc/meminfo`.
    ///
    /// # Errors
    /// If the file cannot be read or has no such line.
    pub fn line(&self, path: &str, name: &str) -> io::Result<String> {
        let text = self.text(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim().to_owned()).ok_or_else(|| self.malformed(path, &text))
    }

    /// The value of a line in kB, converted to bytes.
    ///
    /// # Errors
    /// If the file cannot be read, has no such line, or the value is not in kB.
    pub fn kilobytes(&self, path: &str, name: &str) -> io::Result<u64> {
        let line = self.line(path, name)?;
        let number = line.strip_suffix("kB").and_then(|number| number.trim().parse::<u64>().ok());
        let bytes = number.map(|number| number.saturating_mul(1024));
        bytes.ok_or_else(|| self.malformed(path, &line))
    }

    /// A soft limit of a process. `process` is the folder of the process, such as `proc/self`. `None` means
    /// unlimited.
    ///
    /// # Errors
    /// If the file with the limits cannot be read or has no such limit.
    pub fn soft_limit(&self, process: &str, name: &str) -> io::Result<Option<u64>> {
        let path = format!("{process}/limits");
        let line = self.line(&path, name)?;
        match line.split_ascii_whitespace().next() {
            Some("unlimited") => Ok(None),
            Some(soft) => soft.parse().map(Some).map_err(|_| self.malformed(&path, soft)),
            None => Err(self.malformed(&path, name)),
        }
    }

    /// The smallest limit that the control groups of a process set. The unified hierarchy (version 2) holds
    /// the limit in `file`, the controller's own hierarchy (version 1) in `old_file`. `None` means that no
    /// group sets a limit.
    ///
    /// # Errors
    /// If a file cannot be read or holds no limit.
    pub fn limit_of_the_group(
        &self,
        process: &str,
        controller: &str,
        file: &str,
        old_file: &str,
    ) -> io::Result<Option<u64>> {
        let path = format!("{process}/cgroup");
        let Some(groups) = if_any(self.text(&path))? else { return Ok(None) };
        let mut least = None;
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
                return Err(self.malformed(&path, line));
            };
            let (root, file) = match controllers {
                "" => ("sys/fs/cgroup".to_owned(), file),
                _ if controllers.split(',').any(|name| name == controller) => {
                    (format!("sys/fs/cgroup/{controller}"), old_file)
                }
                _ => continue,
            };
            // In a container the path may be that of the host, while the group's files are in the root.
            for folder in Path::new(group.trim_matches('/')).ancestors() {
                let limit = self.limit(&format!("{root}/{}/{file}", folder.display()))?;
                least = least.into_iter().chain(limit).min();
            }
        }
        Ok(least)
    }

    /// The limit in a file of a control group. `None` if the file does not exist or sets no limit.
    fn limit(&self, path: &str) -> io::Result<Option<u64>> {
        match if_any(self.text(path))? {
            Some(text) if text != "max" => {
                let limit = text.parse().map_err(|_| self.malformed(path, &text))?;
                Ok(Some(limit).filter(|limit| *limit < UNLIMITED))
            }
            _ => Ok(None),
        }
    }

    /// True if a process ignores a signal. `process` is the folder of the process, such as `proc/self`.
    #[must_use]
    pub fn ignores_signal(&self, process: &str, signal: u32) -> bool {
        let mask = self.line(&format!("{process}/status"), "SigIgn:");
        let mask = mask.ok().and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    /// True if a process has a controlling terminal. `process` is the folder of the process, such as
    /// `proc/self`.
    #[must_use]
    pub fn has_terminal(&self, process: &str) -> bool {
        let stat = self.text(&format!("{process}/stat")).unwrap_or_default();
        // The process name before the parenthesis may hold any character. The fields after it are the state,
        // the parent, the group, the session and the terminal.
        let terminal = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(4));
        terminal.is_some_and(|device| device != "0")
    }

    /// The state of duplicate address detection of an address. `None` if the detection succeeded, or if the
    /// machine does not have the address.
    #[must_use]
    pub fn detection(&self, ip: Ipv6Addr) -> Option<Detection> {
        let addresses = self.text("proc/net/if_inet6").unwrap_or_default();
        let digits = format!("{:032x}", ip.to_bits());
        let line = addresses.lines().find_map(|line| line.strip_prefix(&digits))?;
        let flags = line.split_whitespace().nth(3)?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        match (flags & IFA_F_DADFAILED != 0, flags & IFA_F_TENTATIVE != 0) {
            (true, _) => Some(Detection::Failed),
            (false, true) => Some(Detection::Running),
            (false, false) => None,
        }
    }

    /// The error for a file with unexpected contents.
    #[must_use]
    pub fn malformed(&self, path: &str, text: &str) -> io::Error {
        let line = text.lines().next().unwrap_or_default();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has the unexpected content \"{line}\"", self.path(path).display()),
        )
    }
}

/// The shell command that sets a kernel parameter now and at every boot. It can be repeated, because it
/// replaces the line that it wrote before.
#[must_use]
pub fn set_sysctl(name: &str, value: impl Display) -> String {
    let pattern = name.replace('.', r"\.");
    format!(
        "sudo sh -c 'f={SYSCTL_FILE}; touch $f && sed -i \"/^{pattern} *=/d\" $f && echo \"{name} = {value}\" >>$f && sysctl -p $f'"
    )
}

/// Turns [`io::ErrorKind::NotFound`] into `None`.
///
/// # Errors
/// If `read` failed for another reason.
pub fn if_any<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// A fake machine for tests, made of files in a temporary folder.
#[cfg(test)]
pub(crate) mod fake {
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::{Machine, PathBuf, fs};

    static COUNT: AtomicU32 = AtomicU32::new(0);

    #[derive(Debug)]
    pub(crate) struct Fake(pub(crate) Machine);

    impl Fake {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let number = COUNT.fetch_add(1, Relaxed);
            let name = format!("wakeupd-machine-{}-{number}", std::process::id());
            let fake = Self(Machine::new(std::env::temp_dir().join(name)));
            for (path, text) in files {
                fs::write(fake.place(path), text).unwrap();
            }
            fake
        }

        /// Adds a symbolic link.
        pub(crate) fn link(&self, path: &str, to: impl AsRef<Path>) {
            symlink(to, self.place(path)).unwrap();
        }

        fn place(&self, path: &str) -> PathBuf {
            let path = self.0.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.path(""));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::fake::Fake;
    use super::*;

    #[test]
    fn a_missing_number_is_none_and_a_malformed_one_is_an_error() {
        let fake = Fake::new(&[("proc/one", "  1\n"), ("proc/many", "1 2\n3")]);
        assert_eq!(fake.0.number::<u8>("proc/one").unwrap(), 1);
        assert_eq!(fake.0.number_if_any("proc/one").unwrap(), Some(1));
        assert_eq!(fake.0.number_if_any::<u8>("proc/none").unwrap(), None);
        let error = fake.0.number_if_any::<u8>("proc/many").unwrap_err().to_string();
        assert!(error.ends_with(r#"/proc/many has the unexpected content "1 2""#), "{error}");
        let error = fake.0.number::<u8>("proc/none").unwrap_err().to_string();
        assert!(error.starts_with("cannot read /") && error.contains("/proc/none: "), "{error}");
    }

    #[test]
    fn soft_limits_are_read() {
        let fake = Fake::new(&[
            (
                "proc/self/limits",
                "Max open files            1024                 524288               files\nMax address space         unlimited            unlimited            bytes",
            ),
            ("proc/7/limits", "Max open files            12                 4096  files"),
            ("proc/8/limits", "Max open files            many"),
        ]);
        let of = |process, name| fake.0.soft_limit(process, name);
        assert_eq!(of("proc/self", "Max open files").unwrap(), Some(1024));
        assert_eq!(of("proc/self", "Max address space").unwrap(), None);
        assert_eq!(of("proc/7", "Max open files").unwrap(), Some(12));
        assert!(of("proc/7", "Max address space").is_err());
        assert!(of("proc/8", "Max open files").is_err());
        assert!(of("proc/9", "Max open files").is_err());
    }

    #[test]
    fn the_duplicate_address_detection_state_is_read() {
        let fake = Fake::new(&[(
            "proc/net/if_inet6",
            "20010db8000000000000000000000001 02 40 00 c0     wire
20010db8000000000000000000000002 02 40 00 c8     wire
20010db8000000000000000000000003 02 40 00 80     wire",
        )]);
        let of = |ip: &str| fake.0.detection(ip.parse().unwrap());
        assert_eq!(of("2001:db8::1"), Some(Detection::Running));
        assert_eq!(of("2001:db8::2"), Some(Detection::Failed));
        assert_eq!(of("2001:db8::3"), None);
        assert_eq!(of("2001:db8::4"), None);
        assert_eq!(Fake::new(&[]).0.detection("::1".parse().unwrap()), None);
    }

    #[test]
    fn the_terminal_and_the_ignored_signals_of_a_process_are_read() {
        let fake = Fake::new(&[
            ("proc/1/stat", "1 (a) b) S 0 1 1 0 -1 4194560"),
            ("proc/2/stat", "2 (c) S 0 2 2 34816 2 4194560"),
            ("proc/2/status", "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n"),
        ]);
        assert!(!fake.0.has_terminal("proc/1") && fake.0.has_terminal("proc/2"));
        assert!(!fake.0.has_terminal("proc/3"));
        let ignored: Vec<_> = (1..=64).filter(|n| fake.0.ignores_signal("proc/2", *n)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!fake.0.ignores_signal("proc/1", 1));
    }

    #[test]
    fn lines_of_a_table_are_found_by_name() {
        let fake = Fake::new(&[("proc/meminfo", "MemTotal:  4 kB\nMemAvailable: 2 kB\nHuge:  3")]);
        let of = |name| fake.0.kilobytes("proc/meminfo", name);
        assert_eq!(fake.0.line("proc/meminfo", "Huge:").unwrap(), "3");
        assert_eq!(of("MemAvailable:").unwrap(), 2048);
        assert!(of("Huge:").is_err() && of("MemFree:").is_err());
    }

    #[test]
    fn setting_a_kernel_parameter_is_idempotent() {
        let folder = std::env::temp_dir().join(format!("wakeupd-sysctl-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("90-wakeupd.conf");
        fs::write(&file, "net.core.rmem_max=1\nnet.core.wmem_max=2\n").unwrap();
        for value in [3, 3, 4] {
            let command = set_sysctl("net.core.rmem_max", value);
            let command = command.strip_prefix("sudo ").unwrap();
            // Edits a temporary file: no test may change a kernel parameter of the machine.
            let command = command.replace(SYSCTL_FILE, file.to_str().unwrap());
            let command = command.replace("sysctl -p", "test -e");
            assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        }
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "net.core.wmem_max=2\nnet.core.rmem_max = 4\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
