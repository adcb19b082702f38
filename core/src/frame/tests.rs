//! Tests of the frame codec, by example and by property.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::{DecodeError, Frame, FrameDecoder, HEADER_LEN, Header, MAX_PAYLOAD, TooLarge};
use super::{encode, encode_header, encode_with};

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/frame.txt");

#[test]
fn a_frame_is_a_kind_a_big_endian_length_and_a_payload() {
    let mut wire = BytesMut::new();
    encode(0x07, b"abc", &mut wire).unwrap();
    assert_eq!(&wire[..], [0x07, 0, 0, 0, 3, b'a', b'b', b'c']);
    assert_eq!(encode_header(0x07, 0x01_02_03).unwrap(), [0x07, 0, 1, 2, 3]);
}

#[test]
fn a_payload_at_the_limit_is_encoded_and_one_past_it_leaves_the_buffer_as_it_was() {
    let mut wire = BytesMut::from(&b"before"[..]);
    let big = vec![0; MAX_PAYLOAD + 1];
    assert_eq!(encode(1, &big, &mut wire), Err(TooLarge { length: MAX_PAYLOAD + 1 }));
    assert_eq!(encode_header(1, MAX_PAYLOAD + 1), Err(TooLarge { length: MAX_PAYLOAD + 1 }));
    assert_eq!(&wire[..], b"before");
    encode(1, &big[1..], &mut wire).unwrap();
    assert_eq!(wire.len(), b"before".len() + HEADER_LEN + MAX_PAYLOAD);
}

#[test]
fn a_frame_written_in_place_is_undone_when_its_body_fails_or_is_too_large() {
    let mut wire = BytesMut::from(&b"before"[..]);
    let failed: Result<(), TooLarge> = encode_with(1, &mut wire, |out| {
        out.extend_from_slice(b"half");
        Err(TooLarge { length: 4 })
    });
    assert_eq!(failed, Err(TooLarge { length: 4 }));
    let grown: Result<(), TooLarge> = encode_with(1, &mut wire, |out| {
        out.resize(out.len() + MAX_PAYLOAD + 1, 0);
        Ok(())
    });
    assert_eq!(grown, Err(TooLarge { length: MAX_PAYLOAD + 1 }));
    assert_eq!(&wire[..], b"before");
}

#[test]
fn a_header_at_the_limit_is_taken_and_one_past_it_refused() {
    let over = |length: u32| Err(DecodeError::TooLarge { declared: length });
    let header = |length: u32| [&[9][..], &length.to_be_bytes()].concat().try_into().unwrap();
    let max = MAX_PAYLOAD as u32;
    assert_eq!(Header::decode(header(16), 16), Ok(Header { kind: 9, length: 16 }));
    assert_eq!(Header::decode(header(17), 16), over(17));
    assert_eq!(Header::decode(header(max), usize::MAX), Ok(Header { kind: 9, length: max }));
    assert_eq!(Header::decode(header(max + 1), usize::MAX), over(max + 1));
    assert_eq!(Header::decode(header(u32::MAX), usize::MAX), over(u32::MAX));
    assert_eq!(Header::decode(header(0), 0), Ok(Header { kind: 9, length: 0 }));
}

#[test]
fn a_declared_length_alone_allocates_nothing() {
    let mut decoder = FrameDecoder::new();
    let mut header = Bytes::from_static(&[1, 0x00, 0xa0, 0x00, 0x00]);
    assert_eq!(decoder.poll_frame(&mut header), Ok(None));
    assert_eq!((decoder.buffered(), decoder.capacity()), (HEADER_LEN, 0));
    assert_eq!(decoder.poll_frame(&mut Bytes::from_static(b"x")), Ok(None));
    assert_eq!((decoder.buffered(), decoder.capacity()), (HEADER_LEN + 1, 64));
}

#[test]
fn a_length_of_four_gibibytes_poisons_the_decoder_for_good() {
    let mut decoder = FrameDecoder::new();
    let mut chunk = Bytes::from_static(&[1, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0]);
    let refused = Err(DecodeError::TooLarge { declared: u32::MAX });
    assert_eq!(decoder.poll_frame(&mut chunk), refused);
    assert_eq!((decoder.buffered(), decoder.capacity()), (0, 0));
    assert_eq!(decoder.poll_frame(&mut chunk), refused);
    assert_eq!(decoder.poll_frame(&mut Bytes::new()), refused);
    assert_eq!(chunk.len(), 5, "a poisoned decoder takes nothing");
    assert!(format!("{decoder:?}").contains("TooLarge"));
}

#[test]
fn a_smaller_limit_holds_and_a_larger_one_does_not_lift_the_maximum() {
    let mut chunk = Bytes::from_static(&[1, 0, 0, 0, 4, 1, 2, 3, 4, 1, 0, 0, 0, 5]);
    let mut decoder = FrameDecoder::with_limit(4);
    assert_eq!(decoder.poll_frame(&mut chunk).unwrap().unwrap().payload.len(), 4);
    assert_eq!(decoder.poll_frame(&mut chunk), Err(DecodeError::TooLarge { declared: 5 }));

    let mut decoder = FrameDecoder::with_limit(usize::MAX);
    let mut chunk = Bytes::from_static(&[1, 0x00, 0xa0, 0x00, 0x01]);
    let declared = MAX_PAYLOAD as u32 + 1;
    assert_eq!(decoder.poll_frame(&mut chunk), Err(DecodeError::TooLarge { declared }));
}

