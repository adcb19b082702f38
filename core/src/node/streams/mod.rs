//! Every stream of a node, by the peer of its connection.
//!
//! `table` has the purpose and the state of each stream, `open` begins streams, `transfer` reads,
//! writes and ends them, `reset` ends them with an error after their last byte, and `credit` limits
//! what the peer may leave unread. Requests use streams as any caller does. This owner decides how
//! much memory the incomplete request bodies of one peer may take.

mod api;
mod credit;
mod flow;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod open;
mod reassembly;
mod reset;
mod table;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::io::{Effect, Io};
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::id::{PeerId, RequestId, StreamId};
use crate::message::MessageKind;
use crate::quic::ConnectionId;
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::tls::{Credential, KeyDigest};
pub use api::{StreamError, StreamRef};
use bytes::Bytes;
use credit::{ReadReports, SendCredit};
pub(super) use flow::greeting;
#[cfg(any(test, feature = "testing"))]
pub(super) use invariants::Inspection;
use reassembly::Size;
use table::{Receiving, Sending, StreamState, StreamTable};

/// The streams of one peer's present connection.
#[derive(Debug)]
struct PeerStreams {
    connection: ConnectionId,
    /// Whether the peer may open streams for services and requests.
    has_services: bool,
    table: StreamTable,
    /// Bytes of request bodies that are held for this peer.
    held_bytes: usize,
    /// Streams of which the reset is not announced yet, since the peer allows no more streams.
    unannounced: VecDeque<u64>,
    credit: SendCredit,
    reports: ReadReports,
    /// What it may hold.
    most_bytes: usize,
    key: Option<KeyDigest>,
    /// What is held of the streams that are read as they arrive.
    arrived: Size,
}

/// All streams of a node.
#[derive(Debug, Default)]
pub(super) struct Streams {
    links: BTreeMap<PeerId, PeerStreams>,
    /// Why the latest connection of a peer ended.
    lost: BTreeMap<PeerId, Failure>,
    timers: Timers<PeerId>,
    /// When what was read is to be reported.
    report_timers: Timers<PeerId>,
    /// Bytes of request bodies that are held for all peers.
    held_in_all: usize,
}

impl Streams {
    /// Handles a connected peer.
    pub(super) fn on_up(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        has_services: bool,
        credential: Option<&Credential>,
        io: &Io,
    ) {
        let (table, limits) = (StreamTable::default(), &io.config.limits);
        let most_bytes = match credential.is_some_and(Credential::is_guest) {
            true => limits.request_bytes_of_a_guest,
            false => limits.request_bytes,
        };
        let key = credential.map(|credential| credential.key);
        let link = PeerStreams {
            connection,
            has_services,
            table,
            held_bytes: 0,
            unannounced: VecDeque::new(),
            credit: SendCredit::default(),
            reports: ReadReports::default(),
            most_bytes,
            key,
            arrived: Size::default(),
        };
        self.links.insert(peer, link);
    }

    /// Handles the lost connection of a peer, and of its streams.
    pub(super) fn on_down(&mut self, peer: PeerId, failure: Failure) {
        if let Some(link) = self.links.remove(&peer) {
            self.held_in_all -= link.held_bytes;
        }
        self.lost.insert(peer, failure);
        self.timers.set(peer, None);
        self.report_timers.set(peer, None);
    }

