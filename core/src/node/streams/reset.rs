//! The end of a direction by an error that the peer sees after its last byte.
//!
//! RESET_STREAM discards what the peer has not read (RFC 9000 §3.2). The sender announces the
//! length of its direction on a stream of its own instead. The peer reads so far, and stops the
//! direction. The owner of the stream decides how long that may take.

use super::Streams;
use super::open::encoded;
use super::table::{Receiving, Sending, StreamState};
use crate::error::Code;
use crate::event::Event;
use crate::id::{PeerId, StreamId};
use crate::message::{Message, ResetAt, StreamMessage};
use crate::node::io::Io;
use crate::quic;

impl Streams {
    /// Abandons our direction once the peer has read what was written.
    pub(in crate::node) fn reset_at_end(&mut self, id: StreamId, code: Code, io: &mut Io) {
        let Some(link) = self.link_mut(id) else { return };
        let Some(stream) = link.table.get_mut(id.index) else { return };
        if stream.sending == Sending::Open && stream.written > 0 {
            stream.sending = Sending::Resetting(code);
            link.unannounced.push_back(id.index);
            self.announce_resets(id.peer, io);
        } else if matches!(stream.sending, Sending::Open | Sending::Stopped(_)) {
            self.reset(id, code, io);
        }
    }

    /// Announces resets as far as the peer allows streams.
    pub(in crate::node) fn announce_resets(&mut self, peer: PeerId, io: &mut Io) {
        while let Some(link) = self.links.get_mut(&peer) {
            let Some(&index) = link.unannounced.front() else { return };
            let stream = link.table.get(index).map(|s| (s.sending, s.written));
            if let Some((Sending::Resetting(code), offset)) = stream {
                let opened = io.on(link.connection, quic::Connection::open).flatten();
                let Some(announcing) = opened else { return };
                let code = code.as_str().to_owned();
                let at = ResetAt { stream: index, offset, code };
                let frame = encoded(&Message::Stream(StreamMessage::ResetAt(at)));
                let mut stream = StreamState::new(Receiving::Done, frame, io.now());
                stream.finish_after = true;
                link.table.insert(announcing, stream);
                link.unannounced.pop_front();
                let id = StreamId { peer, connection: link.connection.0, index: announcing };
                io.on(link.connection, |c| c.stop(announcing, Code::Closed));
                // A blocked write goes on when the transport has room.
                let _ = self.flush_ahead(id, io);
            } else {
                link.unannounced.pop_front();
            }
        }
    }

    /// Handles the announced reset of a stream. One that this node does not read is over already,
    /// or is no forwarded stream.
    pub(super) fn on_reset_at(&mut self, peer: PeerId, at: &ResetAt, io: &mut Io) {
        let Some(id) = self.id(peer, at.stream) else { return };
        let Some(stream) = self.get_mut(id) else { return };
        if stream.reset_at.is_some() {
            return;
        }
        stream.reset_at = Some((at.offset, at.to_code()));
        if matches!(stream.receiving, Receiving::Answer(_) | Receiving::Raw) {
            io.emit(Event::StreamReadable { stream: id });
        }
    }
}
