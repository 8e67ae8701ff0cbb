//! Histograms of times.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Ten minutes. A longer time is recorded as ten minutes.
const MAX_NANOS: u64 = 600_000_000_000;

/// A histogram of times, in nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NANOS, 3).expect("the bounds are in order")
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
