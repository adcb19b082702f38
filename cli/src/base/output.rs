//! Output of commands on stdout: text for people, or one JSON object a line for programs; and
//! messages on stderr.

use std::io::{self, Write as _};

use serde::Serialize;

use super::exit::{Exit, ExitError};
use super::layout;

/// JSON with the name and version of its schema, such as `adit.invite/1`. Keys may be added to a
/// schema; the meaning of one changes only with the number.
#[derive(Serialize)]
struct Shaped<'a, T> {
    schema: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// If stdout cannot be written.
pub(crate) fn json<T: Serialize>(schema: &str, value: &T) -> Result<(), ExitError> {
    let text = serde_json::to_string(&Shaped { schema, value }).map_err(|error| {
        ExitError::new(Exit::Degraded, format!("the result cannot be written as JSON: {error}"))
    })?;
    text_line(&text)
}

/// Prints a line of text.
///
/// # Errors
/// If stdout cannot be written.
pub(crate) fn text_line(text: &str) -> Result<(), ExitError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| {
        ExitError::new(
            Exit::Degraded,
            format!("stdout cannot be written: {error}; check where it goes"),
        )
    })
}

/// Prints text for people, wrapped to the width of the terminal.
///
/// # Errors
/// When stdout takes no more.
pub(crate) fn text(text: &str) -> Result<(), ExitError> {
    text_line(&layout::wrap(text, layout::width()))
}

/// Prints a message on stderr. A failure is ignored: the log may be on a disk that is full.
pub(crate) fn message(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
