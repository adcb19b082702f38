//! Messages: the meaning of a frame's payload.
//!
//! Decides which kinds exist, how their bodies are encoded, and which values a body can have. Never
//! decides how a message is handled, nor on which stream it may come: the machines that send and
//! receive it decide that.
//!
//! Kinds below 0x10 are control messages with a JSON body; those from 0x10 are the tunnel's own
//! (docs/protocol.md, "Messages"). Every value is checked when it is encoded and when it is
//! decoded, so that our senders never produce a message that our receivers refuse.
//!
//! ```
//! use adit_core::frame::FrameDecoder;
//! use adit_core::message::{Message, Open, StreamMessage};
//! use bytes::BytesMut;
//!
//! let open = Open { service: "db.primary".parse()?, origin: None };
//! let open = Message::Stream(StreamMessage::Open(open));
//! let mut wire = BytesMut::new();
//! open.encode(&mut wire)?;
//! assert_eq!(&wire[5..], br#"{"service":"db.primary"}"#);
//!
//! let frame = FrameDecoder::new().poll_frame(&mut wire.freeze())?.expect("one whole frame");
//! assert_eq!(Message::decode(frame.kind, frame.payload)?, Some(open));
//! assert_eq!(Message::decode(0xff, "from a later version".into())?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod candidates;
pub mod cloud;
mod control;
mod credit;
mod json;
mod relay;
mod request;
mod service;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
mod text;

use bytes::{Bytes, BytesMut};

use cloud::{EscalationRequest, EscalationResponse, PrewarmSignal, StreamChunk, StreamEnd};

use crate::frame::{self, TooLarge};

pub use candidates::{Candidate, CandidateKind, Candidates, MAX_CANDIDATES, Mapping};
pub use control::{
    ErrorMessage, Goaway, Heartbeat, HeartbeatAck, MAX_CODE, MAX_ID, MAX_SENTENCE, ServerStatus,
};
pub use credit::{Credit, MAX_CREDITS};
pub use json::{MAX_OBJECT, MAX_OBJECT_DEPTH, Object};
pub use relay::{
    Connect, DiscoveryKey, Hangup, Incoming, MAX_DISCOVERY, MAX_EXCLUDED, MAX_GUESTS, MAX_REVOKED,
    MAX_SERIAL, MAX_SERVICES, Matched, REFRESH_MS, Register, Registered, Unmatched, Unregistered,
    Welcome, Withdraw,
};
pub use request::{Priority, Request, Response, ResponseChunk};
pub use service::{InvalidServiceName, MAX_SERVICE_NAME, Open, Opened, ResetAt, ServiceName};
pub use text::Text;

/// The encoding of one kind of body.
trait Body: Sized {
    fn read(payload: Bytes) -> Result<Self, MessageError>;
    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError>;
}

