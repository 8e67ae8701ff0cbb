//! Invalid settings.

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::HIDDEN;
use super::setting::{Secrecy, Setting};

/// The exit code for an invalid configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// A variable with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The assignment in the form `NAME="value"`, with escapes. The value of a secret setting is hidden.
    assignment: String,
    expected: String,
    default: &'static str,
    /// The specific error, if the value alone does not make it obvious.
    detail: Option<String>,
}

/// All variables with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Mistakes(pub(super) Vec<Mistake>);

/// Why an env file is unusable.
#[derive(Debug, Error)]
pub enum EnvFileError {
    /// The file cannot be read.
    #[error(
        "cannot read the env file {}: {error}. Correct ENV_FILE, or set ENV_FILE=none to run without an env file",
        .path.display().to_string().escape_debug()
    )]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A line is malformed. The line itself is not shown, because it may hold a secret.
    #[error(
        "the env file {} is malformed in line {line}. Write NAME=value, with quotes around a value that contains spaces, or a comment after #",
        .path.display().to_string().escape_debug()
    )]
    Malformed {
        /// The path of the file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
    },
}

/// Why the settings cannot be determined.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The env file is unusable.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// A variable has an invalid value.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl ConfigError {
    /// The exit code of a program without valid settings.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        EXIT_CONFIG
    }
}

impl Mistake {
    pub(super) fn new(setting: &Setting, value: impl Display, detail: Option<String>) -> Self {
        let Setting { name, default, values, secrecy, .. } = *setting;
        let value = match secrecy {
            Secrecy::Secret => HIDDEN.to_owned(),
            Secrecy::Public | Secrecy::Operator => value.to_string(),
        };
        // Quoted and escaped, so that no control character reaches the terminal.
        let assignment = format!("{name}=\"{}\"", value.escape_debug());
        Self { assignment, expected: values.to_string(), default, detail }
    }
}

impl Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid settings. Correct these variables:")?;
        for Mistake { assignment, expected, default, detail } in &self.0 {
            write!(f, "\n  {assignment} must be {expected} (default: {default})")?;
            if let Some(detail) = detail {
                write!(f, ": {detail}")?;
            }
        }
        Ok(())
    }
}
