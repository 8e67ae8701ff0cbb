//! The arguments that more than one subcommand takes.

mod target;

use std::time::Duration;

pub use target::{Family, Resolved, Target};
use wakeupd_protocol::PERIOD;

/// The longest time that can be asked for.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a time such as `20s` or `2m`.
///
/// # Errors
/// With what is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (PERIOD..=YEAR).contains(&duration) => Ok(duration),
        Ok(_) => Err("it must be from 1s to 365days".to_owned()),
        Err(error) => Err(format!("{error}; write it like 20s or 2m")),
    }
}
