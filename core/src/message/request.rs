//! Requests and responses: a small header in front of an opaque body.
//!
//! Decides how the two are encoded. Never copies a body on receipt, and never inspects one.

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::control::id;
use super::json::{self, JsonBody};
use super::{Body, EncodeError, MessageError, OutOfRange};
use crate::frame::{MAX_PAYLOAD, TooLarge};

/// The urgency of a request, most urgent first: the order of the variants is the order of priority.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all others.
    High,
    /// The default.
    #[default]
    Normal,
    /// Only when no other request waits.
    Low,
}

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Returns the stable text of the priority.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// A whole request. Its `Debug` shows the length of the body, never its content.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Correlates what both sides log: 1 to [`MAX_ID`](super::MAX_ID) bytes.
    pub id: String,
    /// How long the sender still waits for the answer, in milliseconds since it sent this.
    pub deadline_ms: Option<u64>,
    /// How urgent it is.
    pub priority: Priority,
    /// The body.
    pub body: Bytes,
}

/// A whole response. Its `Debug` shows the length of the body, never its content.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The body.
    pub body: Bytes,
}

/// A part of a streamed response. Its `Debug` shows the length of the body, never its content.
#[derive(Clone, PartialEq, Eq)]
pub struct ResponseChunk {
    /// 0 for the first chunk of a response, then one more each.
    pub sequence: u64,
    /// Whether no chunk follows.
    pub is_final: bool,
    /// The body of this chunk.
    pub body: Bytes,
}

/// Flag of a [`ResponseChunk`] that marks the last chunk.
const FINAL: u8 = 0x01;

#[derive(Serialize, Deserialize)]
struct RequestHeader<'a> {
    id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(default)]
    priority: Priority,
}

impl JsonBody for RequestHeader<'static> {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.id, "id")
    }
}

impl Body for Request {
    fn read(mut payload: Bytes) -> Result<Self, MessageError> {
        let length = payload.try_get_u16().map_err(|_| MessageError::Truncated)?;
        let (head, _) =
            payload.split_at_checked(usize::from(length)).ok_or(MessageError::Truncated)?;
        let header: RequestHeader<'static> = json::read(head)?;
        payload.advance(usize::from(length));
        Ok(Self {
            id: header.id.into_owned(),
            deadline_ms: header.deadline_ms,
            priority: header.priority,
            body: payload,
        })
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        id(&self.id, "id")?;
        let header = RequestHeader {
            id: self.id.as_str().into(),
            deadline_ms: self.deadline_ms,
            priority: self.priority,
        };
        let start = out.len();
        out.put_u16(0);
        json::put(&header, out)?;
        let length = out.len().saturating_sub(start).saturating_sub(2);
        let length = u16::try_from(length).map_err(|_| EncodeError::TooLarge)?;
        if let Some(place) = out.get_mut(start..).and_then(|it| it.first_chunk_mut()) {
            *place = length.to_be_bytes();
        }
        put_body(&self.body, out)
    }
}

impl Body for Response {
    fn read(payload: Bytes) -> Result<Self, MessageError> {
        Ok(Self { body: payload })
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        put_body(&self.body, out)
    }
}

impl Body for ResponseChunk {
    fn read(mut payload: Bytes) -> Result<Self, MessageError> {
        let sequence = payload.try_get_u64().map_err(|_| MessageError::Truncated)?;
        let flags = payload.try_get_u8().map_err(|_| MessageError::Truncated)?;
        Ok(Self { sequence, is_final: flags & FINAL != 0, body: payload })
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_u64(self.sequence);
        out.put_u8(if self.is_final { FINAL } else { 0 });
        put_body(&self.body, out)
    }
}

fn put_body(body: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    if body.len() > MAX_PAYLOAD {
        return Err(TooLarge { length: body.len() }.into());
    }
    out.put_slice(body);
    Ok(())
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("deadline_ms", &self.deadline_ms)
            .field("priority", &self.priority)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response {{ body: {} bytes }}", self.body.len())
    }
}

impl fmt::Debug for ResponseChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseChunk")
            .field("sequence", &self.sequence)
            .field("is_final", &self.is_final)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}
