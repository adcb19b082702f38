//! Streams that nobody reads beside one that flows, and long paths that one stream fills: what flow
//! control holds back, and what it must not hold back.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU64;
use std::task::Poll;
use std::time::Duration;

use adit_core::config::Transport;
use adit_core::id::StreamId;
use adit_core::testing::link::Conditions;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::Pair;
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
