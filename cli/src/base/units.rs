//! Figures as people and programs read them: ages, bytes, dates, milliseconds. Values in, text or
//! numbers out.

use std::time::Duration;

use time::OffsetDateTime;

/// Returns an age in its two largest units, such as `3 h 12 min`.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Returns a number of bytes, such as `1.5 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // A value that would be rounded to 1024.0 is 1.0 of the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// Returns a number of things, such as `1 service` and `2 services`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A part of a whole in per cent, such as `0.5 %`; of nothing there is none.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn percent(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| format!("{:.1} %", part as f64 / whole as f64 * 100.0))
}

/// Returns the time until an instant, both since the Unix epoch: `364 days`, `5 h`, `ended`.
pub(crate) fn until(end: Duration, now: Duration) -> String {
    match end.checked_sub(now) {
        None => "ended".to_owned(),
        Some(left) if left < Duration::from_hours(48) => age(left),
        Some(left) => format!("{} days", left.as_secs() / 86_400),
    }
}

/// Returns an instant since the Unix epoch in UTC, to the second, as in logs.
pub(crate) fn instant(at: Duration) -> String {
    let at = i64::try_from(at.as_secs()).map(OffsetDateTime::from_unix_timestamp);
    let Ok(Ok(at)) = at else { return "an unknown time".to_owned() };
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Returns a time span in the largest unit that is precise enough: `45 s`, `3 min`, `5 h`, `12
/// days`.
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Returns a time since the Unix epoch as a date in UTC.
pub(crate) fn date(unix: u64) -> String {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| format!("{unix} s after 1970"),
        |at| {
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, _) = at.to_hms();
            format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02} UTC", u8::from(month))
        },
    )
}

/// Returns milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Returns whole milliseconds.
pub(crate) fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn ages_have_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (3_600, "1 h 0 min"),
            (DAY - 1, "23 h 59 min"),
            (DAY, "1 d 0 h"),
            (400 * DAY + 7_200, "400 d 2 h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn bytes_change_their_unit_where_the_digits_do() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_525, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn one_thing_is_not_a_plural() {
        assert_eq!([0, 1, 2].map(|n| count(n, "peer")), ["0 peers", "1 peer", "2 peers"]);
    }

    #[test]
    fn there_is_no_share_of_nothing() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(1, 200).as_deref(), Some("0.5 %"));
        assert_eq!(percent(5, 5).as_deref(), Some("100.0 %"));
    }

    #[test]
    fn an_expiry_is_shown_in_days_until_it_is_near() {
        let now = Duration::from_secs(20_000 * DAY);
        let ahead = |seconds| until(now + Duration::from_secs(seconds), now);
        assert_eq!(ahead(365 * DAY - 1), "364 days");
        assert_eq!(ahead(2 * DAY), "2 days");
        assert_eq!(ahead(2 * DAY - 1), "1 d 23 h");
        assert_eq!(ahead(0), "0 s");
        assert_eq!(until(now - Duration::from_secs(1), now), "ended");
    }

    #[test]
    fn instants_are_in_utc_and_absurd_ones_are_no_panic() {
        assert_eq!(instant(Duration::from_secs(1_770_113_472)), "2026-02-03 10:11:12 UTC");
        for absurd in [Duration::MAX, Duration::from_secs(1 << 50)] {
            assert_eq!(instant(absurd), "an unknown time");
        }
    }

    #[test]
    fn spans_use_the_largest_sufficient_unit() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800]
            .map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }

    #[test]
    fn dates_are_in_utc_to_the_minute() {
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00 UTC");
        assert_eq!(date(u64::MAX), format!("{} s after 1970", u64::MAX));
    }

    #[test]
    fn milliseconds_are_shown_to_the_microsecond() {
        assert_eq!(millis(Duration::from_nanos(1_234_567)), 1.235);
        assert_eq!(millis(Duration::from_secs(2)), 2000.0);
    }
}