    /// Removes a peer that is over.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.lost.remove(&peer);
    }

    /// Returns the number of streams of a peer.
    pub(super) fn count(&self, peer: PeerId) -> usize {
        self.links.get(&peer).map_or(0, |link| link.table.len())
    }

    /// Returns the bytes of request bodies that are held for a peer.
    pub(super) fn held_bytes(&self, peer: PeerId) -> usize {
        self.links.get(&peer).map_or(0, |link| link.held_bytes)
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Deadline> {
        // The application reads between two inputs: a report may be due since the earlier one.
        let report = self.report_timers.next().map(|(at, reason)| (at.max(now), reason));
        earliest([self.timers.next(), report])
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        self.timers.pop_due(now).map(|(peer, _)| peer)
    }

    /// Handles data on a stream, its end or its reset.
    pub(super) fn on_readable(&mut self, peer: PeerId, index: u64, io: &mut Io) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let id = StreamId { peer, connection: link.connection.0, index };
        if !link.take_arrived(index, io) {
            return;
        }
        let Some(stream) = link.table.get_mut(index) else { return };
        match stream.receiving {
            Receiving::Header(_) => self.read_header(id, io),
            Receiving::Request(request) => io.emit(Event::RequestProgressed { request }),
            Receiving::Answer(_) | Receiving::Raw | Receiving::Refused(_) => {
                io.emit(Event::StreamReadable { stream: id });
            }
            Receiving::Held(_) | Receiving::Offered | Receiving::Arrived | Receiving::Done => {}
        }
    }

    /// Handles a stream that can be written again. Returns the request that it carries, if it does.
    pub(super) fn on_writable(
        &mut self,
        peer: PeerId,
        index: u64,
        io: &mut Io,
    ) -> Option<RequestId> {
        let id = self.id(peer, index)?;
        if self.flush_ahead(id, io).is_pending() {
            return None;
        }
        let request = self.request_on(id);
        if request.is_none() {
            io.emit(Event::StreamWritable { stream: id });
        }
        request
    }

    /// Handles the peer's acknowledgement of a whole finished stream.
    pub(super) fn on_finished(&mut self, peer: PeerId, index: u64, io: &mut Io) {
        let Some(id) = self.id(peer, index) else { return };
        let Some(link) = self.link_mut(id) else { return };
        let Some(stream) = link.table.get_mut(index) else { return };
        stream.sending = Sending::Done;
        link.credit.on_finished(index);
        io.emit(Event::StreamFinished { stream: id });
        self.reap(id);
    }

    /// Handles the peer's stop on a stream. Returns the request that it carries, if it does.
    pub(super) fn on_stopped(
        &mut self,
        peer: PeerId,
        index: u64,
        code: Code,
        io: &mut Io,
    ) -> Option<RequestId> {
        let id = self.id(peer, index)?;
        let request = self.request_on(id);
        let connection = self.link(id)?.connection;
        let stream = self.get_mut(id)?;
        if !matches!(stream.sending, Sending::Open | Sending::Finishing | Sending::Resetting(_)) {
            return None;
        }
        // The transport may hide the stop behind exhausted credit: it is remembered here until the
        // application has seen it, which one that has finished never will.
        let is_awaited = stream.sending == Sending::Open && !stream.finish_after;
        stream.sending =
            if request.is_none() && is_awaited { Sending::Stopped(code) } else { Sending::Done };
        // The stream has to be reset in answer (RFC 9000 §3.5).
        io.on(connection, |c| c.reset(index, code));
        self.link_mut(id)?.credit.on_reset(index);
        if request.is_none() {
            io.emit(Event::StreamStopped { stream: id, code });
        }
        self.reap(id);
        request
    }

    /// Adds a stream that carries one of this node's requests.
    pub(super) fn open_request(
        &mut self,
        peer: PeerId,
        request: RequestId,
        io: &mut Io,
    ) -> Option<StreamId> {
        let link = self.links.get_mut(&peer)?;
        let index = io.on(link.connection, crate::quic::Connection::open).flatten()?;
        let stream = StreamState::new(Receiving::Request(request), Bytes::new(), io.now());
        link.table.insert(index, stream);
        Some(StreamId { peer, connection: link.connection.0, index })
    }

    /// Hands a stream that carries a request of the peer to the responder. If the peer has stopped
    /// it already, the answer has no reader: the stream is ended, and this returns false.
    pub(super) fn on_request(&mut self, id: StreamId, request: RequestId, io: &mut Io) -> bool {
        let Some(stream) = self.get_mut(id) else { return false };
        if let Sending::Stopped(code) = stream.sending {
            self.reset(id, code, io);
            self.stop(id, Code::Closed, io);
            return false;
        }
        self.set_received(id, Receiving::Request(request), io);
        true
    }

    /// Continues with request bodies that waited for room, oldest first.
    pub(super) fn on_body_released(&mut self, peer: PeerId, io: &mut Io) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(index) = link.table.first_held() else { return };
        let id = StreamId { peer, connection: link.connection.0, index };
        if let Some(stream) = link.table.get_mut(index) {
            stream.unhold();
        }
        self.read_header(id, io);
        let is_held = |stream: &StreamState| matches!(stream.receiving, Receiving::Held(_));
        if !self.get(id).is_some_and(is_held) {
            // There may be room for the next one as well.
            io.effect(Effect::BodyReleased { peer });
        }
    }

    /// Returns true if the body that a stream declares must wait, and charges its length to the
    /// budget otherwise. A body is charged once, when its length is known and before any of it is
    /// read.
    fn holds_back(&mut self, id: StreamId, io: &mut Io) -> bool {
        let Some(link) = self.link_mut(id) else { return false };
        let (held, limit) = (link.held_bytes, link.most_bytes);
        let Some(stream) = link.table.get_mut(id.index) else { return false };
        let Receiving::Header(decoder) = &stream.receiving else { return false };
        let Some(header) = decoder.header() else { return false };
        if stream.charged > 0 || MessageKind::from_wire(header.kind) != Some(MessageKind::Request) {
            return false;
        }
        let length = header.length as usize;
        if held > 0 && held + length > limit {
            stream.hold();
            return true;
        }
        stream.charged = length;
        link.held_bytes += length;
        self.held_in_all += length;
        for peer in self.over_budget(io.config.limits.request_bytes_in_all) {
            let sentence = "the node has no memory left, and this peer's requests hold the most";
            let failure = Failure::new(Code::Overloaded, sentence);
            io.effect(Effect::Close { peer, failure });
        }
        false
    }

    /// Returns the peers without which the request bodies of all are within the limit: each time
    /// the one with the most bytes, of the key that has the most.
    fn over_budget(&self, limit: usize) -> BTreeSet<PeerId> {
        let (mut over, mut held) = (BTreeSet::new(), self.held_in_all);
        while held > limit {
            let rest = || self.links.iter().filter(|(peer, _)| !over.contains(*peer));
            let mut keys: BTreeMap<Option<KeyDigest>, usize> = BTreeMap::new();
            for (_, link) in rest() {
                *keys.entry(link.key).or_default() += link.held_bytes;
            }
            let Some((key, _)) = keys.into_iter().max_by_key(|(_, held)| *held) else { break };
            let of_the_key = rest().filter(|(_, link)| link.key == key);
            let Some((peer, link)) = of_the_key.max_by_key(|(_, link)| link.held_bytes) else {
                break;
            };
            held -= link.held_bytes;
            over.insert(*peer);
        }
        over
    }

    /// Releases the bytes that the body of a request was charged.
    fn release(&mut self, id: StreamId, io: &mut Io) {
        let Some(link) = self.link_mut(id) else { return };
        let Some(stream) = link.table.get_mut(id.index) else { return };
        let charged = std::mem::take(&mut stream.charged);
        if charged > 0 {
            link.held_bytes = link.held_bytes.saturating_sub(charged);
            let has_waiting = link.table.first_held().is_some();
            self.held_in_all = self.held_in_all.saturating_sub(charged);
            if has_waiting {
                io.effect(Effect::BodyReleased { peer: id.peer });
            }
        }
    }

    /// Sets the state of the receiving direction, and removes a stream that is over.
    fn set_received(&mut self, id: StreamId, receiving: Receiving, io: &mut Io) {
        if matches!(receiving, Receiving::Done) {
            self.release(id, io);
            self.on_read_over(id, false, io);
        }
        let Some(link) = self.link_mut(id) else { return };
        if matches!(receiving, Receiving::Done) {
            link.discard_arrived(id.index);
        }
        if let Some(stream) = link.table.get_mut(id.index) {
            stream.receiving = receiving;
        }
        self.reap(id);
    }

    fn link(&self, id: StreamId) -> Option<&PeerStreams> {
        self.links.get(&id.peer).filter(|link| link.connection.0 == id.connection)
    }

    fn link_mut(&mut self, id: StreamId) -> Option<&mut PeerStreams> {
        self.links.get_mut(&id.peer).filter(|link| link.connection.0 == id.connection)
    }

    fn get(&self, id: StreamId) -> Option<&StreamState> {
        self.link(id)?.table.get(id.index)
    }

    fn get_mut(&mut self, id: StreamId) -> Option<&mut StreamState> {
        self.link_mut(id)?.table.get_mut(id.index)
    }

    fn request_on(&self, id: StreamId) -> Option<RequestId> {
        if let Receiving::Request(request) = self.get(id)?.receiving { Some(request) } else { None }
    }

    fn id(&self, peer: PeerId, index: u64) -> Option<StreamId> {
        let connection = self.links.get(&peer)?.connection.0;
        Some(StreamId { peer, connection, index })
    }

    fn reap(&mut self, id: StreamId) {
        if let Some(link) = self.links.get_mut(&id.peer) {
            link.table.reap(id.index);
        }
    }

    fn reindex(&mut self, peer: PeerId) {
        let due = self.links.get_mut(&peer).and_then(|link| link.table.deadline());
        self.timers.set(peer, due.map(|at| (at, Reason::Header)));
    }

    /// Returns why a stream that is not in the table has no data.
    fn gone(&self, id: StreamId) -> StreamError {
        if self.link(id).is_some() {
            return StreamError::Closed;
        }
        let failure = self.lost.get(&id.peer).cloned();
        StreamError::ConnectionLost(
            failure.unwrap_or_else(|| Failure::new(Code::Closed, "the peer is gone")),
        )
    }
}
