//! The sources of the variables: the process environment, and an env file as the fallback.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read};
use std::path::{self, Path, PathBuf};
use std::process;

use super::{Config, ConfigError, ENV_FILE, EnvFileError, Misspelt, NONE, unquoted};
use crate::disk;

/// Variables that systemd sets to the PID of the process that it starts. Child processes inherit the
/// variables, but have another PID.
const PID_VARIABLES: [&str; 3] = ["SYSTEMD_EXEC_PID", "LISTEN_PID", "WATCHDOG_PID"];

/// The variables from which the program reads its settings.
///
/// `cargo run` in a folder with a `.env` file should behave like a service with that file as its
/// `EnvironmentFile=`. A service gets its variables from its unit, so a stray file in its working directory
/// is ignored.
#[derive(Debug)]
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
    file: Option<PathBuf>,
}

/// Reads only the named settings, as [`Environment::some`] does for this process.
pub type ReadSettings = fn(&[&str]) -> Result<Config, ConfigError>;

/// All settings and their origin.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Unknown variables that look like misspelt settings.
    pub misspelt: Vec<Misspelt>,
    /// The env file, if one was read.
    pub file: Option<PathBuf>,
}

impl Environment {
    /// Merges the variables of the env file with those of the process, which take precedence.
    fn read(process: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, EnvFileError> {
        let mut variables: Vec<_> = process.into_iter().collect();
        let Some(path) = env_file(&variables) else {
            return Ok(Self { variables, file: None });
        };
        for (name, value) in read_env_file(&path)? {
            if value_of(&variables, &name).is_none() && name != ENV_FILE.name {
                variables.push((name.into(), value.into()));
            }
        }
        Ok(Self { variables, file: Some(path) })
    }

    /// Reads all settings from the variables of the process, such as [`std::env::vars_os`], and the env file.
    ///
    /// # Errors
    /// If the env file cannot be read or is malformed (a missing default file is not an error), or if a value
    /// is invalid. The error lists every variable with an invalid value.
    pub fn load(
        process: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, ConfigError> {
        let Self { variables, file } = Self::read(process)?;
        let (config, misspelt) = Config::from_vars(variables)?;
        Ok(Loaded { config, misspelt, file })
    }

    /// Returns the named settings, and defaults for the others, so that a subcommand does not fail because of
    /// a setting that it does not need, such as a `DENY_FILE` that only the daemon can read. If the process
    /// environment has all named settings, the env file is not read, so that an unusable env file does no
    /// harm.
    ///
    /// # Errors
    /// If a named setting is invalid (the error lists every invalid setting), or if the env file is needed
    /// but unusable.
    pub fn some(
        process: impl IntoIterator<Item = (OsString, OsString)>,
        names: &[&str],
    ) -> Result<Config, ConfigError> {
        let variables: Vec<_> = process.into_iter().collect();
        let has_all = names.iter().all(|name| value_of(&variables, name).is_some());
        let variables = if has_all { variables } else { Self::read(variables)?.variables };
        let is_named = |name: &OsString| names.iter().any(|it| name == it);
        let some = variables.into_iter().filter(|(name, _)| is_named(name));
        Ok(Config::from_vars(some).map(|(config, _)| config)?)
    }
}

/// Returns the env file to read, if any.
fn env_file(variables: &[(OsString, OsString)]) -> Option<PathBuf> {
    let value = value_of(variables, ENV_FILE.name).unwrap_or_default().to_string_lossy();
    let value = unquoted(&value);
    let is_none = value.eq_ignore_ascii_case(NONE);
    let path = if value.is_empty() { ENV_FILE.default } else { value };
    let path = path::absolute(path).unwrap_or_else(|_| path.into());
    // A folder named `.env` is usually a Python virtual environment.
    let is_wanted = !value.is_empty() || !is_supervised(variables) && path.is_file();
    (is_wanted && !is_none).then_some(path)
}

/// Whether a service manager started this process itself. Compares PIDs, because a shell can inherit the
/// variables of a unit.
fn is_supervised(variables: &[(OsString, OsString)]) -> bool {
    let pid = process::id().to_string();
    value_of(variables, "NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
        || PID_VARIABLES.iter().any(|name| value_of(variables, name) == Some(OsStr::new(&pid)))
}

fn value_of<'a>(variables: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_os_str())
}

fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let text =
        text_of(path).map_err(|error| EnvFileError::Unreadable { path: path.to_owned(), error })?;
    // Some editors write a byte order mark at the start of a file.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    parse(text).map_err(|line| EnvFileError::Malformed { path: path.to_owned(), line })
}

/// Returns the variables in file order, or the number of the malformed line, from 1.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let read = Cell::new(0);
    let mut variables = Vec::new();
    let mut done = 0;
    for variable in dotenvy::from_read_iter(Lines { text: text.as_bytes(), read: &read }) {
        let Ok(variable) = variable else {
            // If a quote is missing, the parser has read to the end of the text.
            let holds = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#');
            let wrong = text.lines().skip(done).position(holds);
            return Err(done + wrong.unwrap_or_default() + 1);
        };
        variables.push(variable);
        done = read.get();
    }
    Ok(variables)
}

