//! Serial numbers of certificates, in a canonical form that can be compared.

use crate::message::MAX_SERIAL;

const LEN: usize = MAX_SERIAL / 2;

/// A serial number without leading zeros: DER adds them to keep a number from being negative (RFC
/// 5280 §4.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial([u8; LEN]);

impl Serial {
    /// Parses hexadecimal digits; `None` if they are invalid, or the number has more than 20
    /// octets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches('0').as_bytes();
        let skip = MAX_SERIAL.checked_sub(digits.len())?;
        let mut serial = [0; LEN];
        for (at, digit) in digits.iter().enumerate() {
            let value = u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            let place = skip + at;
            serial[place / 2] |= if place.is_multiple_of(2) { value << 4 } else { value };
        }
        Some(Self(serial))
    }

    /// The value of a client without a serial number. No certificate has it, since serial numbers
    /// are positive.
    pub(super) const NONE: Self = Self([0; LEN]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_do_not_count_and_every_digit_does() {
        let serial = Serial::parse("a1b2c3").expect("digits");
        assert_eq!(Serial::parse("00a1b2c3"), Some(serial));
        assert_eq!(Serial::parse("A1B2C3"), Some(serial));
        for other in ["a1b2c4", "b1b2c3", "a1b2c30", "1b2c3", ""] {
            assert_ne!(Serial::parse(other), Some(serial), "{other}");
        }
        assert_eq!(Serial::parse(""), Some(Serial::NONE));
        assert_eq!(Serial::parse("0"), Some(Serial::NONE));
    }

    #[test]
    fn a_number_of_twenty_octets_is_read_and_none_beyond() {
        let most = "f".repeat(MAX_SERIAL);
        assert_eq!(Serial::parse(&most), Some(Serial([0xff; LEN])));
        assert_eq!(Serial::parse(&format!("00{most}")), Some(Serial([0xff; LEN])));
        assert_eq!(Serial::parse(&format!("1{most}")), None);
        assert_eq!(Serial::parse("12g4"), None);
    }
}
