//! Writes log lines to standard error as text or JSON, with priorities if the journal reads them.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogLevel};
use crate::threads;

/// The capacity of the queue of log lines. Further lines are dropped, because logging must never delay pings.
const WAITING_LINES: usize = 4096;

/// How long the exiting process waits for the last lines to be written: long enough for a busy machine to schedule
/// the log thread, and short enough for a restart to catch up on its pings if standard error is stuck.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(400);

/// How long the exiting process waits after a failure, when the last lines contain the cause.
const FLUSH_TIMEOUT_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The log queue of this process.
static LINES: Lines = Lines::new();

/// Starts logging.
///
/// # Errors
/// If the writer thread cannot be started.
pub fn start(level: LogLevel, format: LogFormat) -> io::Result<()> {
    threads::start("log", || LINES.write_all(|line| io::stderr().write_all(line)))?;
    let builder = SubscriberBuilder::default()
        .with_max_level(filter(level))
        .with_ansi(may_colour(&io::stderr()))
        .with_writer(|| &LINES);
    let line = Format::default().with_target(false);
    match (format, is_journal(&io::stderr())) {
        (LogFormat::Text, false) => builder.event_format(line).init(),
        (LogFormat::Text, true) => {
            builder.event_format(Journal(line.without_time().with_level(false))).init();
        }
        (LogFormat::Json, journal) => {
            let builder = builder.json();
            let line = line.json().flatten_event(true);
            if journal {
                builder.event_format(Journal(line.without_time())).init();
            } else {
                builder.event_format(line).init();
            }
        }
    }
    Ok(())
}

/// Waits until the last lines are written, unless standard error is stuck. After a failure it waits longer.
pub fn finish(failed: bool) {
    LINES.wait(if failed { FLUSH_TIMEOUT_AFTER_FAILURE } else { FLUSH_TIMEOUT });
}

/// Returns the number of lines dropped because standard error was too slow.
#[must_use]
pub fn dropped_lines() -> u64 {
    LINES.lock().dropped
}

/// A queue of log lines for the writer thread.
///
/// `tracing-appender` offers the same, but panics if it cannot start its thread.
#[derive(Debug)]
struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    is_writing: bool,
    dropped: u64,
}

impl Lines {
    const fn new() -> Self {
        let waiting = Waiting { lines: VecDeque::new(), is_writing: false, dropped: 0 };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() < WAITING_LINES {
            waiting.lines.push_back(line.to_owned());
            self.changed.notify_all();
        } else {
            waiting.dropped += 1;
        }
    }

    fn write_all(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut waiting = self.lock();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.is_writing = true;
                drop(waiting);
                // If standard error is closed, there is no place to report the error.
                let _ = write(&line);
                waiting = self.lock();
            } else {
                waiting.is_writing = false;
                self.changed.notify_all();
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Waits until all lines are written, up to `longest`.
    fn wait(&self, longest: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // Lines that are still queued after the timeout are lost.
        drop(self.changed.wait_timeout_while(self.lock(), longest, is_busy));
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether to colour output to `stream`: it is a terminal, and `NO_COLOR` is unset.
#[must_use]
pub fn may_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Whether `stream` is a terminal with a movable cursor.
#[must_use]
pub fn has_cursor(stream: &impl IsTerminal) -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stream.is_terminal() && !is_dumb
}

/// Writes `message` directly to standard error, for use before logging starts or without it.
pub fn complain(level: Level, message: &str) {
    let mut stderr = io::stderr().lock();
    let prefix = if is_journal(&stderr) { priority(level) } else { "" };
    for line in message.lines() {
        // If standard error is closed, there is no place to report the error.
        let _ = writeln!(stderr, "{prefix}{line}");
    }
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::NotSet => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Critical => LevelFilter::ERROR,
    }
}

/// Whether `stream` is connected to the journal. Per systemd.exec(5), `JOURNAL_STREAM` holds its device and
/// inode.
fn is_journal(stream: &impl AsFd) -> bool {
    let metadata =
        stream.as_fd().try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    match (std::env::var("JOURNAL_STREAM"), metadata) {
        (Ok(journal), Ok(stream)) => journal == format!("{}:{}", stream.dev(), stream.ino()),
        _ => false,
    }
}

/// The severity prefix of a line, as in sd-daemon(3).
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Prefixes each line with its priority. The inner format omits the time, which the journal records itself.
struct Journal<F>(F);

impl<S, N, F> FormatEvent<S, N> for Journal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}
