//! Tests of the messages: their bytes, their round trips, and hostile input.

mod golden;
mod hostile;
mod relay;
mod roundtrip;

use bytes::{Bytes, BytesMut};

use super::{EncodeError, Message, MessageError};
use crate::frame::HEADER_LEN;

fn payload_of(message: &Message) -> Result<Bytes, EncodeError> {
    let mut wire = BytesMut::new();
    message.encode(&mut wire)?;
    Ok(wire.freeze().slice(HEADER_LEN..))
}

fn decode(kind: u8, payload: impl AsRef<[u8]>) -> Result<Option<Message>, MessageError> {
    Message::decode(kind, Bytes::copy_from_slice(payload.as_ref()))
}
