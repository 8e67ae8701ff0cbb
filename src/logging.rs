//! Log lines on standard error, as text or as JSON, and in the manner of the journal where it listens.

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

/// Lines that may wait for standard error to take them; more are dropped, because nobody's ping may
/// wait for a log.
const WAITING_LINES: usize = 4096;

/// How long the end of the process waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// How long it waits where they tell why it came.
const FLUSH_TIMEOUT_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The lines of this process.
static LINES: Lines = Lines::new();

/// Starts logging.
///
/// # Errors
/// If the thread that writes cannot be started.
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

/// Waits for the last lines to be written, unless standard error is stuck. If something failed, it gets more
/// time.
pub fn finish(failed: bool) {
    LINES.wait(if failed { FLUSH_TIMEOUT_AFTER_FAILURE } else { FLUSH_TIMEOUT });
}

/// How many lines were dropped because standard error did not take them in time.
#[must_use]
pub fn dropped_lines() -> u64 {
    LINES.lock().dropped
}

/// Hands log lines to the thread that writes them.
///
/// `tracing-appender` does the same, but panics if it cannot start its thread.
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
                // If standard error is closed, there is no place to report that.
                let _ = write(&line);
                waiting = self.lock();
            } else {
                waiting.is_writing = false;
                self.changed.notify_all();
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Waits until all lines are written, but no longer than `longest`.
    fn wait(&self, longest: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // A line that is still missing then stays missing.
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

/// Whether what goes to `stream` may be coloured: a person sees it, and does not object.
#[must_use]
pub fn may_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Whether a program may move the cursor of what `stream` goes to.
#[must_use]
pub fn has_cursor(stream: &impl IsTerminal) -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stream.is_terminal() && !is_dumb
}

/// Writes `message` to standard error before, or instead of, logging.
pub fn complain(level: Level, message: &str) {
    let mut stderr = io::stderr().lock();
    let prefix = if is_journal(&stderr) { priority(level) } else { "" };
    for line in message.lines() {
        // Where standard error is closed, nobody is left to complain to.
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

/// Whether `stream` goes to the journal, by the rule of systemd.exec(5): `JOURNAL_STREAM` names its
/// device and inode.
fn is_journal(stream: &impl AsFd) -> bool {
    let metadata =
        stream.as_fd().try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    match (std::env::var("JOURNAL_STREAM"), metadata) {
        (Ok(journal), Ok(stream)) => journal == format!("{}:{}", stream.dev(), stream.ino()),
        _ => false,
    }
}

/// A severity as sd-daemon(3) wants it before a line.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Puts the priority before a line; the journal knows the time by itself.
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
