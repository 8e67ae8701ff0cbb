//! Standard output: all writes to it, and the escaping of untrusted text.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;
use tracing::Level;

use crate::logging::complain;

/// Writes and flushes `text`, so that a failed write is reported here and not lost when the process exits.
///
/// # Errors
/// If standard output cannot be written.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| unwritten(&error))
}

/// Adds to the text of an error that the write to standard output failed.
#[must_use]
pub fn unwritten(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}

/// The exit code of a subcommand: `code`, unless printing failed. If the reader has closed the pipe, as in
/// `wakeupd status | head -n 1`, that is not a failure.
#[must_use]
pub fn end(command: &str, code: ExitCode, printed: io::Result<()>) -> ExitCode {
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(command, error),
        _ => code,
    }
}

/// Reports on standard error why a subcommand failed, and returns its exit code.
#[must_use]
pub fn fail(command: &str, error: impl Display) -> ExitCode {
    complain(Level::ERROR, &format!("{command}: {error}"));
    ExitCode::FAILURE
}

/// Formats untrusted text as one line, with escapes for all characters that move a terminal's cursor or reorder
/// its text. All text from the network, a file or another process must pass through here.
#[must_use]
pub fn printable(text: &str) -> String {
    let escape =
        |c: char| if is_active(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => c.escape_default().to_string(),
            _ => escape(c),
        })
        .collect()
}

/// Formats a number with its noun: `1 client`, `1,000 clients`.
#[must_use]
pub fn counted(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { more })
}

/// Formats a number with commas between groups of three digits: `1,000`.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Formats a size in bytes: `7.5 KiB`, `8.0 MiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    let (divisor, unit) = if bytes < MIB { (1 << 10, "KiB") } else { (MIB, "MiB") };
    format!("{:.1} {unit}", bytes as f64 / divisor as f64)
}

/// Quotes `text` as a single shell word.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Formats `value` as JSON, on a single line or indented, with JSON escapes for the characters that
/// [`printable`] escapes.
///
/// # Errors
/// If `value` cannot be represented in JSON.
pub fn json(value: &impl Serialize, is_indented: bool) -> serde_json::Result<String> {
    let to_string = if is_indented { serde_json::to_string_pretty } else { serde_json::to_string };
    // `serde_json` escapes characters below U+0020 in strings, and the only one between strings is the newline.
    let escape = |c: char| match c {
        _ if is_active(c) && c != '\n' => format!("\\u{:04x}", c as u32),
        _ => c.to_string(),
    };
    Ok(to_string(value)?.chars().map(escape).collect())
}

/// Whether a terminal interprets a character instead of displaying it: control characters (C0, DEL, C1), line
/// separators and bidirectional formatting characters.
fn is_active(c: char) -> bool {
    let is_mark = matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_mark
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: &str = "\u{1b}[2J\r\n\u{7}\u{7f}\u{9b}31m\u{202e}";

    #[test]
    fn terminal_control_characters_are_escaped() {
        let expected = r"\u{1b}[2J\r\n\u{7}\u{7f}\u{9b}31m\u{202e}";
        assert_eq!(printable(ACTIVE), expected);
        assert_eq!(printable("grün, 5 µs: it's"), "grün, 5 µs: it's");
    }

    #[test]
    fn escaped_json_parses_to_the_original_value() {
        for is_indented in [false, true] {
            let text = json(&[ACTIVE, "grün"], is_indented).unwrap();
            assert!(!text.chars().any(|c| is_active(c) && c != '\n'), "{text:?}");
            let back: [String; 2] = serde_json::from_str(&text).unwrap();
            assert_eq!(back, [ACTIVE, "grün"]);
        }
    }

    #[test]
    fn digits_are_grouped_in_threes() {
        for (n, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), expected);
        }
        assert_eq!(counted(1, "client", "clients"), "1 client");
        assert_eq!(counted(1_000, "client", "clients"), "1,000 clients");
    }

    #[test]
    fn sizes_are_in_kib_or_mib() {
        for (bytes, expected) in [(0, "0.0 KiB"), (7_680, "7.5 KiB"), (8 << 20, "8.0 MiB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn quoted_words_round_trip_through_the_shell() {
        for text in ["/var/lib/wakeupd", "", "a b", "it's", "$(id)`id`;\"\\\\", "ü*"] {
            let script = format!("printf %s {}", shell_word(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{script}");
        }
    }
}
