//! Whole worlds out of bytes: the bodies of the fuzz targets `operations` and `wire`.
//!
//! Decides how bytes become a world, and fails by panicking. Never makes up input: that comes from
//! the fuzzer, or from the corpus that the tests replay.

use std::time::Duration;

use bytes::BytesMut;

use super::net::HostId;
use super::op::Op;
use super::pair::{Flow, Pair, is_connected};
use super::phases::HEALED_WITHIN;
use super::play::play;
use crate::event::Event;
use crate::id::PeerId;
use crate::lifecycle::State;
use crate::node::Input;
use crate::retry::Policy;
use crate::testing::link::Conditions;
use crate::transmit::{Datagram, Route};

/// Most operations of one world: more make it slower, not richer.
const MAX_OPS: usize = 300;

/// Runs a world of two with any operations, and heals it.
///
/// The first byte of `data` is the seed, every four bytes after it are one operation.
pub fn operations(data: &[u8]) {
    let Some((&seed, rest)) = data.split_first() else { return };
    let ops = Op::parse(rest);
    let _ = play(seed.into(), &ops[..ops.len().min(MAX_OPS)]);
}

/// A handshake and a connection with packets that are tampered with, repeated, reflected and
/// forged: data arrives unchanged, and in the end the two are connected.
///
/// Every four bytes of `data` are one action; forged packets take their bytes from the rest.
pub fn wire(data: &[u8]) {
    let mut pair = Pair::with(1, Conditions::default(), |a| a.retry(Policy::persistent()), |c| c);
    let to_connector = pair.dial();
    pair.world.settle();
    let mut rest = data;
    for _ in 0..MAX_OPS {
        let Some((&deed, after)) = rest.split_first_chunk() else { break };
        rest = inject_fault(&mut pair, to_connector, deed, after);
        for host in [pair.agent, pair.connector] {
            pair.world.node(host).audit();
        }
    }
    heal(&mut pair, to_connector);
}

fn inject_fault<'a>(
    pair: &mut Pair,
    peer: PeerId,
    [what, which, at, with]: [u8; 4],
    rest: &'a [u8],
) -> &'a [u8] {
    let world = &mut pair.world;
    let count = world.net().under_way().max(1);
    let mut packets = world.net_mut().under_way_mut();
    let packet = packets.nth(usize::from(which) % count);
    match what % 8 {
        0 => {
            if let Some(packet) = packet {
                let at = usize::from(at) * 6 % packet.payload.len().max(1);
                packet.payload.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= with);
            }
        }
        1 => {
            if let Some(packet) = packet {
                packet.payload.truncate(usize::from(at) * 6);
            }
        }
        2 => {
            // To its receiver once more, or back to its sender.
            if let Some(packet) = packet.cloned() {
                drop(packets);
                let (from, to) =
                    if at & 1 == 0 { (packet.from, packet.to) } else { (packet.to, packet.from) };
                if let Some(host) = world.net().owner(to) {
                    let payload = BytesMut::from(&packet.payload[..]);
                    deliver(pair, host, from, payload);
                }
            }
        }
        3 => {
            drop(packets);
            let (made_up, after) = rest.split_at(rest.len().min(usize::from(which)));
            let (host, other) = if at & 1 == 0 {
                (pair.agent, pair.connector)
            } else {
                (pair.connector, pair.agent)
            };
            let from = pair.world.net().address(other);
            deliver(pair, host, from, BytesMut::from(made_up));
            return after;
        }
        4 => {
            drop(packets);
            world.run_for(Duration::from_millis(1 << (which % 13)));
        }
        5 => {
            drop(packets);
            // Only with a connection, and while the peer allows more streams.
            if let Ok(Some(stream)) = pair.agent().open(peer, "db".parse().expect("a name")) {
                let mut bytes = super::pair::pattern(0, 20 * u64::from(which));
                let _ = pair.agent().stream(stream).write(&mut bytes);
            }
            pair.world.settle();
        }
        _ => {
            drop(packets);
            let until = world.now() + Duration::from_secs(1);
            for _ in 0..=which % 16 {
                world.step(until);
            }
        }
    }
    rest
}

fn deliver(pair: &mut Pair, host: HostId, from: std::net::SocketAddr, payload: BytesMut) {
    let datagram = Datagram { route: Route::to(from), ecn: None, segment_size: 0, payload };
    pair.world.handle(host, Input::Datagram(datagram));
}

fn heal(pair: &mut Pair, peer: PeerId) {
    let (agent, connector) = (pair.agent, pair.connector);
    let (node, now) = pair.world.node_mut(agent);
    if matches!(node.state(peer), Some(State::Failed { .. })) {
        // A forged version negotiation can end a handshake permanently (RFC 9000 section 6.2).
        node.reconnect(peer, now).expect("it had failed");
    }
    pair.world.run_for(HEALED_WITHIN);
    assert!(is_connected(&pair.world, agent, peer), "it was not healed");
    while pair.world.poll_event(connector).is_some() {}
    let name = "healed".parse().expect("a name");
    let ours = pair.agent().open(peer, name).expect("connected").expect("a stream is left");
    let mut theirs = None;
    pair.wait("the stream to be offered", |world| {
        while let Some(event) = world.poll_event(connector) {
            if let Event::StreamOffered { stream, service } = event
                && service.as_str() == "healed"
            {
                theirs = Some(stream);
            }
        }
        theirs.is_some()
    });
    let theirs = theirs.expect("the wait was for it");
    pair.connector().accept_stream(theirs).expect("it was offered");
    let mut up = Flow::new((agent, ours), (connector, theirs), 10_000);
    let mut down = Flow::new((connector, theirs), (agent, ours), 10_000);
    pair.wait("the bytes", |world| up.advance(world) & down.advance(world));
}
