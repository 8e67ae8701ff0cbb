//! Values on the command line that `wakeupd` and `wakeupd-bench` share.

mod target;

use std::time::Duration;

pub use target::{Family, Resolved, Target};
use wakeupd_protocol::PERIOD;

/// The longest time that an argument accepts.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parses a time from one second to a year, such as `20s` or `2m`.
///
/// # Errors
/// If the text is not a time, or the time is out of range.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (PERIOD..=YEAR).contains(&duration) => Ok(duration),
        Ok(_) => Err("the time must be from 1s to 365days".to_owned()),
        Err(error) => Err(format!("{error}; write a time such as 20s or 2m")),
    }
}
