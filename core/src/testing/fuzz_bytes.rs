//! The invariants for any bytes: the bodies of the fuzz targets `frames` and `messages`.
//!
//! Decides what counts as a failure, and fails by panicking. Never makes up input: that comes from
//! the fuzzer, or from the corpus that the tests replay.

use bytes::{Bytes, BytesMut};

use crate::frame::{self, DecodeError, Frame, FrameDecoder, HEADER_LEN, MAX_PAYLOAD};
use crate::message::{EncodeError, Message};

/// Frames: any split of the bytes gives the same result as a simple parser of the whole, within the
/// memory limit, and decoded frames encode to the same bytes.
///
/// The first byte of `data` sets the limit: four times its value, or the maximum for zero. The
/// second sets how the rest is split.
pub fn frames(data: &[u8]) {
    let [limit, split, stream @ ..] = data else { return };
    let limit = if *limit == 0 { MAX_PAYLOAD } else { usize::from(*limit) * 4 };
    let (expected, error) = naive(stream, limit);

    let mut wire = BytesMut::new();
    for frame in &expected {
        frame::encode(frame.kind, &frame.payload, &mut wire).expect("within the limit");
    }
    assert!(stream.starts_with(&wire), "encoding is not what was read");

    let sizes = [1 + usize::from(*split), 1 + usize::from(*split >> 4), 1];
    for sizes in [&[usize::MAX][..], &sizes, &[1]] {
        assert_eq!(split_into(stream, sizes, limit), (expected.clone(), error));
    }
}

fn split_into(stream: &[u8], sizes: &[usize], limit: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let (mut decoder, mut frames) = (FrameDecoder::with_limit(limit), Vec::new());
    let mut rest = Bytes::copy_from_slice(stream);
    for &size in sizes.iter().cycle() {
        let mut chunk = rest.split_to(size.min(rest.len()));
        loop {
            match decoder.poll_frame(&mut chunk) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.poll_frame(&mut rest), Err(error), "not poisoned");
                    assert_eq!((decoder.buffered(), decoder.capacity()), (0, 0));
                    return (frames, Some(error));
                }
            }
        }
        assert!(chunk.is_empty(), "bytes were neither taken nor refused");
        assert!(decoder.buffered() <= HEADER_LEN + limit);
        assert!(decoder.capacity() <= limit);
        assert!(decoder.capacity() <= (2 * decoder.buffered()).max(64));
        if rest.is_empty() {
            break;
        }
    }
    let taken: usize = frames.iter().map(|frame| HEADER_LEN + frame.payload.len()).sum();
    assert_eq!(taken + decoder.buffered(), stream.len(), "bytes were lost");
    (frames, None)
}

fn naive(mut stream: &[u8], limit: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let mut frames = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = stream {
        let declared = u32::from_be_bytes([*a, *b, *c, *d]);
        if declared as usize > limit {
            return (frames, Some(DecodeError::TooLarge { declared }));
        }
        let Some((payload, rest)) = rest.split_at_checked(declared as usize) else { break };
        frames.push(Frame { kind: *kind, payload: Bytes::copy_from_slice(payload) });
        stream = rest;
    }
    (frames, None)
}

/// Messages: any payload of any kind is read, skipped or refused; a decoded message can be sent,
/// and decodes to the same again.
///
/// The first byte of `data` is the kind, the rest is the payload.
pub fn messages(data: &[u8]) {
    let Some((&kind, payload)) = data.split_first() else { return };
    let Ok(Some(message)) = Message::decode(kind, Bytes::copy_from_slice(payload)) else { return };
    assert_eq!(message.kind().to_wire(), kind);

    let mut wire = BytesMut::new();
    match message.encode(&mut wire) {
        Ok(()) => {}
        // Defaults and escapes that the peer omitted are written, so that a message read near the
        // limit may exceed it.
        Err(EncodeError::TooLarge) if payload.len() > MAX_PAYLOAD / 2 => return,
        Err(error) => panic!("what was read cannot be sent: {error}"),
    }
    let frame = FrameDecoder::new().poll_frame(&mut wire.freeze());
    let frame = frame.expect("within the limit").expect("one whole frame");
    assert_eq!(Message::decode(frame.kind, frame.payload), Ok(Some(message)));
}
