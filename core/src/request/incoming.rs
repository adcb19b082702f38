//! The responder's end of one exchange.
//!
//! It decides how an answer becomes frames and when a streamed answer must wait for the peer to
//! read. It never decides the content of an answer.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::error::{Code, Failure, Misuse};
use crate::frame::{self, MAX_PAYLOAD};
use crate::message::{ErrorMessage, Message, MessageKind, StreamMessage};

/// Bytes of a streamed answer that may wait to be written before its producer must pause.
pub(crate) const STREAM_BUFFER: usize = 256 << 10;

#[derive(Debug, PartialEq, Eq)]
enum ResponseState {
    /// No answer yet.
    Offered,
    /// A streamed answer is in progress; this is the number of the next chunk.
    Streaming(u64),
    /// The answer is complete, or refused.
    Answered,
}

/// One request of a peer.
#[derive(Debug)]
pub(crate) struct ReceivedRequest {
    unsent: VecDeque<Bytes>,
    state: ResponseState,
}

impl ReceivedRequest {
    pub(crate) const fn new() -> Self {
        Self { unsent: VecDeque::new(), state: ResponseState::Offered }
    }

    /// Answers whole.
    pub(crate) fn respond(&mut self, body: Bytes) -> Result<(), Misuse> {
        if self.state != ResponseState::Offered {
            return Err(Misuse::WrongState);
        }
        self.push(MessageKind::Response, &[], body)?;
        self.state = ResponseState::Answered;
        Ok(())
    }

    /// Adds a chunk to a streamed answer. `Ok(false)` means that it was not taken: the peer has to
    /// read first.
    pub(crate) fn respond_chunk(&mut self, body: Bytes, is_final: bool) -> Result<bool, Misuse> {
        let sequence = match self.state {
            ResponseState::Offered => 0,
            ResponseState::Streaming(sequence) => sequence,
            ResponseState::Answered => return Err(Misuse::WrongState),
        };
        if self.unsent_bytes() >= STREAM_BUFFER {
            return Ok(false);
        }
        let mut head = [0; 9];
        head[..8].copy_from_slice(&sequence.to_be_bytes());
        head[8] = is_final.into();
        self.push(MessageKind::ResponseChunk, &head, body)?;
        self.state =
            if is_final { ResponseState::Answered } else { ResponseState::Streaming(sequence + 1) };
        Ok(true)
    }

    /// Refuses a request, or ends a streamed answer with a failure.
    pub(crate) fn fail(&mut self, failure: &Failure) -> Result<(), Misuse> {
        if self.state == ResponseState::Answered {
            return Err(Misuse::WrongState);
        }
        let message = Message::Stream(StreamMessage::Error(ErrorMessage {
            code: failure.code().as_str().into(),
            message: failure.detail().into(),
            details: None,
        }));
        let mut frame = BytesMut::new();
        message.encode(&mut frame).map_err(|_| Misuse::OverLimit)?;
        self.unsent.push_back(frame.freeze());
        self.state = ResponseState::Answered;
        Ok(())
    }

    fn push(&mut self, kind: MessageKind, head: &[u8], body: Bytes) -> Result<(), Misuse> {
        let length = head.len() + body.len();
        if length > MAX_PAYLOAD {
            return Err(Misuse::OverLimit);
        }
        let header = frame::encode_header(kind.to_wire(), length).map_err(|_| Misuse::OverLimit)?;
        let mut front = BytesMut::with_capacity(header.len() + head.len());
        front.put_slice(&header);
        front.put_slice(head);
        self.unsent.push_back(front.freeze());
        if !body.is_empty() {
            self.unsent.push_back(body);
        }
        Ok(())
    }

    fn unsent_bytes(&self) -> usize {
        self.unsent.iter().map(Bytes::len).sum()
    }

    /// Returns the unwritten data, in order; the writer advances it.
    pub(crate) const fn unsent(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.unsent
    }

    /// Returns true if the answer is complete and written.
    pub(crate) fn is_done(&self) -> bool {
        self.state == ResponseState::Answered && self.unsent.is_empty()
    }

    /// Returns true if a chunk would be accepted now.
    pub(crate) fn has_room(&self) -> bool {
        self.unsent_bytes() < STREAM_BUFFER
    }
}

/// Returns the failure a requester sees when the responder dropped its request unanswered.
pub(crate) fn abandoned() -> Failure {
    Failure::new(Code::Cancelled, "the responder gave the request up")
}
