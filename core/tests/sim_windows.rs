//! Streams that nobody reads beside one that flows, and long paths that one stream fills: what flow
//! control holds back, and what it must not hold back.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU64;
use std::task::Poll;
use std::time::Duration;

use adit_core::config::Transport;
use adit_core::id::StreamId;
use adit_core::testing::link::{Conditions, Loss};
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{Flow, Pair};
use adit_core::testing::world::World;
use bytes::Bytes;

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

/// One direction of a stream whose writer never has enough.
struct Bulk {
    writer: (HostId, StreamId),
    reader: (HostId, StreamId),
    written: usize,
    read: usize,
}

impl Bulk {
    /// Returns the direction from the connector to the agent of a new stream.
    fn down(pair: &mut Pair, peer: adit_core::id::PeerId) -> Self {
        let (ours, theirs) = pair.open(peer, "source");
        let (writer, reader) = ((pair.connector, theirs), (pair.agent, ours));
        Self { writer, reader, written: 0, read: 0 }
    }

    /// Returns the direction from the agent to the connector of a new stream.
    fn up(pair: &mut Pair, peer: adit_core::id::PeerId) -> Self {
        let Self { writer, reader, .. } = Self::down(pair, peer);
        Self { writer: reader, reader: writer, written: 0, read: 0 }
    }

    fn write(&mut self, world: &mut World) {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        let (node, _) = world.node_mut(self.writer.0);
        while let Poll::Ready(taken) =
            node.stream(self.writer.1).write(&mut Bytes::from_static(&ZEROES))
        {
            self.written += taken.unwrap();
        }
    }

    fn read(&mut self, world: &mut World) {
        let (node, _) = world.node_mut(self.reader.0);
        while let Poll::Ready(chunk) = node.stream(self.reader.1).read(MIB) {
            self.read += chunk.unwrap().unwrap().len();
        }
    }

    /// Writes and reads until so many bytes more have arrived. Returns the time that took.
    fn flow(&mut self, pair: &mut Pair, bytes: usize) -> Duration {
        let (start, until) = (pair.world.now(), pair.world.now() + 600 * SECOND);
        let wanted = self.read + bytes;
        pair.world.settle();
        loop {
            self.write(&mut pair.world);
            self.read(&mut pair.world);
            if self.read >= wanted {
                return pair.world.now() - start;
            }
            assert!(pair.world.step(until), "{} of {wanted} bytes", self.read);
        }
    }
}

fn link(latency: u64, bytes_per_second: u64) -> Conditions {
    Conditions {
        latency: Duration::from_millis(latency),
        bandwidth: NonZeroU64::new(bytes_per_second),
        queue: 256 << 10,
        ..Conditions::default()
    }
}

/// Opens streams that are written to and never read; returns the bytes that each holds.
fn stall(pair: &mut Pair, peer: adit_core::id::PeerId, count: usize) -> Vec<usize> {
    let mut stalled: Vec<_> = (0..count)
        .map(|_| {
            let mut bulk = Bulk::down(pair, peer);
            bulk.write(&mut pair.world);
            bulk
        })
        .collect();
    pair.world.run_for(SECOND);
    loop {
        let before: usize = stalled.iter().map(|bulk| bulk.written).sum();
        stalled.iter_mut().for_each(|bulk| bulk.write(&mut pair.world));
        pair.world.run_for(SECOND);
        let written = stalled.iter().map(|bulk| bulk.written);
        if written.clone().sum::<usize>() == before {
            return written.collect();
        }
    }
}

fn many_streams() -> Transport {
    Transport::default().max_streams(16_384)
}

