//! The state byte of a probe: what each end tells the other by every way.
//!
//! It decides what the bits mean. It never decides what follows from them.
//!
//! | bits | meaning |
//! |---|---|
//! | 0x01 | this probe was sent bare; one that arrives otherwise than it was sent is refused, so that no relay can pass one kind off as the other |
//! | 0x02 | I send my packets directly |
//! | 0x04 | I send my packets by the very way of this probe |
//! | 0x08 | I send directly and hear nothing of you there: what you hear of me does not show that I hear you, and you send copies by a relay |
//! | 0xf0 | how often I have left a direct way because you fell silent on it, modulo 16: when it has changed, I do not hear you there, and you leave it too |
//!
//! A count and not a flag says the failure: it survives the loss of the probe that said it first, and says one
//! event once. The bits of the ping with the highest transaction count, and those of pongs do not:
//! they are in no order.

const BARE: u8 = 0x01;
const SENDS_DIRECT: u8 = 0x02;
const SENDS_HERE: u8 = 0x04;
const IS_DEAF: u8 = 0x08;

const fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}

/// The bits, apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ProbeFlags {
    pub(super) is_bare: bool,
    pub(super) sends_direct: bool,
    pub(super) sends_here: bool,
    pub(super) is_deaf: bool,
    /// 0 to 15.
    pub(super) left: u8,
}

impl ProbeFlags {
    pub(super) const fn to_byte(self) -> u8 {
        flag(self.is_bare, BARE)
            | flag(self.sends_direct, SENDS_DIRECT)
            | flag(self.sends_here, SENDS_HERE)
            | flag(self.is_deaf, IS_DEAF)
            | (self.left << 4)
    }

    pub(super) const fn from_byte(byte: u8) -> Self {
        Self {
            is_bare: byte & BARE != 0,
            sends_direct: byte & SENDS_DIRECT != 0,
            sends_here: byte & SENDS_HERE != 0,
            is_deaf: byte & IS_DEAF != 0,
            left: byte >> 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProbeFlags;

    #[test]
    fn every_byte_is_a_state_and_comes_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(ProbeFlags::from_byte(byte).to_byte(), byte);
        }
        let left = ProbeFlags { left: 15, is_bare: true, ..ProbeFlags::default() };
        assert_eq!(left.to_byte(), 0xf1);
    }
}
