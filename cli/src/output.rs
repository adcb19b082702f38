//! What commands give on stdout: text for people, or one JSON object a line for programs; and what
//! they say beside it on stderr.

use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::stop::{Exit, Stop};

/// A shape of JSON with its name and version, such as `adit.invite/1`. Keys may be added to a shape;
/// the meaning of one changes only with the number.
#[derive(Serialize)]
struct Shaped<'a, T> {
    schema: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// When stdout takes no more.
pub(crate) fn json<T: Serialize>(schema: &str, value: &T) -> Result<(), Stop> {
    let text = serde_json::to_string(&Shaped { schema, value })
        .map_err(|error| Stop::new(Exit::Degraded, format!("the answer is no JSON: {error}")))?;
    text_line(&text)
}

/// Prints a line of text.
///
/// # Errors
/// When stdout takes no more.
pub(crate) fn text_line(text: &str) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| {
        Stop::new(Exit::Degraded, format!("stdout cannot be written: {error}; check where it goes"))
    })
}

/// Says something on stderr. Nothing ends because it cannot be heard: the log may be on a disk that is
/// full.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A time span in the largest unit that says enough: `45 s`, `3 min`, `5 h`, `12 days`.
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A time since the Unix epoch as a date in UTC.
pub(crate) fn date(unix: u64) -> String {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| format!("{unix} s after 1970"),
        |at| {
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, _) = at.to_hms();
            format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02} UTC", u8::from(month))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_largest_unit_that_says_enough() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800]
            .map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }

    #[test]
    fn dates_are_in_utc_to_the_minute() {
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00 UTC");
        assert_eq!(date(u64::MAX), format!("{} s after 1970", u64::MAX));
    }
}
