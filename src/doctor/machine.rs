//! What the kernel tells in files of `/proc` and `/sys`.

use std::path::PathBuf;
use std::str::FromStr;
use std::{fs, io};

/// A tree of such files: that of this machine, or one that a test made up.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose `proc` and `sys` are in `root`.
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What a file holds, without the white space around it.
    pub(super) fn text(&self, path: &str) -> io::Result<String> {
        let path = self.path(path);
        let bytes = fs::read(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
        })?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number that a file holds.
    pub(super) fn number<T: FromStr>(&self, path: &str) -> io::Result<T> {
        let text = self.text(path)?;
        text.parse().map_err(|_| self.malformed(path, &text))
    }

    /// The number that a file holds, or `None` where there is no such file.
    pub(super) fn number_if_any<T: FromStr>(&self, path: &str) -> io::Result<Option<T>> {
        if_any(self.number(path))
    }

    /// That a file says something which nobody expects there.
    pub(super) fn malformed(&self, path: &str, text: &str) -> io::Error {
        let line = text.lines().next().unwrap_or_default();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} says \"{line}\", which is not understood", self.path(path).display()),
        )
    }
}

/// What was read, or `None` where there is nothing of that name.
pub(super) fn if_any<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The command that sets a kernel parameter now and at every start of the machine.
pub(super) fn set_sysctl(name: &str, value: u64) -> String {
    format!(
        "echo '{name} = {value}' | sudo tee -a /etc/sysctl.d/91-wakeupd-doctor.conf && sudo sysctl --system"
    )
}

/// `names` as a sentence lists them.
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// A machine that a test makes up, file by file.
#[cfg(test)]
pub(super) mod fake {
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::{Machine, PathBuf, fs};

    static COUNT: AtomicU32 = AtomicU32::new(0);

    #[derive(Debug)]
    pub(in super::super) struct Fake(pub(in super::super) Machine);

    impl Fake {
        pub(in super::super) fn new(files: &[(&str, &str)]) -> Self {
            let number = COUNT.fetch_add(1, Relaxed);
            let name = format!("wakeupd-doctor-{}-{number}", std::process::id());
            let fake = Self(Machine::new(std::env::temp_dir().join(name)));
            for (path, text) in files {
                fs::write(fake.place(path), text).unwrap();
            }
            fake
        }

        /// Adds a symbolic link.
        pub(in super::super) fn link(&self, path: &str, to: impl AsRef<Path>) {
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
    use super::fake::Fake;
    use super::*;

    #[test]
    fn a_number_is_there_or_not_or_no_number() {
        let fake = Fake::new(&[("proc/one", "  1\n"), ("proc/many", "1 2\n3")]);
        assert_eq!(fake.0.number::<u8>("proc/one").unwrap(), 1);
        assert_eq!(fake.0.number_if_any("proc/one").unwrap(), Some(1));
        assert_eq!(fake.0.number_if_any::<u8>("proc/none").unwrap(), None);
        let error = fake.0.number_if_any::<u8>("proc/many").unwrap_err().to_string();
        assert!(error.ends_with(r#"/proc/many says "1 2", which is not understood"#), "{error}");
        let error = fake.0.number::<u8>("proc/none").unwrap_err().to_string();
        assert!(error.starts_with("cannot read /") && error.contains("/proc/none: "), "{error}");
    }

    #[test]
    fn lists_read_well() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let lists = [0, 1, 2, 3].map(|count| list(&names[..count]));
        assert_eq!(lists, ["none", "a", "a and b", "a, b and c"]);
    }
}
