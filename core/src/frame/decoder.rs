//! The incremental decoder: chunks in, frames out.
//!
//! Decides when the bytes of a frame are complete and how much memory they may take meanwhile.
//! Never allocates for a length that was only declared, and never recovers from a broken stream.

use std::fmt;
use std::mem;

use bytes::{Buf, Bytes};

use super::{DecodeError, Frame, HEADER_LEN, Header, MAX_PAYLOAD};

/// First allocation for a frame that arrives in pieces, unless it is shorter itself.
const FIRST_ALLOCATION: usize = 64;

/// Cuts one stream into frames, however its bytes are split into chunks.
///
/// A frame that lies within one chunk is sliced out of it without a copy. One that does not is
/// gathered in memory that grows with what has arrived: at most twice that, and never more than the
/// frame declares. So a peer must send every byte of the memory that it uses, and many tiny chunks
/// do not keep alive the packets that carried them.
pub struct FrameDecoder {
    limit: usize,
    state: DecoderState,
}

enum DecoderState {
    /// Fewer than five bytes of a header, none at a frame boundary.
    Header { bytes: [u8; HEADER_LEN], filled: usize },
    /// A whole header and less than its payload.
    Payload { header: Header, received: Vec<u8> },
    /// The stream is of no further use.
    Failed(DecodeError),
}

const BOUNDARY: DecoderState = DecoderState::Header { bytes: [0; HEADER_LEN], filled: 0 };

impl FrameDecoder {
    /// Returns a decoder that takes payloads of up to [`MAX_PAYLOAD`] bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_limit(MAX_PAYLOAD)
    }

    /// Returns a decoder that takes payloads of up to `limit` bytes, and never more than
    /// [`MAX_PAYLOAD`].
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self { limit, state: BOUNDARY }
    }

    /// Removes the next frame from `chunk`, together with the bytes of earlier chunks.
    ///
    /// After `Some` there may be more: call again with the same chunk. After `None` the chunk is
    /// consumed: call again with the next one.
    ///
    /// # Errors
    /// The peer's error. Every later call returns the same error and takes no bytes.
    pub fn poll_frame(&mut self, chunk: &mut Bytes) -> Result<Option<Frame>, DecodeError> {
        if let DecoderState::Header { bytes, filled } = &mut self.state {
            let Some(bytes) = take_header(bytes, filled, chunk) else { return Ok(None) };
            self.state = match Header::decode(bytes, self.limit) {
                Ok(header) => DecoderState::Payload { header, received: Vec::new() },
                Err(error) => DecoderState::Failed(error),
            };
        }
        match &mut self.state {
            DecoderState::Header { .. } => Ok(None),
            DecoderState::Failed(error) => Err(*error),
            DecoderState::Payload { header, received } => {
                let kind = header.kind;
                let payload = take_payload(header.length as usize, received, chunk);
                Ok(payload.map(|payload| {
                    self.state = BOUNDARY;
                    Frame { kind, payload }
                }))
            }
        }
    }

    /// Returns the header of the current frame, once it is complete.
    #[must_use]
    pub const fn header(&self) -> Option<Header> {
        match &self.state {
            DecoderState::Payload { header, .. } => Some(*header),
            DecoderState::Header { .. } | DecoderState::Failed(_) => None,
        }
    }

    /// Returns how many bytes complete the header, or the payload, of the current frame: a caller
    /// that reads no more than that from a stream takes no bytes beyond the frame. Zero for a
    /// payload that is empty, and after an error.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        match &self.state {
            DecoderState::Header { filled, .. } => HEADER_LEN.saturating_sub(*filled),
            DecoderState::Payload { header, received } => {
                (header.length as usize).saturating_sub(received.len())
            }
            DecoderState::Failed(_) => 0,
        }
    }

    /// Returns the bytes of an unfinished frame held here, its header included: at most
    /// [`HEADER_LEN`] and the length it declares. Zero at a frame boundary, so a stream that ends
    /// at any other value was cut short.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        match &self.state {
            DecoderState::Header { filled, .. } => *filled,
            DecoderState::Payload { received, .. } => HEADER_LEN.saturating_add(received.len()),
            DecoderState::Failed(_) => 0,
        }
    }

    /// Returns the bytes allocated for an unfinished frame: at most its declared length.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn capacity(&self) -> usize {
        match &self.state {
            DecoderState::Payload { received, .. } => received.capacity(),
            DecoderState::Header { .. } | DecoderState::Failed(_) => 0,
        }
    }
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = match &self.state {
            DecoderState::Failed(error) => Some(error),
            DecoderState::Header { .. } | DecoderState::Payload { .. } => None,
        };
        f.debug_struct("Decoder")
            .field("limit", &self.limit)
            .field("buffered", &self.buffered())
            .field("failed", &failed)
            .finish()
    }
}

fn take_header(
    bytes: &mut [u8; HEADER_LEN],
    filled: &mut usize,
    chunk: &mut Bytes,
) -> Option<[u8; HEADER_LEN]> {
    if let (0, Some(whole)) = (*filled, chunk.first_chunk().copied()) {
        chunk.advance(HEADER_LEN);
        return Some(whole);
    }
    for (place, byte) in bytes.iter_mut().skip(*filled).zip(chunk.iter()) {
        *place = *byte;
    }
    let taken = HEADER_LEN.saturating_sub(*filled).min(chunk.len());
    chunk.advance(taken);
    *filled = filled.saturating_add(taken);
    (*filled == HEADER_LEN).then_some(*bytes)
}

fn take_payload(length: usize, received: &mut Vec<u8>, chunk: &mut Bytes) -> Option<Bytes> {
    if received.is_empty() && chunk.len() >= length {
        return Some(chunk.split_to(length));
    }
    let taken = length.saturating_sub(received.len()).min(chunk.len());
    let arrived = received.len().saturating_add(taken);
    if arrived > received.capacity() {
        let doubled = received.capacity().saturating_mul(2).max(FIRST_ALLOCATION);
        let wanted = doubled.max(arrived).min(length);
        received.reserve_exact(wanted.saturating_sub(received.len()));
    }
    received.extend(chunk.get(..taken)?);
    chunk.advance(taken);
    (arrived == length).then(|| Bytes::from(mem::take(received)))
}
