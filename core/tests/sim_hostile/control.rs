//! Control streams and datagrams with too much, too little or wrong content.

use std::time::Duration;

use adit_core::error::Code;
use adit_core::message::{Message, Open, StreamMessage};
use bytes::BytesMut;

use crate::scene::{SECOND, Scene, framed, heartbeat};

#[test]
fn a_control_frame_that_is_cut_short_closes_the_connection() {
    let mut scene = Scene::new(1);
    let control = scene.control();
    scene.raw.write(control, &[0x01, 0, 0, 0, 50, b'{']);
    scene.raw.finish(control);
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_control_frame_of_four_gigabytes_closes_the_connection() {
    let mut scene = Scene::new(2);
    let control = scene.control();
    scene.raw.write(control, &[0x01, 0xff, 0xff, 0xff, 0xff]);
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_control_frame_at_its_limit_is_taken_and_one_byte_more_is_not() {
    for (length, is_taken) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let mut scene = Scene::new(3);
        let control = scene.control();
        let frame = framed(0x7f, &vec![0; length]);
        let mut sent = 0;
        for _ in 0..100 {
            sent += scene.raw.write(control, &frame[sent..]);
            scene.run(Duration::from_millis(50));
        }
        if is_taken {
            assert_eq!(scene.peer().unwrap().unknown_frames, 1);
            scene.end();
        } else {
            scene.is_closed(Code::ProtocolViolation);
        }
    }
}

#[test]
fn control_frames_of_unknown_kinds_are_counted_and_skipped() {
    let mut scene = Scene::new(4);
    let control = scene.control();
    for kind in [0x00, 0x0f, 0x2b, 0x7f, 0xff] {
        scene.raw.write(control, &framed(kind, b"whatever"));
    }
    scene.raw.write(control, &heartbeat(1));
    scene.run(SECOND);
    assert_eq!(scene.peer().unwrap().unknown_frames, 5);
    let answers = scene.raw.read(control);
    assert_eq!(answers.first(), Some(&0x17), "the greeting");
    assert_eq!(answers.get(13), Some(&0x02), "the heartbeat is answered");
    scene.end();
}

#[test]
fn invalid_control_frames_close_the_connection() {
    let nested = |n: usize| [b"{\"vitals\":".as_slice(), &b"[".repeat(n), b"}"].concat();
    let mut open = BytesMut::new();
    Message::Stream(StreamMessage::Open(Open { service: "db".parse().unwrap(), origin: None }))
        .encode(&mut open)
        .unwrap();
    for bytes in [
        framed(0x01, b"\xff\xfe{}"),
        framed(0x01, b"{\"device_id\":\"\xc3\x28\",\"timestamp\":1,\"sequence\":1}"),
        framed(0x01, &nested(200)),
        framed(0x01, &nested(60_000)),
        framed(0x01, b"[]"),
        framed(0x01, b""),
        framed(0x15, b"{"),
        open.to_vec(),
    ] {
        let mut scene = Scene::new(5);
        let control = scene.control();
        scene.raw.write(control, &bytes);
        scene.is_closed(Code::ProtocolViolation);
    }
}

#[test]
fn a_control_stream_that_is_reset_closes_the_connection() {
    let mut scene = Scene::new(6);
    let control = scene.control();
    scene.raw.reset(control);
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn a_stopped_control_stream_closes_the_connection_on_the_next_message() {
    let mut scene = Scene::new(7);
    let control = scene.control();
    scene.raw.stop(control);
    scene.raw.write(control, &heartbeat(1));
    scene.is_closed(Code::ProtocolViolation);
}

#[test]
fn heartbeats_without_end_and_never_an_answer_read_take_bounded_memory() {
    let mut scene = Scene::new(8);
    let control = scene.control();
    for sequence in 0..20_000 {
        scene.raw.write(control, &heartbeat(sequence));
        if sequence % 10 == 0 {
            scene.run(SECOND / 10);
        }
    }
    scene.run(5 * SECOND);
    scene.end();
}

#[test]
fn heartbeats_in_datagrams_without_end_close_the_connection_of_a_peer_that_does_not_read() {
    let mut scene = Scene::new(23);
    scene.control();
    for sequence in 0..900 {
        scene.raw.send_datagram(&[&[0][..], &heartbeat(sequence)].concat());
    }
    scene.is_closed(Code::ProtocolViolation);
    assert!(scene.closed.unwrap().detail().contains("without reading"));
}

#[test]
fn one_control_frame_beyond_a_thousand_closes_the_connection() {
    for (frames, is_taken) in [(1_000, true), (1_001, false)] {
        let mut scene = Scene::new(31);
        let control = scene.control();
        scene.raw.write(control, &framed(0x7f, b"").repeat(frames));
        // What arrives within the time of one token is one burst.
        scene.run(Duration::from_millis(12));
        if is_taken {
            assert_eq!(scene.peer().unwrap().unknown_frames, 1_000);
            scene.end();
        } else {
            scene.is_closed(Code::ProtocolViolation);
        }
    }
}

#[test]
fn control_frames_in_datagrams_count_together_with_those_of_the_stream() {
    for (frames, is_taken) in [(500, true), (501, false)] {
        let mut scene = Scene::new(32);
        let control = scene.control();
        scene.raw.write(control, &framed(0x7f, b"").repeat(500));
        for _ in 0..frames {
            scene.raw.send_datagram(&[&[0][..], &framed(0x7f, b"")].concat());
        }
        scene.run(Duration::from_millis(12));
        if is_taken {
            assert_eq!(scene.peer().unwrap().unknown_frames, 1_000);
            scene.end();
        } else {
            scene.is_closed(Code::ProtocolViolation);
        }
    }
}

#[test]
fn a_control_frame_counts_as_one_for_each_kib_it_has_begun() {
    // 65 each, and all of them arrive well within a second, in which a hundred come back.
    for (frames, is_taken) in [(15, true), (19, false)] {
        let mut scene = Scene::new(33);
        let control = scene.control();
        let all = framed(0x7f, &[0; 64 << 10]).repeat(frames);
        assert_eq!(scene.raw.write(control, &all), all.len());
        scene.run(5 * SECOND);
        if is_taken {
            assert_eq!(scene.peer().unwrap().unknown_frames, 15);
            scene.end();
        } else {
            scene.is_closed(Code::ProtocolViolation);
        }
    }
}

#[test]
fn a_peer_that_falls_silent_is_lost_at_the_idle_timeout() {
    let mut scene = Scene::new(9);
    scene.control();
    // The victim's own keep-alive, sent after ten seconds, is the last packet that restarts the
    // timer.
    scene.run_without(69 * SECOND);
    assert!(scene.peer().is_some());
    scene.run_without(2 * SECOND);
    assert!(scene.peer().is_none());
    assert_eq!(scene.closed.as_ref().unwrap().code(), Code::TimedOut);
    scene.end();
}

#[test]
fn endless_empty_frames_leave_no_state() {
    let mut scene = Scene::new(19);
    let control = scene.control();
    for n in 0..10_000 {
        scene.raw.write(control, &framed(0x7f, b""));
        scene.raw.send_datagram(b"");
        scene.raw.send_datagram(&[2, 3, 4]);
        scene.raw.send_datagram(&[0, 1, 0, 0]);
        if n % 50 == 0 {
            scene.run(SECOND);
        }
    }
    scene.run(10 * SECOND);
    let peer = scene.peer().unwrap();
    assert_eq!((peer.unknown_frames, peer.streams, peer.datagrams_dropped), (10_000, 0, 0));
    scene.end();
}

#[test]
fn datagrams_beyond_the_cap_push_out_the_oldest() {
    let mut scene = Scene::new(20);
    scene.control();
    for number in 0..3_000_u32 {
        scene.raw.send_datagram(&[&[1][..], &number.to_be_bytes(), &[0; 996]].concat());
        if number % 20 == 0 {
            scene.run(Duration::from_millis(20));
        }
    }
    scene.run(5 * SECOND);
    let dropped = scene.peer().unwrap().datagrams_dropped;
    let (node, _) = scene.world.node_mut(scene.victim);
    let kept: Vec<_> = std::iter::from_fn(|| node.recv_datagram(scene.raw_peer)).collect();
    assert!(kept.len() <= (1 << 20) / 1_000 && kept.len() > 900, "{}", kept.len());
    assert!(dropped >= 1_900, "{dropped}");
    assert_eq!(kept.last().unwrap()[..4], 2_999_u32.to_be_bytes());
    scene.end();
}
