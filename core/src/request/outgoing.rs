//! The requester's end of one exchange.
//!
//! It decides which frames make a valid answer. A peer that answers out of sequence, twice, or with
//! another kind of frame fails the request alone.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Request;
use crate::error::{Code, Failure};
use crate::frame::FrameDecoder;
use crate::message::{EncodeError, Message, Request as Wire, StreamMessage};

/// The effect of a piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next bytes of the response.
    Body(Bytes),
    /// The response is complete.
    End,
    /// The request failed.
    Failed(Failure),
}

#[derive(Debug)]
enum Expect {
    /// A whole response, the first chunk, or an error.
    Anything,
    /// The chunk of this number, or an error.
    Chunk(u64),
    /// The end of the stream.
    End,
}

/// One request of ours.
#[derive(Debug)]
pub(crate) struct SentRequest {
    unsent: VecDeque<Bytes>,
    decoder: FrameDecoder,
    expect: Expect,
}

impl SentRequest {
    pub(crate) fn new(
        correlation: String,
        request: Request,
        deadline_ms: u64,
    ) -> Result<Self, EncodeError> {
        let wire = Message::Stream(StreamMessage::Request(Wire {
            id: correlation,
            deadline_ms: Some(deadline_ms),
            priority: request.priority,
            body: request.body,
        }));
        let mut frame = BytesMut::new();
        wire.encode(&mut frame)?;
        Ok(Self {
            unsent: VecDeque::from([frame.freeze()]),
            decoder: FrameDecoder::new(),
            expect: Expect::Anything,
        })
    }

    /// Returns the number of bytes that wait to be written.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent.iter().map(Bytes::len).sum()
    }

    /// Returns the unwritten data, in order; the writer advances it.
    pub(crate) const fn unsent(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.unsent
    }

    /// Returns how many bytes to read next, so that none beyond the current frame are taken.
    pub(crate) fn wanted(&self) -> usize {
        self.decoder.wanted().max(1)
    }

    /// Handles bytes of the answer: at most [`SentRequest::wanted`] of them.
    pub(crate) fn handle_chunk(&mut self, mut chunk: Bytes) -> Option<Step> {
        let frame = match self.decoder.poll_frame(&mut chunk) {
            Ok(frame) => frame?,
            Err(error) => return Some(failed(Code::TooLarge, &error.to_string())),
        };
        let message = match Message::decode(frame.kind, frame.payload) {
            Ok(Some(message)) => message,
            Ok(None) => return None,
            Err(error) => return Some(failed(Code::ProtocolViolation, &error.to_string())),
        };
        self.handle_message(message)
    }

    fn handle_message(&mut self, message: Message) -> Option<Step> {
        match (message, &self.expect) {
            (Message::Stream(StreamMessage::Response(response)), Expect::Anything) => {
                self.expect = Expect::End;
                Some(Step::Body(response.body))
            }
            (
                Message::Stream(StreamMessage::ResponseChunk(chunk)),
                Expect::Anything | Expect::Chunk(_),
            ) => {
                let expected = match self.expect {
                    Expect::Chunk(sequence) => sequence,
                    Expect::Anything | Expect::End => 0,
                };
                if chunk.sequence != expected {
                    return Some(failed(Code::ProtocolViolation, "a chunk is out of sequence"));
                }
                self.expect =
                    if chunk.is_final { Expect::End } else { Expect::Chunk(expected + 1) };
                Some(Step::Body(chunk.body))
            }
            (Message::Stream(StreamMessage::Error(error)), Expect::Anything | Expect::Chunk(_)) => {
                Some(Step::Failed(error.to_failure()))
            }
            (_, Expect::End) => Some(failed(Code::ProtocolViolation, "a second answer")),
            (_, Expect::Anything | Expect::Chunk(_)) => {
                Some(failed(Code::ProtocolViolation, "not an answer"))
            }
        }
    }

    /// Handles the end of the peer's direction.
    pub(crate) fn handle_end(&self) -> Step {
        match self.expect {
            Expect::End if self.decoder.buffered() == 0 => Step::End,
            Expect::End | Expect::Anything | Expect::Chunk(_) => {
                failed(Code::ProtocolViolation, "the answer is cut short")
            }
        }
    }
}

fn failed(code: Code, detail: &str) -> Step {
    Step::Failed(Failure::new(code, detail))
}
