//! Redraws the status in place on a terminal.

use std::fmt::{self, Display};
use std::io;

use terminal_size::{Height, Width, terminal_size_of};

use crate::logging;

/// Columns and rows of a terminal that does not report its size.
const USUAL: (usize, usize) = (80, 24);

/// The size of a terminal on which a text is redrawn in place: each [`Self::frame`] starts in the upper left corner
/// and replaces the previous text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    columns: usize,
    rows: usize,
}

impl Screen {
    /// The terminal on standard output, with its current size. `None` if standard output is not a terminal,
    /// or a dumb terminal that can only scroll.
    pub(super) fn of_stdout() -> Option<Self> {
        let stdout = io::stdout();
        if !logging::has_cursor(&stdout) {
            return None;
        }
        let size = terminal_size_of(&stdout);
        let size = size.map(|(Width(columns), Height(rows))| (columns.into(), rows.into()));
        let (columns, rows) =
            size.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL);
        Some(Self { columns, rows })
    }

    /// Formats `text` to replace the previous contents of the screen.
    pub(super) fn frame<'a>(&self, text: &'a str) -> Frame<'a> {
        Frame { screen: *self, text }
    }
}

/// The escape sequences and lines that draw a text.
pub(super) struct Frame<'a> {
    screen: Screen,
    text: &'a str,
}

impl Display for Frame<'_> {
    /// Each line overwrites the old one and clears the rest of its row, which avoids flicker. The last row
    /// stays free for the cursor, because the screen would scroll otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Screen { columns, rows } = self.screen;
        let lines: Vec<_> = self.text.lines().flat_map(|line| wrapped(line, columns)).collect();
        let room = rows.saturating_sub(1);
        write!(f, "\x1b[H")?;
        let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
        for line in &lines[..shown] {
            writeln!(f, "{line}\x1b[K")?;
        }
        if shown < lines.len() {
            let note = format!("({} more lines: enlarge the terminal)", lines.len() - shown);
            let note = wrapped(&note, columns).into_iter().next().unwrap_or_default();
            writeln!(f, "{note}\x1b[K")?;
        }
        write!(f, "\x1b[J")
    }
}

/// Splits a line into the rows that it fills.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let characters: Vec<_> = line.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(columns).map(|row| row.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(columns: usize, rows: usize, text: &str) -> String {
        Screen { columns, rows }.frame(text).to_string()
    }

    #[test]
    fn a_frame_clears_the_rest_of_the_screen() {
        assert_eq!(drawn(9, 9, "one\n\ntwo\n"), "\x1b[Hone\x1b[K\n\x1b[K\ntwo\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_frame_never_scrolls() {
        let lines: Vec<_> = (0..30).map(|n| format!("{n} {}", "x".repeat(n * 5))).collect();
        let text = lines.join("\n");
        for rows in 1..40 {
            for columns in [1, 7, 80] {
                let drawn = drawn(columns, rows, &text);
                assert!(drawn.matches('\n').count() < rows.max(2), "{rows} {drawn:?}");
                let lines = drawn.trim_start_matches("\x1b[H").lines();
                let longest =
                    lines.map(|line| line.trim_end_matches("\x1b[K").chars().count()).max();
                assert!(longest.unwrap() <= columns.max("\x1b[J".len()), "{columns} {drawn:?}");
            }
        }
        assert!(drawn(80, 24, &text).contains("more lines: enlarge the terminal)\x1b[K\n\x1b[J"));
    }
}
