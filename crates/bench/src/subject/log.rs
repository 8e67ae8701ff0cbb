//! The daemon's log.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The maximum number of warnings kept, because `--program` can name any program, with any number of
/// warnings.
const MOST_WARNINGS: usize = 10;

/// A line of the log, with the time at which the bench read it.
pub(crate) type Line = (Instant, String);

/// The figures in the daemon's log, summed over its summary lines.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Warnings and errors, without repetitions.
    pub(crate) warnings: Vec<String>,
    /// The number of clients in the last summary line.
    pub(crate) clients: u64,
    pub(crate) heartbeats: u64,
    pub(crate) pings: u64,
    pub(crate) failed_pings: u64,
    pub(crate) skipped_slots: u64,
    pub(crate) worst_lateness_ms: f64,
    /// Responses of the HTTP endpoint. They are not in the log: the bench counts them itself.
    pub(crate) http_answers: u64,
    pub(crate) restored: Option<Restored>,
}

/// The daemon's `restored` line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    /// When the line was read.
    pub(crate) at: Instant,
    pub(crate) clients: u64,
    pub(crate) expired: u64,
    pub(crate) refused: u64,
    pub(crate) age: Duration,
    pub(crate) took: Duration,
}

impl Log {
    /// Reads the log to its end and forwards each line while the receiver is alive.
    pub(crate) fn read(stderr: ChildStderr, says: &Sender<Line>) -> Self {
        let mut log = Self::default();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let at = Instant::now();
            log.add(&line, at);
            let _ = says.send((at, line));
        }
        log
    }

    /// Combines this log with that of the daemon's next process.
    pub(crate) fn and(mut self, next: Self) -> Self {
        for warning in next.warnings {
            self.warn(warning);
        }
        Self {
            warnings: self.warnings,
            clients: next.clients,
            heartbeats: self.heartbeats + next.heartbeats,
            pings: self.pings + next.pings,
            failed_pings: self.failed_pings + next.failed_pings,
            skipped_slots: self.skipped_slots + next.skipped_slots,
            worst_lateness_ms: self.worst_lateness_ms.max(next.worst_lateness_ms),
            http_answers: self.http_answers + next.http_answers,
            restored: next.restored,
        }
    }

    fn add(&mut self, text: &str, at: Instant) {
        let line: Value = serde_json::from_str(text).unwrap_or_default();
        let count = |name: &str| line[name].as_u64().unwrap_or_default();
        let number = |name: &str| line[name].as_f64().unwrap_or_default();
        if line["message"] == "summary" {
            self.clients = count("clients");
            self.heartbeats += count("heartbeats");
            self.pings += count("pings");
            self.failed_pings += count("failed_pings");
            self.skipped_slots += count("skipped_slots");
            self.worst_lateness_ms = self.worst_lateness_ms.max(number("worst_lateness_ms"));
        } else if line["message"] == "restored" {
            let seconds = |name| Duration::try_from_secs_f64(number(name)).unwrap_or_default();
            self.restored = Some(Restored {
                at,
                clients: count("clients"),
                expired: count("expired"),
                refused: count("refused"),
                age: seconds("age_seconds"),
                took: seconds("took_ms") / 1_000,
            });
        } else if line["level"] != "INFO" {
            let message = line["message"].as_str().unwrap_or(text);
            let warning = match line["reason"].as_str() {
                Some(reason) => format!("{message}: {reason}"),
                None => message.to_owned(),
            };
            self.warn(warning);
        }
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) && self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str], at: Instant) -> Log {
        let mut log = Log::default();
        for line in lines {
            log.add(line, at);
        }
        log
    }

    #[test]
    fn logs_of_two_runs_are_merged() {
        let at = Instant::now();
        let first = log(
            &[
                r#"{"level":"INFO","message":"summary","clients":7,"heartbeats":8,"pings":9,"worst_lateness_ms":2.5}"#,
                r#"{"level":"WARN","message":"hot"}"#,
            ],
            at,
        );
        let second = log(
            &[
                r#"{"level":"INFO","message":"restored","clients":7,"expired":1,"refused":2,"age_seconds":0.25,"took_ms":1.5}"#,
                r#"{"level":"WARN","message":"hot"}"#,
                r#"{"level":"INFO","message":"summary","clients":6,"heartbeats":1,"pings":2,"worst_lateness_ms":0.5}"#,
            ],
            at,
        );
        let both = first.and(second);
        assert_eq!((both.clients, both.heartbeats, both.pings), (6, 9, 11));
        assert_eq!(both.warnings, ["hot"]);
        assert!((both.worst_lateness_ms - 2.5).abs() < 1e-9);
        let restored = both.restored.unwrap();
        assert_eq!((restored.clients, restored.expired, restored.refused), (7, 1, 2));
        assert_eq!(restored.age, Duration::from_millis(250));
        assert_eq!(restored.took, Duration::from_micros(1_500));
    }
}
