//! The file of the networks that an operator denies.

use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::guard::{Networks, NotANetwork, network};

/// A file of networks, one on each line. What follows a `#` is a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyFile {
    path: PathBuf,
    networks: Networks,
}

/// Why a file of networks is of no use.
#[derive(Debug, Error)]
pub enum DenyFileError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Unreadable(#[from] io::Error),
    /// A line of it is neither a network nor empty nor a comment.
    #[error("line {line}: {error}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        error: NotANetwork,
    },
}

impl DenyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read, or with the first line that is wrong.
    pub fn read(path: PathBuf) -> Result<Self, DenyFileError> {
        let networks = parse(&fs::read_to_string(&path)?)?;
        Ok(Self { path, networks })
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_again(&self) -> Result<Self, DenyFileError> {
        Self::read(self.path.clone())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// What it held when it was read.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.networks
    }
}

/// Reads what such a file holds.
///
/// # Errors
/// With the first line that is wrong.
pub fn parse(text: &str) -> Result<Networks, DenyFileError> {
    // Some editors begin a file with this mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or_default().trim()))
        .filter(|(_, line)| !line.is_empty())
        .map(|(line, text)| network(text).map_err(|error| DenyFileError::Line { line, error }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_on_each_line_and_comments() {
        let text = "\u{feff}# those who asked\r\n203.0.113.0/24\r\n\n  2001:db8:7::/48 # by mail\n198.51.100.7";
        let expected = "203.0.113.0/24,2001:db8:7::/48,198.51.100.7".parse().unwrap();
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("").unwrap().is_empty() && parse("# nobody").unwrap().is_empty());
    }

    #[test]
    fn the_line_that_is_wrong_is_told() {
        let error = parse("# one\n203.0.113.0/24\n203.0.113.0/24 ::1\n").unwrap_err();
        assert!(error.to_string().starts_with("line 3: \"203.0.113.0/24 ::1\" is no network"));
    }
}
