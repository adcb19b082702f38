//! The terminal as something that is drawn on: its alternate screen, and whether colours are
//! wanted. It decides nothing about what is shown.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};

use console::Term;

/// The alternate screen of a terminal. Dropping it brings back what the terminal showed before.
#[derive(Debug)]
pub(crate) struct AlternateScreen<W: Write = Term> {
    out: W,
    rows: Option<usize>,
}

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

impl AlternateScreen {
    /// Returns the screen of stdout, if that is a terminal.
    ///
    /// # Errors
    /// When the terminal takes no output.
    pub(crate) fn of_stdout() -> io::Result<Option<Self>> {
        let term = Term::stdout();
        term.is_term().then(|| Self::enter(term)).transpose()
    }

    /// Replaces what is shown. Lines below the last row are left out.
    ///
    /// # Errors
    /// When the terminal takes no output.
    pub(crate) fn draw(&mut self, text: &str) -> io::Result<()> {
        self.rows = self.out.size_checked().map(|(rows, _)| usize::from(rows));
        self.draw_rows(text)
    }
}

impl<W: Write> AlternateScreen<W> {
    fn enter(mut out: W) -> io::Result<Self> {
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(Self { out, rows: None })
    }

    fn draw_rows(&mut self, text: &str) -> io::Result<()> {
        let lines: Vec<_> = text.lines().take(self.rows.unwrap_or(usize::MAX)).collect();
        let frame = lines.join(&format!("{CLEAR_LINE}\r\n"));
        write!(self.out, "{HOME}{frame}{CLEAR_LINE}{CLEAR_BELOW}")?;
        self.out.flush()
    }
}

impl<W: Write> Drop for AlternateScreen<W> {
    fn drop(&mut self) {
        // A terminal that takes no output has nothing to restore.
        let _ = self.out.write_all(LEAVE.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// Returns true if an output is to be coloured: a terminal, unless `NO_COLOR` asks for none.
pub(crate) fn is_coloured(output: &impl IsTerminal) -> bool {
    wants_colour(output.is_terminal(), std::env::var_os("NO_COLOR").as_deref())
}

/// An empty variable asks for nothing (no-color.org).
fn wants_colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before_and_dropping_restores_the_terminal() {
        let mut bytes = Vec::new();
        {
            let mut screen = AlternateScreen::enter(&mut bytes).unwrap();
            screen.draw_rows("one\ntwo").unwrap();
        }
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "\x1b[?1049h\x1b[?25l\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J\x1b[?25h\x1b[?1049l"
        );
    }

    #[test]
    fn lines_below_the_last_row_are_left_out() {
        let mut bytes = Vec::new();
        let mut screen = AlternateScreen { out: &mut bytes, rows: Some(2) };
        screen.draw_rows("one\ntwo\nthree").unwrap();
        drop(screen);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("two") && !text.contains("three"), "{text:?}");
    }

    #[test]
    fn colours_are_for_terminals_that_do_not_refuse_them() {
        assert!(wants_colour(true, None) && wants_colour(true, Some("".as_ref())));
        assert!(!wants_colour(true, Some("1".as_ref())));
        assert!(!wants_colour(false, None));
    }
}
