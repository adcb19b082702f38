//! The control stream: the first stream of a connection, frames in both directions.
//!
//! It decides what waits to be written and how much may wait. Data never delays it: it is first in
//! the transport's order, has a reserve of the send window to itself, and where a peer's flow
//! control holds even that back, heartbeats go as datagrams (docs/protocol.md, "Control stream").

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::error::{Code, Failure};
use crate::frame::{Decoder, Frame};
use crate::message::{Kind, Message};

/// Largest control frame taken: vitals and sentences are far smaller.
pub(super) const MAX_CONTROL_PAYLOAD: usize = 64 << 10;

/// Frames waiting to be written. Heartbeats are one at a time; a peer that lets more than this
/// many answers pile up floods without reading.
pub(super) const MAX_WAITING: usize = 64;

#[derive(Debug)]
pub(super) struct Control {
    /// The transport's number of the stream; `None` until the dialler's first frame arrived.
    pub(super) stream: Option<u64>,
    decoder: Decoder,
    waiting: VecDeque<Waiting>,
    /// Frames of kinds this version does not know, skipped.
    pub(super) unknown: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) bytes: Bytes,
    /// Whether a datagram does as well: nothing of it is written, and losing it is survivable.
    pub(super) as_datagram: bool,
}

impl Control {
    pub(super) const fn new(stream: Option<u64>) -> Self {
        Self {
            stream,
            decoder: Decoder::with_limit(MAX_CONTROL_PAYLOAD),
            waiting: VecDeque::new(),
            unknown: 0,
        }
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
        let as_datagram = matches!(message.kind(), Kind::Heartbeat | Kind::HeartbeatAck);
        self.waiting.push_back(Waiting { bytes: out.freeze(), as_datagram });
        Ok(())
    }

    /// How many messages wait.
    #[cfg(feature = "testing")]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What is to be written next.
    pub(super) fn front(&mut self) -> Option<&mut Waiting> {
        self.waiting.front_mut()
    }

    /// What was at the front has been written or sent.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
    }

    /// Takes bytes off the stream; gives the next message, skipping unknown ones.
    pub(super) fn poll_message(&mut self, chunk: &mut Bytes) -> Result<Option<Message>, Failure> {
        while let Some(frame) = self.decoder.poll_frame(chunk).map_err(violation)? {
            if let Some(message) = self.decode(frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Takes a control frame that came as a datagram; a broken one is ignored like a lost one.
    pub(super) fn handle_datagram(&mut self, mut bytes: Bytes) -> Option<Message> {
        let mut whole = Decoder::with_limit(MAX_CONTROL_PAYLOAD);
        let frame = whole.poll_frame(&mut bytes).ok()??;
        let message = self.decode(frame).ok()??;
        matches!(message, Message::Heartbeat(_) | Message::HeartbeatAck(_)).then_some(message)
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
