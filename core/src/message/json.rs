//! JSON bodies: strict about form, lenient about fields of later versions.
//!
//! Decides which bytes are a body and how large it can get while it is written. Never decides which
//! fields there are.

use std::fmt;
use std::io;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{Body, EncodeError, MessageError, OutOfRange};
use crate::frame::MAX_PAYLOAD;

/// A body that is one JSON object.
pub(super) trait JsonBody: Serialize + DeserializeOwned {
    /// Checks whether the fields have values that this kind allows.
    fn check(&self) -> Result<(), OutOfRange>;
}

impl<T: JsonBody> Body for T {
    fn read(payload: Bytes) -> Result<Self, MessageError> {
        read(&payload)
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.check()?;
        put(self, out)
    }
}

pub(super) fn read<T: JsonBody>(body: &[u8]) -> Result<T, MessageError> {
    let text = std::str::from_utf8(body).map_err(|_| MessageError::NotUtf8)?;
    // Without this, serde reads an array of the right length as a struct.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(MessageError::NotAnObject);
    }
    let value: T = serde_json::from_str(text)?;
    value.check()?;
    Ok(value)
}

/// Appends JSON that has been checked, up to the size of a payload.
pub(super) fn put<T: Serialize>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
    let room = MAX_PAYLOAD;
    // Only the writer can fail, at its limit: keys are strings and floats are finite.
    serde_json::to_writer(BoundedBuffer { out, room }, value).map_err(|_| EncodeError::TooLarge)
}

impl From<serde_json::Error> for MessageError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Data => Self::Shape { line, column },
            Category::Syntax | Category::Eof | Category::Io => Self::Syntax { line, column },
        }
    }
}

/// Appends to a buffer until its room is used up.
struct BoundedBuffer<'a> {
    out: &'a mut BytesMut,
    room: usize,
}

impl io::Write for BoundedBuffer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Most bytes of an [`Object`]: it is part of control messages, which stay small.
pub const MAX_OBJECT: usize = 64 * 1024;

/// Deepest nesting of an [`Object`], itself included: the deepest that a later parse accepts.
pub const MAX_OBJECT_DEPTH: usize = 127;

/// A JSON object that is carried as it is: valid JSON, at most [`MAX_OBJECT`] bytes and
/// [`MAX_OBJECT_DEPTH`] levels, and not interpreted here. Its `Debug` shows its length.
///
/// ```
/// use adit_core::message::Object;
/// let vitals: Object = r#"{"cpu": 0.25}"#.parse()?;
/// assert_eq!(vitals.as_str(), r#"{"cpu": 0.25}"#);
/// assert!("[1]".parse::<Object>().is_err());
/// # Ok::<(), adit_core::message::MessageError>(())
/// ```
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Object(Box<RawValue>);

impl Object {
    /// Returns the JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    fn check(raw: &RawValue) -> Result<(), MessageError> {
        let text = raw.get();
        if !text.starts_with('{') {
            return Err(MessageError::NotAnObject);
        }
        OutOfRange::unless(text.len() <= MAX_OBJECT, "object")?;
        Ok(OutOfRange::unless(depth(text) <= MAX_OBJECT_DEPTH, "object")?)
    }
}

impl FromStr for Object {
    type Err = MessageError;

    fn from_str(text: &str) -> Result<Self, MessageError> {
        let raw: &RawValue = serde_json::from_str(text)?;
        Self::check(raw)?;
        Ok(Self(raw.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Self::check(raw).map_err(D::Error::custom)?;
        Ok(Self(raw.to_owned()))
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_str().len())
    }
}

/// Returns the deepest nesting in valid JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
