//! Wall-clock times as text (RFC 3339, in UTC).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Time;

/// Formats a time with second precision.
#[must_use]
pub fn seconds(wall: Time) -> String {
    humantime::format_rfc3339_seconds(system(wall)).to_string()
}

/// Formats a time with millisecond precision.
#[must_use]
pub fn millis(wall: Time) -> String {
    humantime::format_rfc3339_millis(system(wall)).to_string()
}

fn system(wall: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(wall.as_nanos())
}
