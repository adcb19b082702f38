//! Records: datagrams in a stream of bytes, one after another.
//!
//! Decides where a datagram starts and ends in a TCP stream. Never inspects one, and refuses none:
//! every length that two bytes can express is within the bound, so that decoding cannot fail.
//!
//! A record is `length: u16` big-endian, then as many bytes (docs/protocol.md, "TCP fallback").
//!
//! ```
//! use adit_core::datagram_framing::{self, DatagramDecoder};
//!
//! let mut wire = Vec::new();
//! datagram_framing::encode(b"first", &mut wire)?;
//! datagram_framing::encode(b"second", &mut wire)?;
//!
//! let (mut decoder, mut chunk) = (DatagramDecoder::new(), &wire[..]);
//! assert_eq!(decoder.poll_record(&mut chunk).as_deref(), Some(&b"first"[..]));
//! assert_eq!(decoder.poll_record(&mut chunk).as_deref(), Some(&b"second"[..]));
//! assert_eq!(decoder.poll_record(&mut chunk), None);
//! # Ok::<(), adit_core::datagram_framing::InvalidLength>(())
//! ```

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::{BufMut, BytesMut};

/// Bytes in front of every datagram: its length.
pub const HEADER_LEN: usize = 2;

/// Most bytes a datagram can have.
pub const MAX_LEN: usize = 65_535;

/// The datagram offered for encoding is empty, or longer than [`MAX_LEN`]; no bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {length} bytes is no record: 1 to {MAX_LEN} are")]
pub struct InvalidLength {
    /// The length of the datagram, in bytes.
    pub length: usize,
}

/// Returns the header of a record for a datagram of `length` bytes, which follows it.
///
/// # Errors
/// [`InvalidLength`] when `length` is zero or over [`MAX_LEN`].
pub const fn header(length: usize) -> Result<[u8; HEADER_LEN], InvalidLength> {
    if length == 0 || length > MAX_LEN {
        return Err(InvalidLength { length });
    }
    Ok((length as u16).to_be_bytes())
}

/// Appends a datagram as a record to `out`.
///
/// # Errors
/// [`InvalidLength`] when it is empty or over [`MAX_LEN`]; `out` is unchanged.
#[cfg(any(test, feature = "testing"))]
pub fn encode(datagram: &[u8], out: &mut impl BufMut) -> Result<(), InvalidLength> {
    out.put_slice(&header(datagram.len())?);
    out.put_slice(datagram);
    Ok(())
}

/// Cuts a stream into datagrams, chunk by chunk. It holds what has arrived of one record, never
/// more than [`HEADER_LEN`] and [`MAX_LEN`] bytes, and never memory for what has yet to arrive.
#[derive(Debug, Default)]
pub struct DatagramDecoder {
    /// The first byte of a header while the second has not arrived.
    first: Option<u8>,
    /// Bytes of the datagram that have not arrived; none between two records.
    missing: usize,
    datagram: BytesMut,
}

impl DatagramDecoder {
    /// Returns a decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off `chunk` until there is a whole datagram; `None` once it has taken all. A
    /// record without bytes is passed over.
    pub fn poll_record(&mut self, chunk: &mut &[u8]) -> Option<BytesMut> {
        loop {
            if self.missing == 0 {
                let (&byte, rest) = chunk.split_first()?;
                *chunk = rest;
                match self.first.take() {
                    None => self.first = Some(byte),
                    Some(high) => self.missing = u16::from_be_bytes([high, byte]).into(),
                }
                continue;
            }
            let (part, rest) = chunk.split_at_checked(self.missing).unwrap_or((chunk, &[]));
            *chunk = rest;
            self.datagram.extend_from_slice(part);
            self.missing = self.missing.saturating_sub(part.len());
            return (self.missing == 0).then(|| std::mem::take(&mut self.datagram));
        }
    }

    /// Returns the bytes of a record that has not arrived as a whole.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn buffered(&self) -> usize {
        let header = match (self.first, self.missing) {
            (Some(_), _) => 1,
            (None, 0) => 0,
            (None, _) => HEADER_LEN,
        };
        self.datagram.len().saturating_add(header)
    }

    /// Returns the bytes of memory held for it, used or not.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.datagram.capacity()
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn record(datagram: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        encode(datagram, &mut wire).unwrap();
        wire
    }

    #[test]
    fn the_first_two_bytes_are_the_length() {
        assert_eq!(record(b"ab"), [0, 2, b'a', b'b']);
        assert_eq!(record(&[7; 0x0201])[..2], [2, 1]);
    }

    #[test]
    fn a_record_has_1_to_65535_bytes() {
        assert_eq!(record(&[1]).len(), HEADER_LEN + 1);
        assert_eq!(record(&[0; MAX_LEN]).len(), HEADER_LEN + MAX_LEN);
        let mut out = vec![9];
        assert_eq!(encode(&[], &mut out), Err(InvalidLength { length: 0 }));
        assert_eq!(encode(&[0; MAX_LEN + 1], &mut out), Err(InvalidLength { length: MAX_LEN + 1 }));
        assert_eq!(out, [9]);
    }

    #[test]
    fn records_are_found_however_the_stream_is_cut() {
        let wire = [record(b"first"), vec![0, 0], record(&[5; MAX_LEN]), record(b"x")].concat();
        for size in [1, 2, 3, 7, 1_000, wire.len()] {
            let (mut decoder, mut lengths) = (DatagramDecoder::new(), Vec::new());
            for mut chunk in wire.chunks(size) {
                while let Some(datagram) = decoder.poll_record(&mut chunk) {
                    lengths.push(datagram.len());
                }
                assert!(chunk.is_empty());
            }
            assert_eq!(lengths, [5, MAX_LEN, 1], "in chunks of {size}");
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let mut decoder = DatagramDecoder::new();
        assert_eq!(decoder.poll_record(&mut &[0xff, 0xff][..]), None);
        assert_eq!((decoder.buffered(), decoder.capacity()), (HEADER_LEN, 0));
        assert_eq!(decoder.poll_record(&mut &[1, 2, 3][..]), None);
        assert_eq!(decoder.buffered(), HEADER_LEN + 3);
        assert!(decoder.capacity() < 128);
    }

    #[test]
    fn half_a_header_waits_for_its_other_half() {
        let mut decoder = DatagramDecoder::new();
        assert_eq!(decoder.poll_record(&mut &[0][..]), None);
        assert_eq!(decoder.buffered(), 1);
        assert_eq!(decoder.poll_record(&mut &[1, 9][..]).as_deref(), Some(&[9][..]));
    }
}
