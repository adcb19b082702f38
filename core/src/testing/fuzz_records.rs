//! The invariants of the TCP fallback for any input: the bodies of the fuzz targets `records` and
//! `trials`.
//!
//! Decides what counts as a failure, and fails by panicking. Never makes up input: that comes from
//! the fuzzer, or from the corpus that the tests replay.

use crate::datagram_framing::{self, DatagramDecoder, HEADER_LEN, MAX_LEN};
use crate::fallback::{TRIAL_LEN, Trial};

/// Records: any split of the bytes gives the same result as a simple parser of the whole, within
/// the memory limit; and decoded records encode to the same bytes.
///
/// The first byte of `data` sets how the rest is split.
pub fn records(data: &[u8]) {
    let Some((split, stream)) = data.split_first() else { return };
    let (expected, rest) = naive(stream);
    let sizes = [1 + usize::from(*split), 1 + usize::from(*split >> 4), 1];
    for sizes in [&[usize::MAX][..], &sizes, &[1]] {
        let (mut decoder, mut found) = (DatagramDecoder::new(), Vec::new());
        let mut left = stream;
        for &size in sizes.iter().cycle() {
            let (mut chunk, after) = left.split_at(size.min(left.len()));
            while let Some(datagram) = decoder.poll_record(&mut chunk) {
                found.push(datagram.to_vec());
            }
            assert!(chunk.is_empty(), "bytes were not taken");
            assert!(decoder.buffered() <= HEADER_LEN + MAX_LEN);
            assert!(decoder.capacity() <= (2 * decoder.buffered()).max(64));
            left = after;
            if left.is_empty() {
                break;
            }
        }
        assert_eq!(found, expected);
        assert_eq!(decoder.buffered(), rest, "bytes were lost");
    }
    let mut wire = Vec::new();
    for datagram in &expected {
        datagram_framing::encode(datagram, &mut wire).expect("it was one");
    }
    assert_eq!(naive(&wire), (expected, 0), "encoding is not what was read");
}

/// Returns the datagrams of a whole stream, and how many bytes of a last one are left.
fn naive(mut stream: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut found = Vec::new();
    while let [a, b, rest @ ..] = stream {
        let Some((datagram, rest)) = rest.split_at_checked(u16::from_be_bytes([*a, *b]).into())
        else {
            break;
        };
        if !datagram.is_empty() {
            found.push(datagram.to_vec());
        }
        stream = rest;
    }
    (found, stream.len())
}

/// Trials: no bytes are taken for an answer that do not carry both ids of the question.
///
/// The first 16 bytes of `data` are the ids, the rest is a datagram.
pub fn trials(data: &[u8]) {
    let Some((ids, datagram)) = data.split_first_chunk::<16>() else { return };
    let trial = Trial::new(*ids);
    let question = trial.question();
    assert_eq!(question.len(), TRIAL_LEN);
    assert!(!trial.is_answered_by(&question), "a question answers itself");
    if trial.is_answered_by(datagram) {
        for id in ids.chunks(8) {
            assert!(datagram.windows(8).any(|window| window == id));
        }
    }
}
