//! Log lines on standard error, as text or as JSON, and in the manner of the journal where it listens.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogLevel};

/// Lines that may wait for standard error to take them; more are dropped, because nobody's ping may
/// wait for a log.
const WAITING_LINES: usize = 4096;

/// How long the end of the process waits for the last lines to be written.
const LONGEST_FLUSH: Duration = Duration::from_millis(100);

/// How long it waits where they tell why it came.
const LONGEST_EXPLANATION: Duration = Duration::from_secs(1);

/// Counts the lines that were dropped.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Logging that goes on.
#[derive(Debug)]
#[must_use = "the last lines are written only when it is finished"]
pub struct Logging {
    worker: WorkerGuard,
}

impl Logging {
    /// Writes the lines that are still waiting, unless standard error is stuck. If something failed, it is
    /// given more time.
    pub fn finish(self, failed: bool) {
        let longest = if failed { LONGEST_EXPLANATION } else { LONGEST_FLUSH };
        let (done, finished) = mpsc::channel();
        thread::spawn(move || {
            drop(self.worker);
            let _ = done.send(());
        });
        let _ = finished.recv_timeout(longest);
    }
}

/// Starts logging.
pub fn start(level: LogLevel, format: LogFormat) -> Logging {
    let (writer, worker) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).finish(io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let builder = SubscriberBuilder::default()
        .with_max_level(filter(level))
        .with_ansi(may_colour(&io::stderr()))
        .with_writer(writer);
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
    Logging { worker }
}

/// How many lines were dropped because standard error did not take them in time.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
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
