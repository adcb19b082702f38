//! Measures how fast one core encodes and decodes: frames per second when small, bytes per second
//! when large. It has no pass or fail.

use std::hint::black_box;

use adit_core::frame::{self, FrameDecoder, HEADER_LEN};
use adit_core::message::{ControlMessage, Heartbeat, Message};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};

/// Size of a heartbeat in bytes.
const SMALL: usize = 64;
const LARGE: usize = 64 * 1024;
/// Bytes that a full QUIC packet delivers in one batch.
const PACKET: usize = 1200;
const BATCH: usize = 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    small_frames(&mut criterion);
    large_frames(&mut criterion);
    heartbeats(&mut criterion);
    criterion.final_summary();
}

fn small_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames of 64 bytes");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (payload, mut out) = ([0xa5; SMALL], BytesMut::new());
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            encode(BATCH, &payload, &mut out);
            black_box(&out);
        });
    });
    let wire = out.split().freeze();
    group.bench_function("decode", |b| b.iter(|| decode(&wire, usize::MAX)));
    group.bench_function("decode from packets", |b| b.iter(|| decode(&wire, PACKET)));
    group.bench_function("encode and decode", |b| {
        b.iter(|| {
            encode(BATCH, &payload, &mut out);
            decode(&out.split().freeze(), usize::MAX);
        });
    });
}

fn large_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames of 64 KiB");
    group.throughput(Throughput::Bytes((HEADER_LEN + LARGE) as u64));
    let (payload, mut out) = (vec![0xa5; LARGE], BytesMut::new());
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            encode(1, &payload, &mut out);
            black_box(&out);
        });
    });
    let wire = out.split().freeze();
    group.bench_function("decode", |b| b.iter(|| decode(&wire, usize::MAX)));
    group.bench_function("decode from packets", |b| b.iter(|| decode(&wire, PACKET)));
    group.bench_function("encode and decode", |b| {
        b.iter(|| {
            encode(1, &payload, &mut out);
            decode(&out.split().freeze(), usize::MAX);
        });
    });
}

fn heartbeats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heartbeat messages");
    group.throughput(Throughput::Elements(1));
    let heartbeat = Message::Control(ControlMessage::Heartbeat(Heartbeat {
        device_id: "device-7".to_owned(),
        timestamp: 1_767_225_600_000,
        sequence: 42,
        vitals: None,
    }));
    let mut out = BytesMut::new();
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            black_box(&heartbeat).encode(&mut out).expect("within every limit");
        });
    });
    let payload = out.split().freeze().slice(HEADER_LEN..);
    group.bench_function("decode", |b| {
        b.iter(|| black_box(Message::decode(0x01, payload.clone())).expect("a heartbeat"));
    });
}

fn encode(count: usize, payload: &[u8], out: &mut BytesMut) {
    for _ in 0..count {
        frame::encode(0x01, black_box(payload), out).expect("within the limit");
    }
}

fn decode(wire: &Bytes, size: usize) {
    let (mut decoder, mut rest) = (FrameDecoder::new(), wire.clone());
    while !rest.is_empty() {
        let mut chunk = rest.split_to(size.min(rest.len()));
        while let Some(frame) = decoder.poll_frame(&mut chunk).expect("within the limit") {
            black_box(frame);
        }
    }
}
