//! Text that a person wrote: it is carried, never logged.

use std::fmt;
use std::ops::Deref;

/// Text of a person, a document or a model. Its `Debug` shows the length, never the content.
///
/// ```
/// use adit_core::message::Text;
/// let text = Text::from("my diagnosis");
/// assert_eq!(&*text, "my diagnosis");
/// assert_eq!(format!("{text:?}"), "12 bytes");
/// ```
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Text(String);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
