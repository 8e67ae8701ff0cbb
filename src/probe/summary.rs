//! The closing lines of a probe.

use std::fmt::{self, Display};

use crate::output::counted;
use crate::ping_stats::PingStats;

/// The pings of one client, and the deviation of each from one second.
pub(super) struct Summary<'a> {
    pub(super) stats: &'a PingStats,
    /// In seconds.
    pub(super) deviations: &'a [f64],
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = counted(self.stats.received(), "ping", "pings");
        let (missed, duplicated) = (self.stats.missed(), self.stats.duplicated());
        write!(f, "{received} received, {missed} missed, {duplicated} duplicated")?;
        let mut sorted = self.deviations.to_vec();
        sorted.sort_by(f64::total_cmp);
        if let (Some(min), Some(max)) = (sorted.first(), sorted.last()) {
            #[expect(clippy::cast_precision_loss, reason = "far fewer pings than 2^52")]
            let average = sorted.iter().sum::<f64>() / sorted.len() as f64;
            let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
            let [min, average, p99, max] = [*min, average, p99, *max].map(|seconds| seconds * 1e3);
            write!(
                f,
                "\ndeviation from 1 s: min/avg/p99/max = {min:.3}/{average:.3}/{p99:.3}/{max:.3} ms"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Time;

    #[test]
    fn the_summary_reports_the_deviations() {
        let mut stats = PingStats::default();
        for ms in [0, 1_000, 2_004, 3_002] {
            stats.ping(Time::default() + Duration::from_millis(ms));
        }
        let deviations = [0.0, 0.004, 0.002];
        let text = Summary { stats: &stats, deviations: &deviations }.to_string();
        assert_eq!(
            text,
            "4 pings received, 0 missed, 0 duplicated\n\
             deviation from 1 s: min/avg/p99/max = 0.000/2.000/4.000/4.000 ms"
        );
        let none = Summary { stats: &PingStats::default(), deviations: &[] }.to_string();
        assert_eq!(none, "0 pings received, 0 missed, 0 duplicated");
    }
}
