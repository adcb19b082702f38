//! The header of a forwarded stream, and the names it can ask for.
//!
//! Decides which service names are valid. Never decides which services exist or which peers may use
//! them.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::control::{code, failure, id};
use super::json::JsonBody;
use super::{Body, EncodeError, MessageError, OutOfRange};
use crate::error::Code;

/// Longest service name, in bytes: a name fits a DNS label with a byte to spare.
pub const MAX_SERVICE_NAME: usize = 64;

/// The name of a service: 1 to 64 of `a`–`z`, `0`–`9`, `.`, `_` and `-`.
///
/// No character in it needs quoting in a log, a file name, a URL or a terminal.
///
/// ```
/// use adit_core::message::ServiceName;
/// let name: ServiceName = "db.primary".parse()?;
/// assert_eq!(name.as_str(), "db.primary");
/// assert!("DB".parse::<ServiceName>().is_err());
/// # Ok::<(), adit_core::message::InvalidServiceName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ServiceName(Box<str>);

/// The text is not a service name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a service name is 1 to {MAX_SERVICE_NAME} of a-z, 0-9, '.', '_' and '-'")]
pub struct InvalidServiceName;

impl ServiceName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(text: &str) -> Result<(), InvalidServiceName> {
        let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let fits = (1..=MAX_SERVICE_NAME).contains(&text.len());
        if fits && text.bytes().all(allowed) { Ok(()) } else { Err(InvalidServiceName) }
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, InvalidServiceName> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidServiceName;

    fn try_from(text: String) -> Result<Self, InvalidServiceName> {
        Self::check(&text)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = ServiceName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a service name")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ServiceName, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}

/// First frame of a forwarded stream, from its opener. Its acceptor answers with [`Opened`] or
/// [`ErrorMessage`](super::ErrorMessage).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The requested service.
    pub service: ServiceName,
    /// A mark of the local connection that is forwarded, 1 to [`MAX_ID`](super::MAX_ID) bytes: the
    /// acceptor recognises a connection that it made itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl JsonBody for Open {
    fn check(&self) -> Result<(), OutOfRange> {
        self.origin.as_deref().map_or(Ok(()), |origin| id(origin, "origin"))
    }
}

/// The sender's direction of a forwarded stream is reset once the receiver has read it up to an
/// offset. It is the first frame of a stream of its own, which has no answer. RESET_STREAM alone
/// discards what is not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetAt {
    /// The QUIC id of the stream.
    pub stream: u64,
    /// Bytes of the sender's direction, without its first frame.
    pub offset: u64,
    /// Why: the text of a [`Code`], or one of a later version.
    pub code: String,
}

impl ResetAt {
    /// Returns the code that the sender meant; [`Code::Unknown`] if this version has no such code.
    #[must_use]
    pub fn to_code(&self) -> Code {
        failure(&self.code, "", None).code()
    }
}

impl JsonBody for ResetAt {
    fn check(&self) -> Result<(), OutOfRange> {
        code(&self.code)
    }
}

/// The answer to [`Open`]: the service is connected. It has no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Opened;

impl Body for Opened {
    fn read(payload: Bytes) -> Result<Self, MessageError> {
        if payload.is_empty() { Ok(Self) } else { Err(MessageError::NotEmpty) }
    }

    fn write(&self, _: &mut BytesMut) -> Result<(), EncodeError> {
        Ok(())
    }
}