#[test]
fn ten_thousand_stalled_streams_leave_one_flowing_at_full_speed() {
    let conditions = link(20, 12_500_000);
    let mut pair = Pair::with(
        1,
        conditions,
        |agent| agent.transport(many_streams()),
        |connector| connector.transport(many_streams()),
    );
    let (peer, _) = pair.connect();
    let mut early = Bulk::down(&mut pair, peer);
    let alone = early.flow(&mut pair, 24 * MIB);
    let held = stall(&mut pair, peer, 10_000);
    // A stream always holds its reserve, its header included; the rest is shared.
    let reserve = (8 << 10) - 5;
    assert!(held.iter().all(|&bytes| bytes >= reserve));
    let shared = held.iter().map(|bytes| bytes - reserve).sum::<usize>();
    assert!(shared <= 16 * MIB, "{shared}");
    let beside = early.flow(&mut pair, 24 * MIB);
    assert!(beside < alone.mul_f64(1.1), "{alone:?} alone, {beside:?} beside stalled streams");
    let mut late = Bulk::down(&mut pair, peer);
    let late = late.flow(&mut pair, 24 * MIB);
    assert!(late < alone + SECOND, "{alone:?} alone, {late:?} opened after stalled streams");
}

#[test]
fn one_stream_fills_a_gigabit_over_a_hundred_milliseconds_in_both_directions() {
    // Large packets: 12.5 MB in flight are what counts here.
    let conditions = Conditions { mtu: 16_400, queue: 16 * MIB, ..link(50, 125_000_000) };
    let mut pair = Pair::with(2, conditions, |agent| agent, |connector| connector);
    let (peer, _) = pair.connect();
    for is_up in [false, true] {
        let mut bulk = if is_up { Bulk::up(&mut pair, peer) } else { Bulk::down(&mut pair, peer) };
        bulk.flow(&mut pair, 48 * MIB);
        let took = bulk.flow(&mut pair, 24 * MIB);
        let rate = (24 * MIB) as f64 / took.as_secs_f64();
        assert!(rate > 0.85 * 125e6, "{rate} bytes a second, up: {is_up}");
    }
}

#[test]
fn a_lossy_and_reordered_path_gives_every_byte_in_order() {
    let conditions = Conditions {
        loss: Loss::Random(0.05),
        reorder: 0.1,
        duplicate: 0.02,
        ..link(20, 12_500_000)
    };
    let mut pair = Pair::with(3, conditions, |agent| agent, |connector| connector);
    let (peer, _) = pair.connect();
    let (ours, theirs) = pair.open(peer, "db");
    let (a, c) = ((pair.agent, ours), (pair.connector, theirs));
    let (mut up, mut down) = (Flow::new(a, c, 1 << 20), Flow::new(c, a, 1 << 20));
    pair.wait("both megabytes", |world| up.advance(world) & down.advance(world));
}

#[test]
fn streams_that_stop_being_read_hold_what_their_path_needed_and_leave_room() {
    let mut pair = Pair::with(4, link(20, 12_500_000), |agent| agent, |connector| connector);
    let (peer, _) = pair.connect();
    let mut first = Bulk::down(&mut pair, peer);
    let alone = first.flow(&mut pair, 12 * MIB);
    let mut held = 0;
    for _ in 0..30 {
        let mut bulk = Bulk::down(&mut pair, peer);
        bulk.flow(&mut pair, 3 * MIB);
        for _ in 0..10 {
            bulk.write(&mut pair.world);
            pair.world.run_for(SECOND / 10);
        }
        // Two congestion windows, of the path and its queue, and 512 KiB.
        let unread = bulk.written - bulk.read;
        assert!(unread < 3 * MIB, "{unread}");
        held += unread;
    }
    assert!(held <= 33 * MIB, "{held}");
    let beside = first.flow(&mut pair, 12 * MIB);
    assert!(beside < alone.mul_f64(1.1), "{alone:?} alone, {beside:?} beside stalled streams");
    // What was written before the reader stopped arrives.
    let mut bulk = Bulk::down(&mut pair, peer);
    bulk.write(&mut pair.world);
    pair.world.run_for(SECOND);
    bulk.read(&mut pair.world);
    assert_eq!(bulk.written, bulk.read);
}
