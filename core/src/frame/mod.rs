//! Frames: a stream of bytes is divided into typed, bounded messages.
//!
//! Decides where a frame starts and ends, and that none exceeds its limit. Never inspects a
//! payload, and does not know which kinds exist: [`message`](crate::message) does.
//!
//! A frame is `kind: u8`, `length: u32` big-endian, then `length` bytes of payload
//! (docs/protocol.md, "Frames").
//!
//! ```
//! use adit_core::frame::{self, FrameDecoder};
//! use bytes::BytesMut;
//!
//! let mut wire = BytesMut::new();
//! frame::encode(0x01, b"first", &mut wire)?;
//! frame::encode(0x02, b"second", &mut wire)?;
//!
//! let mut chunk = wire.freeze();
//! let mut decoder = FrameDecoder::new();
//! while let Some(frame) = decoder.poll_frame(&mut chunk)? {
//!     println!("{:#04x}: {} bytes", frame.kind, frame.payload.len());
//! }
//! assert_eq!(decoder.buffered(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod decoder;
#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

pub use decoder::FrameDecoder;

/// Bytes before every payload: the kind and the length.
pub const HEADER_LEN: usize = 5;

/// Most bytes a payload can have: 10 MiB, so that one frame never takes more memory at a receiver
/// than a whole response may have.
pub const MAX_PAYLOAD: usize = 10 * 1024 * 1024;

/// One frame. Its `Debug` shows the length of the payload, never its content.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The kind of the payload; any value can arrive.
    pub kind: u8,
    /// The payload. It may share memory with its chunk: copy it to keep it for long.
    pub payload: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame {{ kind: {:#04x}, payload: {} bytes }}", self.kind, self.payload.len())
    }
}

/// The first five bytes of a frame, decoded under a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the payload.
    pub kind: u8,
    /// Bytes of payload that follow.
    pub length: u32,
}

impl Header {
    /// Reads a header, refusing a payload of more than `limit` bytes or [`MAX_PAYLOAD`],
    /// whichever is less.
    ///
    /// ```
    /// use adit_core::frame::{DecodeError, Header};
    /// let open = Header::decode([0x10, 0, 0, 0, 22], 128)?;
    /// assert_eq!((open.kind, open.length), (0x10, 22));
    /// let refused = Header::decode([0x10, 0, 0, 0, 129], 128);
    /// assert_eq!(refused, Err(DecodeError::TooLarge { declared: 129 }));
    /// # Ok::<(), DecodeError>(())
    /// ```
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when the declared length is over the limit.
    pub const fn decode(bytes: [u8; HEADER_LEN], limit: usize) -> Result<Self, DecodeError> {
        let [kind, a, b, c, d] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length as usize > limit || length as usize > MAX_PAYLOAD {
            return Err(DecodeError::TooLarge { declared: length });
        }
        Ok(Self { kind, length })
    }
}

/// An error of a peer. The next frame cannot be found after it, so the stream is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A header declares a longer payload than is allowed here.
    #[error("a frame declares {declared} bytes, over the limit")]
    TooLarge {
        /// The length that the header declares, in bytes.
        declared: u32,
    },
}

/// The payload offered for encoding is over [`MAX_PAYLOAD`]; no bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {length} bytes is over the limit of {MAX_PAYLOAD}")]
pub struct TooLarge {
    /// The length of the payload, in bytes.
    pub length: usize,
}

/// Returns the header of a frame with a payload that the caller sends after it, without a copy
/// here.
///
/// # Errors
/// [`TooLarge`] when `length` is over [`MAX_PAYLOAD`].
pub const fn encode_header(kind: u8, length: usize) -> Result<[u8; HEADER_LEN], TooLarge> {
    if length > MAX_PAYLOAD {
        return Err(TooLarge { length });
    }
    let [a, b, c, d] = (length as u32).to_be_bytes();
    Ok([kind, a, b, c, d])
}

/// Appends a whole frame to `out`.
///
/// # Errors
/// [`TooLarge`] when the payload is over [`MAX_PAYLOAD`]; `out` is unchanged.
#[cfg(any(test, feature = "testing"))]
pub fn encode(kind: u8, payload: &[u8], out: &mut BytesMut) -> Result<(), TooLarge> {
    let header = encode_header(kind, payload.len())?;
    out.reserve(HEADER_LEN.saturating_add(payload.len()));
    out.put_slice(&header);
    out.put_slice(payload);
    Ok(())
}

/// Appends a frame with a payload that `write` appends itself, in one pass: the length is filled in
/// afterwards. When either fails, `out` is unchanged.
pub(crate) fn encode_with<E: From<TooLarge>>(
    kind: u8,
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    let body = start.saturating_add(HEADER_LEN);
    out.put_bytes(0, HEADER_LEN);
    let done = write(out)
        .and_then(|()| Ok(encode_header(kind, out.len().saturating_sub(body))?))
        .map(|header| {
            if let Some(place) = out.get_mut(start..body) {
                place.copy_from_slice(&header);
            }
        });
    if done.is_err() {
        out.truncate(start);
    }
    done
}
