//! Figures as people read them: ages, bytes, dates. Values in, text out.

use std::time::Duration;

use time::OffsetDateTime;

/// An age in its two largest units, such as `3 h 12 min`.
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

/// A number of bytes, such as `1.5 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would be rounded to 1024.0 is 1.0 of the next.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A part of a whole in per cent, such as `0.5 %`; of nothing there is none.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn percent(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| format!("{:.1} %", part as f64 / whole as f64 * 100.0))
}

/// How long until an instant, both since the Unix epoch: `364 days`, `5 h`, `ended`.
pub(crate) fn until(end: Duration, now: Duration) -> String {
    match end.checked_sub(now) {
        None => "ended".to_owned(),
        Some(left) if left < Duration::from_hours(48) => age(left),
        Some(left) => format!("{} days", left.as_secs() / 86_400),
    }
}

/// An instant since the Unix epoch in UTC, to the second, as logs have it.
pub(crate) fn instant(at: Duration) -> String {
    let at = i64::try_from(at.as_secs()).map(OffsetDateTime::from_unix_timestamp);
    let Ok(Ok(at)) = at else { return "an unknown time".to_owned() };
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
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
    fn there_is_no_share_of_nothing() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(1, 200).as_deref(), Some("0.5 %"));
        assert_eq!(percent(5, 5).as_deref(), Some("100.0 %"));
    }

    #[test]
    fn an_end_is_told_in_days_until_it_is_near() {
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
}
