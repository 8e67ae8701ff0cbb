//! The path of the snapshot, which keeps the clients across a restart.

use std::fs;
use std::path::PathBuf;

use super::unquoted;
use crate::disk;

pub(super) fn path(text: &str) -> Result<PathBuf, Option<String>> {
    let wrong = |detail: &str| Err(Some(detail.to_owned()));
    if text.chars().any(char::is_control) || unquoted(text) != text {
        return wrong("quotation marks and control characters make no good name");
    }
    let path = PathBuf::from(text);
    let place = path.clone();
    // The daemon starts even if the disk does not answer.
    match disk::within_patience(move || fs::metadata(place)) {
        Ok(there) if there.is_dir() => wrong("it is a folder, so add a name for the file"),
        Ok(there) if !there.is_file() => wrong("it is a device or the like, and would be replaced"),
        _ => Ok(path),
    }
}