/// Feeds a text to the parser line by line, because the parser does not report its position.
struct Lines<'a> {
    text: &'a [u8],
    /// The number of lines read so far.
    read: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self.text.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let (part, rest) = self.text.split_at(line.len().min(buffer.len()));
        buffer[..part.len()].copy_from_slice(part);
        self.text = rest;
        self.read.update(|read| read + usize::from(part.ends_with(b"\n")));
        Ok(part.len())
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    let bytes = disk::within_patience(move || disk::read(&path))?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "the file is not encoded in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn no_default_file_is_read_under_a_service_manager() {
        let (pid, other) = (process::id().to_string(), (process::id() + 1).to_string());
        for (name, value, expected) in [
            ("NOTIFY_SOCKET", "/run/systemd/notify", true),
            ("NOTIFY_SOCKET", "", false),
            ("SYSTEMD_EXEC_PID", &pid, true),
            ("LISTEN_PID", &pid, true),
            ("WATCHDOG_PID", &pid, true),
            ("SYSTEMD_EXEC_PID", &other, false),
            ("INVOCATION_ID", "0123456789abcdef", false),
            ("JOURNAL_STREAM", "8:1234", false),
        ] {
            assert_eq!(is_supervised(&variables(&[(name, value)])), expected, "{name}={value}");
        }
    }

    #[test]
    fn an_explicit_env_file_is_always_read() {
        let named = |value| env_file(&variables(&[("NOTIFY_SOCKET", "@x"), ("ENV_FILE", value)]));
        assert_eq!(named("/etc/wakeupd.env"), Some("/etc/wakeupd.env".into()));
        assert_eq!(named(" '/a b' "), Some("/a b".into()));
        for none in ["none", "NONE", "", " "] {
            assert_eq!(named(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_parse_error_gives_the_line_number() {
        for (text, expected) in [
            ("PORT 7000", 1),
            ("# PORT 7000\nHOST=::\n\nPORT 7000\n", 4),
            ("HOST=::\nPORT=7000 7001 # two\nLOG_LEVEL=INFO", 2),
            ("A='1\n2\n3'\nPORT=7000\n\n  # B C\nB C", 7),
            ("HOST=::\r\nADMIN_TOKEN=\"secret\r\nPORT=1\r\n", 2),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn printed_settings_round_trip() {
        for path in ["/plain", "/a b", "/a#b", "/$HOME/`id`", "/it's \"$x\" \\ #1"] {
            let set = variables(&[("SNAPSHOT_PATH", path), ("HTTP_ADDR", "[::1]:80")]);
            let (config, _) = Config::from_vars(set).unwrap();
            let printed = parse(&config.to_string()).unwrap();
            let printed = printed.into_iter().map(|(name, value)| (name.into(), value.into()));
            assert_eq!(Config::from_vars(printed).unwrap().0, config, "{path}");
        }
    }

    #[test]
    fn a_long_line_is_parsed_as_one() {
        let long = "a,".repeat(20_000);
        let text = format!("REFUSE_NETS={long}\nPORT=1\n");
        assert_eq!(parse(&text).unwrap()[0].1, long);
        assert_eq!(parse(&format!("{text}x y")), Err(3));
    }

    #[test]
    fn only_the_requested_settings_are_validated() {
        let all = variables(&[
            ("ENV_FILE", "/nowhere"),
            ("DENY_FILE", "/nowhere"),
            ("HTTP_ADDR", "[::1]:80"),
            ("PORT", "x"),
        ]);
        let some = |names| Environment::some(all.clone(), names);
        assert_eq!(some(&["HTTP_ADDR"]).unwrap().http_addr, "[::1]:80".parse().ok());
        assert!(matches!(some(&["PORT"]), Err(ConfigError::Mistakes(_))));
        assert!(matches!(some(&["HTTP_ADDR", "HOST"]), Err(ConfigError::EnvFile(_))));
    }
}