#[test]
fn a_frame_within_one_chunk_is_not_copied() {
    let mut wire = BytesMut::new();
    encode(1, b"first", &mut wire).unwrap();
    encode(2, b"second", &mut wire).unwrap();
    let whole = wire.freeze();
    let (mut decoder, mut chunk) = (FrameDecoder::new(), whole.clone());
    for at in [HEADER_LEN, HEADER_LEN + 5 + HEADER_LEN] {
        let frame = decoder.poll_frame(&mut chunk).unwrap().unwrap();
        assert_eq!(frame.payload.as_ptr(), whole[at..].as_ptr());
    }
    let mut head = whole.slice(..HEADER_LEN);
    assert_eq!(decoder.poll_frame(&mut head), Ok(None));
    let frame = decoder.poll_frame(&mut whole.slice(HEADER_LEN..)).unwrap().unwrap();
    assert_eq!(frame.payload.as_ptr(), whole[HEADER_LEN..].as_ptr(), "nor one whose header is");
}

#[test]
fn ten_mebibytes_in_chunks_of_one_byte_are_gathered_with_few_allocations() {
    let mut wire = BytesMut::new();
    encode(1, &vec![0xa5; MAX_PAYLOAD], &mut wire).unwrap();
    let mut wire = wire.freeze();
    let (mut decoder, mut allocations, mut last) = (FrameDecoder::new(), 0, 0);
    let frame = loop {
        assert!(!wire.is_empty(), "the frame never ends");
        if let Some(frame) = decoder.poll_frame(&mut wire.split_to(1)).unwrap() {
            break frame;
        }
        if decoder.capacity() != last {
            last = decoder.capacity();
            allocations += 1;
            assert!(last <= MAX_PAYLOAD && last <= (2 * decoder.buffered()).max(64));
        }
    };
    assert!(allocations <= 20, "{allocations} allocations");
    assert_eq!((frame.payload.len(), decoder.buffered()), (MAX_PAYLOAD, 0));
}

#[test]
fn debug_shows_no_payload() {
    let frame = Frame { kind: 0x12, payload: Bytes::from_static(b"secret") };
    assert_eq!(format!("{frame:?}"), "Frame { kind: 0x12, payload: 6 bytes }");
    let mut decoder = FrameDecoder::new();
    let _ = decoder.poll_frame(&mut Bytes::from_static(b"\x01\0\0\0\x09secret"));
    assert_eq!(format!("{decoder:?}"), "Decoder { limit: 10485760, buffered: 11, failed: None }");
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split_of_the_bytes_gives_the_frames_that_were_encoded(
        frames in proptest::collection::vec(frame(), 0..8),
        cuts in proptest::collection::vec(0usize..300, 0..40),
    ) {
        let mut wire = wire_of(&frames).freeze();
        let (mut decoder, mut seen) = (FrameDecoder::new(), Vec::new());
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let mut chunk = wire.split_to(cut.min(wire.len()));
            seen.extend(drain(&mut decoder, &mut chunk).unwrap());
        }
        prop_assert_eq!(decoder.buffered(), 0);
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn a_truncated_stream_yields_whole_frames_and_an_error(
        frames in proptest::collection::vec(frame(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let wire = wire_of(&frames);
        let cut = cut.index(wire.len());
        let mut ends = Vec::new();
        for frame in &frames {
            ends.push(ends.last().unwrap_or(&0) + HEADER_LEN + frame.payload.len());
        }
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let boundary = if whole == 0 { 0 } else { ends[whole - 1] };

        let mut decoder = FrameDecoder::new();
        let seen = drain(&mut decoder, &mut wire.freeze().slice(..cut)).unwrap();
        prop_assert_eq!(&seen[..], &frames[..whole]);
        prop_assert_eq!(decoder.buffered(), cut - boundary);
    }

    #[test]
    fn every_step_over_arbitrary_bytes_consumes_needs_more_or_ends(
        bytes in proptest::collection::vec(prop_oneof![3 => Just(0u8), 2 => any::<u8>()], 0..400),
        size in 1usize..40,
        limit in 0usize..600,
    ) {
        let (mut decoder, mut taken) = (FrameDecoder::with_limit(limit), 0);
        for piece in bytes.chunks(size) {
            let mut chunk = Bytes::copy_from_slice(piece);
            loop {
                let before = chunk.len();
                match decoder.poll_frame(&mut chunk) {
                    Ok(Some(frame)) => {
                        taken += HEADER_LEN + frame.payload.len();
                        prop_assert!(chunk.len() < before || frame.payload.is_empty());
                        prop_assert!(frame.payload.len() <= limit);
                    }
                    Ok(None) => {
                        prop_assert!(chunk.is_empty());
                        break;
                    }
                    Err(error) => {
                        prop_assert_eq!(decoder.poll_frame(&mut chunk), Err(error));
                        return Ok(());
                    }
                }
                prop_assert!(decoder.buffered() <= HEADER_LEN + limit);
                prop_assert!(decoder.capacity() <= limit);
            }
        }
        prop_assert_eq!(taken + decoder.buffered(), bytes.len());
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(kind, payload)| Frame { kind, payload: payload.into() })
}

fn wire_of(frames: &[Frame]) -> BytesMut {
    let mut wire = BytesMut::new();
    for frame in frames {
        encode(frame.kind, &frame.payload, &mut wire).unwrap();
    }
    wire
}

fn drain(decoder: &mut FrameDecoder, chunk: &mut Bytes) -> Result<Vec<Frame>, DecodeError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.poll_frame(chunk)? {
        frames.push(frame);
    }
    Ok(frames)
}
