//! What the transport says of streams, routed to whom it concerns: the control stream, a stream
//! that is still opening, a request, or the application.

use std::time::Instant;

use super::Node;
use super::streams::{Receiving, Sending};
use crate::error::Code;
use crate::event::Event;
use crate::id::{PeerId, StreamId};
use crate::quic;

impl Node {
    pub(super) fn on_streams_opened(&mut self, id: PeerId, now: Instant) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let Some(link) = &mut peer.link else { return };
            let accepted = self.endpoint.stream(link.connection, quic::Connection::accept);
            let Some(index) = accepted.flatten() else { break };
            if peer.dialled.is_none() && link.control.stream.is_none() {
                link.control.stream = Some(index);
            } else {
                let due = now + self.config.limits.preface_timeout;
                link.streams.insert_arrived(index, due, now);
            }
            self.on_readable(id, index, now);
        }
        self.reindex(id);
    }

    pub(super) fn on_streams_available(&mut self, id: PeerId, now: Instant) {
        self.flush_queue(id, now);
        self.emit(Event::StreamsAvailable { peer: id });
    }

    pub(super) fn on_readable(&mut self, peer: PeerId, index: u64, now: Instant) {
        let Some(link) = self.peers.get_mut(&peer).and_then(|p| p.link.as_mut()) else { return };
        if link.control.stream == Some(index) {
            self.read_control(peer, now);
            return;
        }
        let id = StreamId { peer, connection: link.number, index };
        let Some(stream) = link.streams.get_mut(index) else { return };
        match stream.receiving {
            Receiving::Preface(_) => self.read_preface(id),
            Receiving::Request(request) => self.emit(Event::RequestProgressed { request }),
            Receiving::Answer(_) | Receiving::Raw | Receiving::Refused(_) => {
                self.emit(Event::StreamReadable { stream: id });
            }
            Receiving::Held(_) | Receiving::Offered | Receiving::Done => {}
        }
    }

    pub(super) fn on_writable(&mut self, peer: PeerId, index: u64, now: Instant) {
        let Some(link) = self.peers.get(&peer).and_then(|p| p.link.as_ref()) else { return };
        if link.control.stream == Some(index) {
            self.flush_control(peer, now);
            return;
        }
        let Some(id) = self.name(peer, index) else { return };
        if self.flush_ahead(id).is_pending() {
            return;
        }
        if let Some(Receiving::Request(request)) = self.stream_mut(id).map(|s| &s.receiving) {
            let request = *request;
            self.write_exchange(request);
        } else {
            self.emit(Event::StreamWritable { stream: id });
        }
    }

    pub(super) fn on_finished(&mut self, peer: PeerId, index: u64) {
        let Some(id) = self.name(peer, index) else { return };
        if let Some(stream) = self.stream_mut(id) {
            stream.sending = Sending::Done;
            self.emit(Event::StreamFinished { stream: id });
            self.reap(id);
        }
    }

    pub(super) fn on_stopped(&mut self, peer: PeerId, index: u64, code: Code) {
        let Some(id) = self.name(peer, index) else { return };
        let Some(connection) = self.link_of(id).map(|l| l.connection) else { return };
        let Some(stream) = self.stream_mut(id) else { return };
        if !matches!(stream.sending, Sending::Open | Sending::Finishing) {
            return;
        }
        let request = match stream.receiving {
            Receiving::Request(request) => Some(request),
            Receiving::Answer(_)
            | Receiving::Preface(_)
            | Receiving::Held(_)
            | Receiving::Offered
            | Receiving::Raw
            | Receiving::Refused(_)
            | Receiving::Done => None,
        };
        // The transport may hide the stop behind exhausted credit from whoever writes next: it is
        // remembered here until the application has seen it, which one that has finished never will.
        let is_awaited = stream.sending == Sending::Open && !stream.finish_after;
        stream.sending =
            if request.is_none() && is_awaited { Sending::Stopped(code) } else { Sending::Done };
        // The stream has to be reset in answer (RFC 9000 §3.5).
        self.endpoint.stream(connection, |c| c.reset(index, code));
        match request {
            Some(request) => self.on_exchange_stopped(request),
            None => self.emit(Event::StreamStopped { stream: id, code }),
        }
        self.reap(id);
    }
}