macro_rules! messages {
    ($($(#[$of_group:meta])* $group:ident($enum:ident) {
        $($(#[$doc:meta])* $name:ident($body:ty) = $wire:literal;)*
    })*) => {
        /// The kinds of message this version knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum MessageKind { $($($(#[$doc])* $name,)*)* }

        impl MessageKind {
            /// Every kind there is, group by group.
            #[cfg(any(test, feature = "testing"))]
            pub const ALL: &'static [Self] = &[$($(Self::$name,)*)*];

            /// Returns the first byte of a frame of this kind.
            #[must_use]
            pub const fn to_wire(self) -> u8 {
                match self { $($(Self::$name => $wire,)*)* }
            }

            /// Returns the kind that a frame's first byte means, if this version knows it.
            #[must_use]
            pub const fn from_wire(wire: u8) -> Option<Self> {
                match wire { $($($wire => Some(Self::$name),)*)* _ => None }
            }
        }

        $(
            $(#[$of_group])*
            #[derive(Debug, Clone, PartialEq)]
            #[non_exhaustive]
            pub enum $enum { $($(#[$doc])* $name($body),)* }

            impl $enum {
                /// Returns the kind of the message.
                #[must_use]
                pub const fn kind(&self) -> MessageKind {
                    match self { $(Self::$name(_) => MessageKind::$name,)* }
                }

                fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
                    match self { $(Self::$name(body) => body.write(out),)* }
                }
            }
        )*

        /// A message of any kind, by its group.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Message { $($(#[$of_group])* $group($enum),)* }

        impl Message {
            /// Returns the kind of the message.
            #[must_use]
            pub const fn kind(&self) -> MessageKind {
                match self { $(Self::$group(message) => message.kind(),)* }
            }

            /// Reads the payload of a frame. `None` is a kind this version does not know, to be
            /// skipped and counted. Bodies of requests and responses are slices of `payload`.
            ///
            /// # Errors
            /// [`MessageError`] names the place in the payload, and quotes none of it.
            pub fn decode(kind: u8, payload: Bytes) -> Result<Option<Self>, MessageError> {
                Ok(match MessageKind::from_wire(kind) {
                    $($(Some(MessageKind::$name) => {
                        Some(Self::$group($enum::$name(Body::read(payload)?)))
                    })*)*
                    None => None,
                })
            }

            /// Appends the message to `out` as a whole frame.
            ///
            /// # Errors
            /// A value is out of range, or the frame would be too large; `out` is as it was.
            pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
                frame::encode_with(self.kind().to_wire(), out, |out| match self {
                    $(Self::$group(message) => message.write(out),)*
                })
            }
        }
    };
}

messages! {
    /// On the control stream between any two nodes: heartbeats, flow control, and where a node can be
    /// reached.
    Control(ControlMessage) {
        /// The sender is alive; sent every heartbeat interval.
        Heartbeat(Heartbeat) = 0x01;
        /// The answer to a heartbeat.
        HeartbeatAck(HeartbeatAck) = 0x02;
        /// The sender is shutting down: no new streams.
        Goaway(Goaway) = 0x15;
        /// How much of each stream has been read.
        Credit(Credit) = 0x17;
        /// The sender will soon need help: a model should be warmed up.
        PrewarmSignal(PrewarmSignal) = 0x08;
        /// The addresses at which the sender may be reached directly.
        Candidates(Candidates) = 0x2a;
    }
    /// On the other streams: headers, requests, responses and refusals.
    Stream(StreamMessage) {
        /// A refusal or a failure, in answer to an earlier message.
        Error(ErrorMessage) = 0x07;
        /// First frame of a forwarded stream; raw bytes follow.
        Open(Open) = 0x10;
        /// The stream is connected; raw bytes follow.
        Opened(Opened) = 0x11;
        /// A request, whole.
        Request(Request) = 0x12;
        /// A response, whole.
        Response(Response) = 0x13;
        /// A part of a streamed response.
        ResponseChunk(ResponseChunk) = 0x14;
        /// First frame of a stream of its own: another stream is reset once it is read so far.
        ResetAt(ResetAt) = 0x16;
    }
    /// On the control stream between a relay and its clients.
    Relay(RelayMessage) {
        /// Relay to client: how the relay sees the client.
        Welcome(Welcome) = 0x20;
        /// Client to relay: the sender offers services, or refreshes that offer.
        Register(Register) = 0x21;
        /// The answer to an accepted registration.
        Registered(Registered) = 0x22;
        /// Relay to client: it is not registered, or not any more.
        Unregistered(Unregistered) = 0x23;
        /// Client to relay: the sender offers no services any more.
        Withdraw(Withdraw) = 0x24;
        /// Client to relay: requests a channel to a service.
        Connect(Connect) = 0x25;
        /// The answer to a lookup: there is a channel.
        Matched(Matched) = 0x26;
        /// The answer: there is none.
        Unmatched(Unmatched) = 0x27;
        /// Relay to connector: a client asked for its service.
        Incoming(Incoming) = 0x28;
        /// A channel is over.
        Hangup(Hangup) = 0x29;
    }
    /// For the cloud services of an edge: queries to a model and their answers.
    Cloud(CloudMessage) {
        /// A query to a model of the edge.
        EscalationRequest(EscalationRequest) = 0x03;
        /// The whole answer to a query.
        EscalationResponse(EscalationResponse) = 0x04;
        /// A part of a streamed answer.
        StreamChunk(StreamChunk) = 0x05;
        /// The end of a streamed answer.
        StreamEnd(StreamEnd) = 0x06;
    }
}

/// An error in a payload. It never quotes the payload, which may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A JSON body is not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// A JSON body does not start with `{`.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A JSON body breaks JSON's grammar, is cut short or is nested too deeply.
    #[error("the body is not JSON at line {line}, column {column}")]
    Syntax {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, in bytes from 1; 0 is before the line's first.
        column: usize,
    },
    /// A JSON body lacks a field, has one twice, or has one of a wrong type.
    #[error("the body has not the shape of its kind, seen at line {line}, column {column}")]
    Shape {
        /// Line at which it was seen, from 1.
        line: usize,
        /// Column at which it was seen, in bytes from 1; 0 is before the line's first.
        column: usize,
    },
    /// A binary body is shorter than its own fields.
    #[error("the body is cut short")]
    Truncated,
    /// A body that has to be empty is not.
    #[error("the body is not empty")]
    NotEmpty,
    /// A field has a value that its kind does not allow.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The frame would be larger than a frame can be.
    #[error("the message is over the limit of {} bytes", frame::MAX_PAYLOAD)]
    TooLarge,
    /// A field has a value that its kind does not allow.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl From<TooLarge> for EncodeError {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// A field has a value that its kind does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is out of range")]
pub struct OutOfRange {
    /// The field, by its name on the wire.
    pub field: &'static str,
}

impl OutOfRange {
    /// Returns `Ok` if `allowed`, otherwise an error that `field` is out of range.
    const fn unless(allowed: bool, field: &'static str) -> Result<(), Self> {
        if allowed { Ok(()) } else { Err(Self { field }) }
    }
}
