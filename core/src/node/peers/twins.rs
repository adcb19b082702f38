//! Connections of one device: a device that connects again may have been started again, and its
//! earlier connections are then without a process. Their streams would stay until the idle timeout.
//!
//! It decides which of them are asked for a sign of life, and how long they have to give one. A
//! device may have several connections: those that answer stay.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Peers;
use super::peer::PeerEntry;
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::node::io::{Effect, Io};
use crate::quic;
use crate::tls::KeyDigest;

/// How long an earlier connection has for a sign of life: ten probes of a silent peer, and longer
/// than a change of networks takes.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Most earlier connections that are asked when a device connects: a device that connects without
/// end must not make this node ask all of them each time.
const MAX_ASKED: usize = 8;

/// The connected peers that dialled this node, by the key that each proved when it connected.
#[derive(Debug, Default)]
pub(super) struct Twins(BTreeSet<(KeyDigest, PeerId)>);

impl Twins {
    pub(super) fn insert(&mut self, key: KeyDigest, id: PeerId) {
        self.0.insert((key, id));
    }

    pub(super) fn remove(&mut self, key: KeyDigest, id: PeerId) {
        self.0.remove(&(key, id));
    }

    /// Returns the others with a key, oldest first.
    fn others(&self, key: KeyDigest, id: PeerId) -> impl Iterator<Item = PeerId> {
        let of_key = (key, PeerId(0))..(key, id);
        self.0.range(of_key).map(|&(_, other)| other)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A question for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    asked: Instant,
    pub(super) due: Instant,
}

/// Asks the earlier connections of a device for a sign of life.
pub(super) fn ask(peers: &mut Peers, key: KeyDigest, id: PeerId, io: &mut Io) {
    let now = io.now();
    let is_free = |id: &PeerId| peers.all.get(id).is_some_and(|peer| peer.question.is_none());
    let twins: Vec<_> = peers.twins.others(key, id).filter(is_free).take(MAX_ASKED).collect();
    for twin in twins {
        let Some(peer) = peers.all.get_mut(&twin) else { continue };
        let Some(link) = &peer.link else { continue };
        peer.question = Some(Question { asked: now, due: now + SIGN_OF_LIFE });
        io.on(link.connection, quic::Connection::ping);
        peers.reindex(twin);
    }
}

/// Closes an earlier connection that gave no sign of life in time.
pub(super) fn judge(peer: &mut PeerEntry, io: &mut Io) {
    let now = io.now();
    let Some(question) = peer.question.take_if(|question| question.due <= now) else { return };
    let Some(link) = &peer.link else { return };
    let heard = io.quic.get(link.connection).map(quic::Connection::last_heard);
    if heard.is_none_or(|heard| heard <= question.asked) {
        let sentence = "the device connected again, and this connection of it is silent";
        let failure = Failure::new(Code::HeartbeatLost, sentence);
        io.effect(Effect::Close { peer: peer.id, failure });
    }
}
