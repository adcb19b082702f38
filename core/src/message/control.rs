//! Messages of the control stream: liveness, failure, and early warnings.
//!
//! Decides their fields and ranges. Never decides when one is sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::json::JsonBody;
use super::{Object, OutOfRange};
use crate::error::{Code, Failure};

/// Longest id, of a device, a request or a model, in bytes: room for any UUID, hash or name.
pub const MAX_ID: usize = 128;

/// Longest code, in bytes: the stable codes have half of it.
pub const MAX_CODE: usize = 64;

/// Longest sentence for a person, in bytes: longer text belongs in a log.
pub const MAX_SENTENCE: usize = 1024;

/// The sender is alive. A receiver answers with [`HeartbeatAck`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender: 1 to [`MAX_ID`] bytes.
    pub device_id: String,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// One more than that of the sender's last heartbeat; the ack repeats it.
    pub sequence: u64,
    /// The sender's vitals: usage of processor, memory and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vitals: Option<Object>,
}

impl JsonBody for Heartbeat {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.device_id, "device_id")
    }
}

/// The answer to a [`Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The sequence of the heartbeat that it answers.
    pub sequence: u64,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub server_time: u64,
    /// The round trip as its sender last measured it, in milliseconds.
    pub latency_ms: u64,
    /// Messages that wait at its sender for the receiver.
    pub pending_messages: u64,
    /// How its sender is doing.
    pub server_status: ServerStatus,
}

impl JsonBody for HeartbeatAck {
    fn check(&self) -> Result<(), OutOfRange> {
        Ok(())
    }
}

/// The health of the sender of a [`HeartbeatAck`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerStatus {
    /// All is well.
    Ok,
    /// It works, but worse than it should.
    Degraded,
    /// It is shutting down.
    Draining,
    /// A value of a later version.
    #[serde(other)]
    Unknown,
}

/// A refusal or a failure, in answer to an earlier message on the stream.
///
/// ```
/// use adit_core::error::{Code, Failure};
/// use adit_core::message::ErrorMessage;
/// use std::time::Duration;
///
/// let busy = Failure::new(Code::Overloaded, "64 streams are open");
/// let busy = busy.with_retry_after(Duration::from_secs(2));
/// let sent = ErrorMessage::from(&busy);
/// assert_eq!(sent.code, "overloaded");
/// assert_eq!(sent.to_failure(), busy);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMessage {
    /// Which failure: the text of a [`Code`], or one of a later version; 1 to [`MAX_CODE`] bytes.
    pub code: String,
    /// The failure, for a person: up to [`MAX_SENTENCE`] bytes.
    pub message: String,
    /// Further details, for a program. `retry_after_ms` is the requested pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Object>,
}

impl ErrorMessage {
    /// Returns the failure that the sender meant; [`Code::Unknown`] if this version has no such
    /// code.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        let details = self.details.as_ref();
        let details = details.and_then(|it| serde_json::from_str::<Details>(it.as_str()).ok());
        failure(&self.code, &self.message, details.and_then(|it| it.retry_after_ms))
    }
}

impl From<&Failure> for ErrorMessage {
    fn from(failure: &Failure) -> Self {
        let details =
            failure.retry_after().map(|after| Details { retry_after_ms: Some(millis(after)) });
        Self {
            code: failure.code().as_str().to_owned(),
            message: failure.detail().to_owned(),
            details: details
                .and_then(|it| serde_json::to_string(&it).ok())
                .and_then(|it| it.parse().ok()),
        }
    }
}

impl JsonBody for ErrorMessage {
    fn check(&self) -> Result<(), OutOfRange> {
        code(&self.code)?;
        OutOfRange::unless(self.message.len() <= MAX_SENTENCE, "message")
    }
}

#[derive(Serialize, Deserialize)]
struct Details {
    retry_after_ms: Option<u64>,
}

/// The sender is shutting down: it finishes open streams and accepts no new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goaway {
    /// Why: the text of a [`Code`], or one of a later version; 1 to [`MAX_CODE`] bytes.
    pub code: String,
    /// Why, for a person: up to [`MAX_SENTENCE`] bytes.
    pub message: String,
    /// How long to stay away, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Goaway {
    /// Returns the failure that the sender meant; [`Code::Unknown`] if this version has no such
    /// code.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        failure(&self.code, &self.message, self.retry_after_ms)
    }
}

impl From<&Failure> for Goaway {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code().as_str().to_owned(),
            message: failure.detail().to_owned(),
            retry_after_ms: failure.retry_after().map(millis),
        }
    }
}

impl JsonBody for Goaway {
    fn check(&self) -> Result<(), OutOfRange> {
        code(&self.code)?;
        OutOfRange::unless(self.message.len() <= MAX_SENTENCE, "message")
    }
}

/// Checks an id: 1 to [`MAX_ID`] bytes.
pub(super) fn id(id: &str, field: &'static str) -> Result<(), OutOfRange> {
    OutOfRange::unless((1..=MAX_ID).contains(&id.len()), field)
}

/// Checks a code: 1 to [`MAX_CODE`] bytes.
pub(super) fn code(code: &str) -> Result<(), OutOfRange> {
    OutOfRange::unless((1..=MAX_CODE).contains(&code.len()), "code")
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the failure that a code and its sentence mean; [`Code::Unknown`] if this version has no
/// such code.
pub(super) fn failure(code: &str, message: &str, retry_after_ms: Option<u64>) -> Failure {
    let known = Code::ALL.iter().find(|known| known.as_str() == code);
    let failure = known.map_or_else(
        || Failure::new(Code::Unknown, format!("{code}: {message}")),
        |known| Failure::new(*known, message),
    );
    match retry_after_ms {
        Some(ms) => failure.with_retry_after(Duration::from_millis(ms)),
        None => failure,
    }
}
