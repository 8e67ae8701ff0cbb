//! What is logged, and in which form.

use std::fmt::{self, Display};
use std::str::FromStr;

/// Severities by the names and numbers that Python gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, each datagram included.
    NotSet,
    /// Clients that come and go as well.
    Debug,
    /// What an operator wants to read.
    Info,
    /// What an operator should look into.
    Warning,
    /// What stops the daemon from doing its work.
    Error,
    /// As [`LogLevel::Error`]: nothing here is graver.
    Critical,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for LogLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_uppercase().as_str() {
            "NOTSET" | "0" => Ok(Self::NotSet),
            "DEBUG" | "10" => Ok(Self::Debug),
            "INFO" | "20" => Ok(Self::Info),
            "WARNING" | "WARN" | "30" => Ok(Self::Warning),
            "ERROR" | "40" => Ok(Self::Error),
            "CRITICAL" | "FATAL" | "50" => Ok(Self::Critical),
            _ => Err(()),
        }
    }
}

impl Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSet => "NOTSET",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        })
    }
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}
