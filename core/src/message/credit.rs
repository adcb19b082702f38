//! What a peer may send on its streams: how much this side stores unread, and how much of each
//! stream has been read.
//!
//! Decides how the two are encoded. Never decides how much a peer may have unread: the sender of
//! the data computes that.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Body, EncodeError, MessageError, OutOfRange};

/// Most streams of one message: 16 KiB, a quarter of the largest control frame.
pub const MAX_CREDITS: usize = 1_024;

/// Bytes of one entry.
const ENTRY: usize = 16;

/// What the sender of this message has read of the streams that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// Bytes that the sender of this message stores unread, in all streams of the connection.
    pub budget: u64,
    /// The transport's number of a stream, and the bytes of it that were read: up to
    /// [`MAX_CREDITS`] streams.
    pub read: Vec<(u64, u64)>,
}

impl Body for Credit {
    fn read(mut payload: Bytes) -> Result<Self, MessageError> {
        let budget = payload.try_get_u64().map_err(|_| MessageError::Truncated)?;
        if !payload.len().is_multiple_of(ENTRY) {
            return Err(MessageError::Truncated);
        }
        let mut read = Vec::with_capacity(payload.len() / ENTRY);
        while let (Ok(stream), Ok(bytes)) = (payload.try_get_u64(), payload.try_get_u64()) {
            read.push((stream, bytes));
        }
        OutOfRange::unless(read.len() <= MAX_CREDITS, "read")?;
        Ok(Self { budget, read })
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        OutOfRange::unless(self.read.len() <= MAX_CREDITS, "read")?;
        out.put_u64(self.budget);
        for &(stream, bytes) in &self.read {
            out.put_u64(stream);
            out.put_u64(bytes);
        }
        Ok(())
    }
}
