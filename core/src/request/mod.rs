//! Requests and responses: opaque bytes, one stream each.
//!
//! [`queue`] orders the waiting requests. `SentRequest` and `ReceivedRequest` are the two ends of
//! one exchange: they turn bodies into frames and frames into bodies. They have no stream and no
//! clock; the node moves the bytes and keeps the deadlines.

pub mod queue;

mod incoming;
mod outgoing;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use incoming::{ReceivedRequest, abandoned};
pub(crate) use outgoing::{SentRequest, Step};
pub use queue::Priority;

/// A request to make.
///
/// ```
/// use adit_core::request::{Priority, Request};
/// use std::time::Duration;
/// let request = Request::new("ping").deadline(Duration::from_secs(5)).priority(Priority::High);
/// assert_eq!(&request.body[..], b"ping");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The payload: at most 10 MiB, less about a hundred bytes of header.
    pub body: Bytes,
    /// How long the whole exchange may take, waiting for a connection included; `None` takes the
    /// node's own default of 60 s.
    pub deadline: Option<Duration>,
    /// Which of several waiting requests goes first.
    pub priority: Priority,
}

impl Request {
    /// Returns a request of normal priority with the default deadline.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), deadline: None, priority: Priority::Normal }
    }

    /// Returns the same with another deadline.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Returns the same with another priority.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

/// What the acceptor of a request receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The requester's correlation id, for logs.
    pub correlation: String,
    /// How long the requester still waits, measured from arrival.
    pub deadline: Option<Duration>,
    /// The urgency that the requester declares.
    pub priority: Priority,
    /// The body.
    pub body: Bytes,
}
