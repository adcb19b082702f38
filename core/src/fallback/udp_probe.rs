//! Trials: the question to an address whether UDP goes there and back, and its answer.
//!
//! Decides which bytes ask and which answer. It is a QUIC packet of a version that nobody speaks,
//! which every server answers with a Version Negotiation packet and forgets (RFC 9000 §6.1): it
//! touches no connection, so that no path is moved to UDP before both directions of it have been
//! seen to work. Never sends, and never says when to ask.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Bytes of a question: a server answers no shorter one (RFC 9000 §14.1).
pub(crate) const TRIAL_LEN: usize = 1_200;

/// A version reserved to be answered by Version Negotiation (RFC 9000 §15).
const VERSION: [u8; 4] = [0x5a, 0x4a, 0x3a, 0x2a];

/// Bytes of each of the two connection ids.
const ID_LEN: u8 = 8;

/// One question with its two random ids: who cannot see it cannot answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial {
    ours: [u8; 8],
    theirs: [u8; 8],
}

impl Trial {
    /// The question with these random bytes for its ids.
    #[must_use]
    pub(crate) const fn new(ids: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = ids;
        Self { ours: [a, b, c, d, e, f, g, h], theirs: [i, j, k, l, m, n, o, p] }
    }

    /// The datagram to send, of [`TRIAL_LEN`] bytes.
    #[must_use]
    pub(crate) fn question(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRIAL_LEN);
        out.push(0xc0);
        out.extend_from_slice(&VERSION);
        out.push(ID_LEN);
        out.extend_from_slice(&self.theirs);
        out.push(ID_LEN);
        out.extend_from_slice(&self.ours);
        out.resize(TRIAL_LEN, 0);
        out
    }

    /// Whether a datagram is the answer: a Version Negotiation packet with both ids, each where the
    /// other was (RFC 9000 §17.2.1).
    #[must_use]
    pub(crate) fn is_answered_by(&self, datagram: &[u8]) -> bool {
        let [first, 0, 0, 0, 0, ID_LEN, rest @ ..] = datagram else { return false };
        let Some((to, [ID_LEN, rest @ ..])) = rest.split_first_chunk::<8>() else { return false };
        let Some((from, versions)) = rest.split_first_chunk::<8>() else { return false };
        first & 0x80 != 0 && *to == self.ours && *from == self.theirs && versions.len() >= 4
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    const TRIAL: Trial = Trial::new(*b"our ids their id");

    fn answer() -> Vec<u8> {
        [&[0xca, 0, 0, 0, 0, 8][..], b"our ids ", &[8], b"their id", &[0, 0, 0, 1]].concat()
    }

    #[test]
    fn a_question_is_a_long_header_of_a_version_that_does_not_exist() {
        let trial = Trial::new(*b"8 bytes.8 bytes.");
        assert_eq!(trial.question()[..6], [0xc0, 0x5a, 0x4a, 0x3a, 0x2a, 8]);
        assert_eq!(trial.question().len(), TRIAL_LEN);
    }

    #[test]
    fn a_version_negotiation_with_both_ids_is_the_answer() {
        assert!(TRIAL.is_answered_by(&answer()));
    }

    #[test]
    fn nothing_else_is() {
        for at in 0..answer().len() - 4 {
            let mut wrong = answer();
            wrong[at] ^= 0x80;
            assert!(!TRIAL.is_answered_by(&wrong), "byte {at}");
        }
        let whole = answer();
        for end in 0..whole.len() {
            assert!(!TRIAL.is_answered_by(&whole[..end]), "cut at {end}");
        }
        assert!(!TRIAL.is_answered_by(&TRIAL.question()));
    }
}
