//! The flags of a probe: what each end advertises on every path.
//!
//! It decides what the bits mean. It never decides what follows from them.
//!
//! | bits | meaning |
//! |---|---|
//! | 0x01 | this probe was sent directly; one that arrives otherwise than it was sent is refused, so that no relay can pass one kind off as the other |
//! | 0x02 | I send my packets directly |
//! | 0x04 | I send my packets on the path of this probe |
//! | 0x08 | one-way loss: I send directly and receive nothing from you there; what you receive from me does not show that I receive from you, and you send copies through a relay |
//! | 0xf0 | how often I have left a direct path because you fell silent on it, modulo 16: when it has changed, I receive nothing from you there, and you leave it too |
//!
//! A counter and not a flag reports the failure: it survives the loss of the probe that carried it
//! first, and reports one event once. The bits of the ping with the highest transaction apply, and
//! those of pongs do not: they are in no order.

const IS_DIRECT: u8 = 0x01;
const SENDS_DIRECT: u8 = 0x02;
const SENDS_HERE: u8 = 0x04;
const ONE_WAY_LOSS: u8 = 0x08;

const fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}

/// The bits, apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ProbeFlags {
    pub(super) is_direct: bool,
    pub(super) sends_direct: bool,
    pub(super) sends_here: bool,
    pub(super) has_one_way_loss: bool,
    /// 0 to 15.
    pub(super) left: u8,
}

impl ProbeFlags {
    pub(super) const fn to_byte(self) -> u8 {
        flag(self.is_direct, IS_DIRECT)
            | flag(self.sends_direct, SENDS_DIRECT)
            | flag(self.sends_here, SENDS_HERE)
            | flag(self.has_one_way_loss, ONE_WAY_LOSS)
            | (self.left << 4)
    }

    pub(super) const fn from_byte(byte: u8) -> Self {
        Self {
            is_direct: byte & IS_DIRECT != 0,
            sends_direct: byte & SENDS_DIRECT != 0,
            sends_here: byte & SENDS_HERE != 0,
            has_one_way_loss: byte & ONE_WAY_LOSS != 0,
            left: byte >> 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProbeFlags;

    #[test]
    fn every_byte_is_a_set_of_flags_and_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(ProbeFlags::from_byte(byte).to_byte(), byte);
        }
        let left = ProbeFlags { left: 15, is_direct: true, ..ProbeFlags::default() };
        assert_eq!(left.to_byte(), 0xf1);
    }
}
