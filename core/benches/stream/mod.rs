//! A node's stream of meaningless bytes, written and read as fast as possible.
//!
//! It decides how much is written and read in one call. It never looks at a clock.

use std::error::Error;
use std::task::Poll;

use adit_core::id::StreamId;
use adit_core::node::Node;
use bytes::Bytes;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes offered to the stream in one call.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Writes up to this many bytes, and finishes the stream after the last. Returns what is left.
pub(crate) fn write(
    node: &mut Node,
    stream: StreamId,
    block: &Bytes,
    mut unsent: u64,
) -> Result<u64> {
    let before = unsent;
    while unsent > 0 {
        let size = usize::try_from(unsent).map_or(CHUNK, |unsent| unsent.min(CHUNK));
        match node.stream(stream).write(&mut block.slice(..size)) {
            Poll::Ready(Ok(written)) => unsent -= written as u64,
            Poll::Pending => return Ok(unsent),
            Poll::Ready(Err(e)) => return Err(e.into()),
        }
    }
    if before > 0 {
        node.stream(stream).finish()?;
    }
    Ok(0)
}

/// Reads what is there. Returns the number of bytes, and true if that was the end.
pub(crate) fn read(node: &mut Node, stream: StreamId) -> Result<(u64, bool)> {
    let mut taken = 0;
    loop {
        match node.stream(stream).read(usize::MAX) {
            Poll::Ready(Ok(Some(chunk))) => taken += std::hint::black_box(chunk).len() as u64,
            Poll::Ready(Ok(None)) => return Ok((taken, true)),
            Poll::Pending => return Ok((taken, false)),
            Poll::Ready(Err(e)) => return Err(e.into()),
        }
    }
}
