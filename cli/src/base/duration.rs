//! Durations as people write them: a whole number and `ms`, `s`, `m` or `h`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer};

/// Reads `500ms`, `30s`, `5m` or `1h`; the minimum is a millisecond.
///
/// # Errors
/// A sentence about the expected form.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let expected = || {
        format!(
            "\"{text}\" is not a time; write it like \"500ms\", \"30s\", \"5m\", \"1h\" or \"365d\""
        )
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let number: u32 = number.parse().map_err(|_| expected())?;
    let millis = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    match u64::from(number) * millis {
        0 => Err(format!("\"{text}\" is no time at all; write at least \"1ms\"")),
        millis => Ok(Duration::from_millis(millis)),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5 m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse("365d"), Ok(Duration::from_secs(365 * 86_400)));
    }

    #[test]
    fn what_is_not_a_time_is_answered_with_an_example() {
        for text in ["", "s", "30", "1.5s", "-1s", "3 days", "4294967296s"] {
            assert!(parse(text).unwrap_err().contains("\"30s\""), "{text}");
        }
        assert!(parse("0s").unwrap_err().contains("no time at all"));
    }
}
