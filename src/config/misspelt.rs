//! Detects environment variables that look like misspelt settings.

use std::fmt::{self, Display};

use super::SETTINGS;

/// The minimum similarity of two names, where 1 means equal. The threshold lies between real mistakes such as
/// `WORKERS_POOL` or `CLIENT_EXPIRE_SECONDS` and unrelated names such as `LOGNAME` or `HOSTNAME`.
const ALIKE: f64 = 0.88;

/// The minimum length of a setting's name for fuzzy matching. `HOST` and `PORT` resemble too many unrelated
/// names.
const DISTINCTIVE: usize = 8;

/// Names that resemble a setting but commonly belong to other programs.
const OF_OTHERS: [&str; 1] = ["HTTP_PORT"];

/// An unknown variable, and the setting that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    /// The name of the unknown variable.
    pub name: String,
    /// The name of the similar setting.
    pub meant: &'static str,
}

impl Misspelt {
    /// Returns the setting that an unknown variable resembles, if any.
    #[must_use]
    pub fn find(name: String) -> Option<Self> {
        if OF_OTHERS.contains(&name.as_str()) {
            return None;
        }
        let letters = letters_of(&name);
        let likeness = |known: &str| {
            if letters_of(known) == letters {
                1.0
            } else if known.len() < DISTINCTIVE {
                0.0
            } else {
                strsim::jaro_winkler(&letters_of(known), &letters)
            }
        };
        let (likeness, meant) = SETTINGS
            .into_iter()
            .map(|setting| (likeness(setting.name), setting.name))
            .max_by(|a, b| a.0.total_cmp(&b.0))?;
        (likeness >= ALIKE).then_some(Self { name, meant })
    }
}

impl Display for Misspelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped, so that no control character reaches the terminal.
        write!(f, "unknown variable {}: did you mean {}?", self.name.escape_debug(), self.meant)
    }
}

fn letters_of(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_variables_are_detected() {
        let mistakes = [
            ("CLIENT_EXPIRATION", "CLIENT_EXPIRATION_SECONDS"),
            ("CLIENT_EXPIRATION_SECS", "CLIENT_EXPIRATION_SECONDS"),
            ("CLIENT_EXPIRE_SECONDS", "CLIENT_EXPIRATION_SECONDS"),
            ("CLIENTS_EXPIRATION_SECONDS", "CLIENT_EXPIRATION_SECONDS"),
            ("WORKER_POOLSIZE", "WORKER_POOL_SIZE"),
            ("WORKERS_POOL_SIZE", "WORKER_POOL_SIZE"),
            ("WORKER_POOL", "WORKER_POOL_SIZE"),
            ("worker_pool_size", "WORKER_POOL_SIZE"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("LOG_LVL", "LOG_LEVEL"),
            ("LOG_FORMATS", "LOG_FORMAT"),
            ("MAX_CLIENT_PER_ADDRESS", "MAX_CLIENTS_PER_ADDRESS"),
            ("MAX_CLIENTS_PER_PREFIXES", "MAX_CLIENTS_PER_PREFIX"),
            ("SNAPSHOT_INTERVAL", "SNAPSHOT_INTERVAL_SECONDS"),
            ("SNAPSHOTS_PATH", "SNAPSHOT_PATH"),
            ("HTTP_ADDRESS", "HTTP_ADDR"),
            ("port", "PORT"),
            ("Host", "HOST"),
        ];
        for (name, meant) in mistakes {
            let found = Misspelt::find(name.to_owned());
            assert_eq!(found.map(|misspelt| misspelt.meant), Some(meant), "{name}");
        }
    }

    #[test]
    fn control_characters_in_a_name_are_escaped() {
        let misspelt = Misspelt::find("LOG\u{1b}LEVEL\n".to_owned()).unwrap().to_string();
        assert!(misspelt.contains(r"LOG\u{1b}LEVEL\n"), "{misspelt}");
    }

    #[test]
    fn variables_of_other_programs_are_ignored() {
        let others = [
            "PATH",
            "HOME",
            "HOSTNAME",
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "NO_PROXY",
            "HTTP_PORT",
            "LOG_FILE",
            "LOG_PATH",
            "ENV_FILE",
            "SYSTEMD_EXEC_PID",
            "MEMORY_PRESSURE_WATCH",
            "MANAGERPID",
            "HOSTTYPE",
            "HOSTS",
            "PORTS",
            "LANG",
            "LOGNAME",
            "LOG_DIR",
            "LC_ALL",
            "SHELL",
            "SHLVL",
            "TERM",
            "USER",
            "PWD",
            "OLDPWD",
            "JOURNAL_STREAM",
            "INVOCATION_ID",
            "LOGS_DIRECTORY",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "NOTIFY_SOCKET",
            "TZ",
            "KUBERNETES_PORT",
            "KUBERNETES_SERVICE_HOST",
            "WAKEUPD_PORT",
            "WAKEUPD_SERVICE_HOST",
            "CARGO_MANIFEST_DIR",
            "LISTEN_FDS",
            "container",
            "_",
            "",
        ];
        for name in others {
            assert_eq!(Misspelt::find(name.to_owned()), None);
        }
    }
}
