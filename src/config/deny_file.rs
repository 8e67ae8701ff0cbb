//! `DENY_FILE`, the file with the networks that the guard denies.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::disk;
use crate::engine::guard::{Networks, NotANetwork, network};

/// A file of networks, one per line. A `#` starts a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyFile {
    path: PathBuf,
    /// `None` until the file has been read.
    networks: Option<Networks>,
}

/// Why `DENY_FILE` cannot be used.
#[derive(Debug, Error)]
pub enum DenyFileError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// The file is in UTF-16, the encoding that Windows editors call "Unicode".
    #[error("the file is encoded in UTF-16: save it as UTF-8")]
    Utf16,
    /// A line is neither a network nor empty nor a comment.
    #[error("line {line}: {error}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// The parse error.
        error: NotANetwork,
    },
}

impl DenyFileError {
    /// The number of the invalid line, from 1. `None` if the error concerns the whole file.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line { line, .. } => Some(*line),
            Self::Unreadable(_) | Self::Utf16 => None,
        }
    }

    /// Formats the error without the text of the line: if `DENY_FILE` names a file of secrets by mistake, no
    /// secret is published.
    #[must_use]
    pub fn without_text(&self) -> String {
        match self {
            Self::Line { line, .. } => format!("line {line} is not a network"),
            Self::Unreadable(_) | Self::Utf16 => self.to_string(),
        }
    }
}

impl DenyFile {
    /// Reads the file at `path`. If the disk does not answer within [`disk::TIMEOUT`], returns the file
    /// without networks instead of an error, so that the daemon starts and the clients get their pings. The
    /// result is the same if the system refuses to start the thread that reads the file, because that is not
    /// a configuration error.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn find(path: PathBuf) -> Result<Self, DenyFileError> {
        let unread = Self { path, networks: None };
        let file = unread.clone();
        disk::within_patience(move || Ok(file.read())).unwrap_or(Ok(unread))
    }

    /// Reads the file again, without a timeout.
    ///
    /// # Errors
    /// If the file cannot be read or has an invalid line. The error names the first invalid line.
    pub fn read(&self) -> Result<Self, DenyFileError> {
        let networks = parse(&disk::read(&self.path)?)?;
        Ok(Self { path: self.path.clone(), networks: Some(networks) })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// The networks of the last read; `None` if the disk has not answered yet.
    #[must_use]
    pub fn networks(&self) -> Option<&Networks> {
        self.networks.as_ref()
    }
}

/// Parses the content of a deny file. Comments can be in any encoding that is a superset of ASCII.
///
/// # Errors
/// If the content is UTF-16 or has an invalid line. The error names the first invalid line.
pub fn parse(bytes: &[u8]) -> Result<Networks, DenyFileError> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(DenyFileError::Utf16);
    }
    // Some editors write a byte order mark at the start of a file.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.split(|byte| *byte == b'#').next().unwrap_or_default())
        .enumerate()
        .map(|(index, line)| (index + 1, String::from_utf8_lossy(line)))
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(line, text)| {
            network(text.trim()).map_err(|error| DenyFileError::Line { line, error })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_holds_a_network_or_a_comment() {
        let text = "\u{feff}# those who asked\r\n203.0.113.0/24\r\n\n  2001:db8:7::/48 # by mail\n198.51.100.7";
        let expected = "203.0.113.0/24,2001:db8:7::/48,198.51.100.7".parse().unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
        assert!(parse(b"").unwrap().is_empty() && parse(b"# empty").unwrap().is_empty());
    }

    #[test]
    fn comments_may_be_in_any_encoding() {
        let expected = "203.0.113.0/24,198.51.100.7".parse().unwrap();
        for comment in [&b"M\xfcller"[..], "Müller".as_bytes(), b"\xff\xfe\x80", b"\x83X# \0"] {
            let text =
                [b"#", comment, b"\n203.0.113.0/24 # ", comment, b"\r\n198.51.100.7"].concat();
            assert_eq!(parse(&text).unwrap(), expected);
        }
    }

    #[test]
    fn networks_in_utf_16_are_rejected() {
        let text = "203.0.113.0/24\n";
        let little: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        let big: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect();
        for bytes in [little, big] {
            let error = parse(&bytes).unwrap_err();
            assert_eq!(error.to_string(), "the file is encoded in UTF-16: save it as UTF-8");
        }
        assert_eq!(parse(b"203.0.113.0/24\n203.0.113.\xb2\n").unwrap_err().line(), Some(2));
    }

    #[test]
    fn a_parse_error_quotes_the_line() {
        let error = parse(b"# one\n203.0.113.0/24\n203.0.113.0/24 ::1\n").unwrap_err();
        assert!(error.to_string().starts_with("line 3: \"203.0.113.0/24 ::1\" is not a network"));
        assert_eq!(error.without_text(), "line 3 is not a network");
    }
}
