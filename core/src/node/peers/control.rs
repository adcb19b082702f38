//! The control stream: the first stream of a connection, frames in both directions.
//!
//! It decides which frames wait to be written, how many may wait, and how fast a peer may send.
//! Data never delays it: it is first in the transport's order and has its own reserve of the send
//! window. Where a peer's flow control blocks even that, heartbeats go as datagrams
//! (docs/protocol.md, "Control stream").

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::error::{Code, Failure};
use crate::frame::{Frame, FrameDecoder};
use crate::message::{Message, MessageKind};
use crate::token_bucket::{Bucket, Rate};

/// Largest control frame accepted: vitals and sentences are far smaller.
pub(super) const MAX_CONTROL_PAYLOAD: usize = 64 << 10;

/// Most frames waiting to be written. Heartbeats are one at a time; a peer that leaves more answers
/// than this unread is flooding.
pub(super) const MAX_WAITING: usize = 64;

/// Control frames a second that a peer may send, on the stream and as datagrams together, and the
/// largest burst of them; each KiB that a frame has begun counts as one. Heartbeats are one at a
/// time and 30 s apart: this leaves room for heartbeats of 10 ms and for the kinds that later
/// versions add, and bounds what answering and decoding cost.
const FRAMES_PER_SECOND: u32 = 100;
const FRAMES_AT_ONCE: u32 = 1_000;

/// The same limit for a relay, which this node chose: it announces every client that comes, and
/// after a restart they come together.
const RELAY_FRAMES_PER_SECOND: u32 = 10_000;
const RELAY_FRAMES_AT_ONCE: u32 = 20_000;

/// The limit for credit, which is reported at most every millisecond, and for 4 KiB that were read
/// at least: room for all streams to be reported at several gigabytes a second.
const CREDITS_PER_SECOND: u32 = 20_000;
const CREDITS_AT_ONCE: u32 = 40_000;

#[derive(Debug)]
pub(super) struct Control {
    /// The transport's number of the stream; `None` until the dialer's first frame arrived.
    pub(super) stream: Option<u64>,
    decoder: FrameDecoder,
    /// Read from the stream and not decoded yet.
    unread: Bytes,
    waiting: VecDeque<Waiting>,
    received: Bucket,
    rate: Rate,
    credits: Bucket,
    /// Frames of kinds this version does not know, skipped.
    pub(super) unknown: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) bytes: Bytes,
    /// Whether a datagram will do as well: no frame of the message is partly written, and its loss
    /// is survivable.
    pub(super) as_datagram: bool,
}

impl Control {
    pub(super) fn new(stream: Option<u64>) -> Self {
        Self {
            rate: Rate::per_second(FRAMES_PER_SECOND, FRAMES_AT_ONCE),
            stream,
            decoder: FrameDecoder::with_limit(MAX_CONTROL_PAYLOAD),
            unread: Bytes::new(),
            waiting: VecDeque::new(),
            received: Bucket::new(),
            credits: Bucket::new(),
            unknown: 0,
        }
    }

    /// Creates the control stream of a connection to a relay.
    pub(super) fn of_relay(stream: Option<u64>) -> Self {
        let rate = Rate::per_second(RELAY_FRAMES_PER_SECOND, RELAY_FRAMES_AT_ONCE);
        Self { rate, ..Self::new(stream) }
    }

    /// Queues a message.
    pub(super) fn push(&mut self, message: &Message) -> Result<(), Failure> {
        if self.waiting.len() >= MAX_WAITING {
            let sentence = "the peer floods the control stream without reading it";
            return Err(Failure::new(Code::ProtocolViolation, sentence));
        }
        let mut out = BytesMut::new();
        if message.encode(&mut out).is_err() {
            // Only vitals can be out of range, and those were checked when they were set.
            tracing::error!("a control message of ours cannot be encoded");
            return Ok(());
        }
        let as_datagram =
            matches!(message.kind(), MessageKind::Heartbeat | MessageKind::HeartbeatAck);
        self.waiting.push_back(Waiting { bytes: out.freeze(), as_datagram });
        Ok(())
    }

    /// Returns how many messages wait.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the next bytes to write.
    pub(super) fn front(&mut self) -> Option<&mut Waiting> {
        self.waiting.front_mut()
    }

    /// Removes the first message, which has been written or sent.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
    }

    /// Adds bytes from the stream, once [`Control::poll_message`] has returned `None`.
    pub(super) fn feed(&mut self, chunk: Bytes) {
        self.unread = chunk;
    }

    /// Returns the next message, skipping unknown ones.
    pub(super) fn poll_message(&mut self, now: Instant) -> Result<Option<Message>, Failure> {
        while let Some(frame) = self.decoder.poll_frame(&mut self.unread).map_err(violation)? {
            self.charge(frame.kind, frame.payload.len(), now)?;
            if let Some(message) = self.decode(frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Adds a control frame that came as a datagram; an invalid one is ignored like a lost one.
    pub(super) fn handle_datagram(
        &mut self,
        mut bytes: Bytes,
        now: Instant,
    ) -> Result<Option<Message>, Failure> {
        self.charge(bytes.first().copied().unwrap_or(0), bytes.len(), now)?;
        let mut whole = FrameDecoder::with_limit(MAX_CONTROL_PAYLOAD);
        let frame = whole.poll_frame(&mut bytes).ok().flatten();
        let message = frame.and_then(|frame| self.decode(frame).ok().flatten());
        Ok(message
            .filter(|m| matches!(m.kind(), MessageKind::Heartbeat | MessageKind::HeartbeatAck)))
    }

    /// Counts a frame that arrived.
    fn charge(&mut self, kind: u8, length: usize, now: Instant) -> Result<(), Failure> {
        let tokens = u32::try_from(1 + length / 1024).unwrap_or(u32::MAX);
        let (bucket, rate) = if kind == MessageKind::Credit.to_wire() {
            (&mut self.credits, Rate::per_second(CREDITS_PER_SECOND, CREDITS_AT_ONCE))
        } else {
            (&mut self.received, self.rate)
        };
        if bucket.take(tokens, rate, now) {
            return Ok(());
        }
        let sentence = "the peer floods the control stream";
        Err(Failure::new(Code::ProtocolViolation, sentence))
    }

    fn decode(&mut self, frame: Frame) -> Result<Option<Message>, Failure> {
        let message = Message::decode(frame.kind, frame.payload).map_err(violation)?;
        if message.is_none() {
            self.unknown += 1;
        }
        Ok(message)
    }
}

fn violation(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::ProtocolViolation, format!("control stream: {error}"))
}
