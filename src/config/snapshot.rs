//! The path of the snapshot, which keeps the clients across a restart.

use std::fs;
use std::path::PathBuf;

use super::unquoted;
use crate::disk;

pub(super) fn path(text: &str) -> Result<PathBuf, Option<String>> {
    let wrong = |detail: &str| Err(Some(detail.to_owned()));
    if text.chars().any(char::is_control) || unquoted(text) != text {
        return wrong(
            "the path must not contain control characters or be enclosed in quotation marks",
        );
    }
    let path = PathBuf::from(text);
    let place = path.clone();
    // The daemon starts even if the disk does not answer.
    match disk::within_patience(move || fs::metadata(place)) {
        Ok(there) if there.is_dir() => wrong("the path names a folder: add a file name"),
        Ok(there) if !there.is_file() => {
            wrong("the path names a special file, such as a device: name a regular file")
        }
        _ => Ok(path),
    }
}
