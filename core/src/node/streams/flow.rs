//! Bytes between the streams and the transport, counted against the credit of each stream.
//!
//! `credit` decides the limits; here bytes are moved within them, reports are exchanged with the
//! peer, and streams that were held back continue. It decides how much is held of streams that are
//! read as they arrive; `reassembly` puts it into order.

use std::time::Instant;

use bytes::{Buf, Bytes};

use super::credit::{FREE, PathState};
use super::reassembly::{Reassembly, Size};
use super::table::{Arrived, Receiving};
use super::{PeerStreams, Streams};
use crate::error::Code;
use crate::id::{PeerId, StreamId};
use crate::message::{ControlMessage, Credit, Message};
use crate::node::io::Io;
use crate::quic::{ConnectionId, Read, Write};
use crate::timer::Reason;

/// Bytes of a stream that are read in order: a short stream costs nothing but them, and has too few
/// packets in flight for the transport's limit of 1,024 gaps. What follows is read as it arrives.
const READ_IN_ORDER: u64 = 256 << 10;

/// Most pieces of streams that are held for one peer: 64 MiB of the shortest that are not copied.
const MAX_PIECES: usize = 131_072;

impl PeerStreams {
    fn read(&mut self, index: u64, max: usize, io: &mut Io) -> Read {
        let Some(stream) = self.table.get_mut(index) else { return Read::Gone };
        if stream.arrived.is_none() && stream.taken >= READ_IN_ORDER {
            let bytes = Reassembly::at(stream.taken);
            let in_order = Some(stream.taken);
            stream.arrived = Some(Box::new(Arrived { bytes, in_order, then: None }));
        }
        let Some(arrived) = &mut stream.arrived else {
            return io.on(self.connection, |c| c.read(index, max)).unwrap_or(Read::Gone);
        };
        if !arrived.bytes.is_readable() {
            self.take_arrived(index, io);
        }
        let Some(arrived) = self.table.get_mut(index).and_then(|it| it.arrived.as_mut()) else {
            return Read::Gone;
        };
        let before = arrived.bytes.size();
        let popped = arrived.bytes.pop(max);
        self.arrived.replace(before, arrived.bytes.size());
        match popped {
            Some(bytes) => Read::Chunk(bytes),
            None => arrived.then.clone().unwrap_or(Read::Blocked),
        }
    }

    /// Takes what has arrived of a stream from the transport, if the stream is read so. Returns
    /// false if there is nothing to read yet.
    pub(super) fn take_arrived(&mut self, index: u64, io: &mut Io) -> bool {
        let (connection, most) = (self.connection, io.config.transport.connection_window as usize);
        let Some(stream) = self.table.get_mut(index) else { return false };
        let Some(arrived) = &mut stream.arrived else { return true };
        let has_room = |size: Size| size.bytes < most && size.pieces < MAX_PIECES;
        // A reader that falls behind leaves half to the streams with a gap: there the missing bytes
        // may be the next to arrive.
        let is_behind = arrived.bytes.is_readable() && self.arrived.bytes >= most / 2;
        while let (Some(offset), None, false) = (arrived.in_order, &arrived.then, is_behind) {
            if !has_room(self.arrived) {
                break;
            }
            match io.on(connection, |c| c.read(index, usize::MAX)).unwrap_or(Read::Gone) {
                Read::Chunk(piece) => {
                    let before = arrived.bytes.size();
                    arrived.in_order = Some(offset + piece.len() as u64);
                    arrived.bytes.insert(offset, piece);
                    self.arrived.replace(before, arrived.bytes.size());
                }
                Read::Blocked => arrived.in_order = None,
                end @ (Read::End | Read::Reset(_) | Read::Gone) => arrived.then = Some(end),
            }
        }
        if arrived.then.is_none() && arrived.in_order.is_none() && !is_behind {
            let (bytes, total) = (&mut arrived.bytes, &mut self.arrived);
            let next = io.on(connection, |c| {
                c.drain(index, |offset, piece| {
                    let before = bytes.size();
                    bytes.insert(offset, piece);
                    total.replace(before, bytes.size());
                    has_room(*total)
                })
            });
            arrived.then = match next {
                Some(Some(Read::Blocked)) => None,
                Some(Some(next)) => Some(next),
                Some(None) if arrived.bytes.is_readable() => None,
                Some(None) => {
                    // The peer sends more behind a gap than it has credit for.
                    io.on(connection, |c| c.stop(index, Code::Overloaded));
                    Some(Read::Reset(Code::Overloaded))
                }
                None => Some(Read::Gone),
            };
        }
        arrived.bytes.is_readable() || arrived.then.is_some()
    }

    /// Discards what has arrived of a stream that is not read any more.
    pub(super) fn discard_arrived(&mut self, index: u64) {
        let arrived = self.table.get_mut(index).and_then(|stream| stream.arrived.take());
        if let Some(arrived) = arrived {
            self.arrived.replace(arrived.bytes.size(), Size::default());
        }
    }
}

impl Streams {
    /// Reads from the transport.
    pub(in crate::node) fn read_raw(&mut self, id: StreamId, max: usize, io: &mut Io) -> Read {
        let Some(link) = self.link_mut(id) else { return Read::Gone };
        let read = link.read(id.index, max, io);
        if let Read::Chunk(bytes) = &read
            && let Some(stream) = link.table.get_mut(id.index)
        {
            stream.taken += bytes.len() as u64;
            if link.reports.on_read(id.index, stream.taken, &mut stream.reported) {
                self.schedule_report(id.peer, io);
            }
        }
        read
    }

    /// Writes to the transport, in the interactive or the bulk class by the stream's recent writes.
    pub(in crate::node) fn write_raw(
        &mut self,
        id: StreamId,
        data: &mut Bytes,
        io: &mut Io,
    ) -> Write {
        let now = io.now();
        let Some(link) = self.link_mut(id) else { return Write::Gone };
        let Some(stream) = link.table.get_mut(id.index) else { return Write::Gone };
        let room = link.credit.room(id.index, path(link.connection, io), now);
        if room == 0 && !data.is_empty() {
            return Write::Blocked;
        }
        let class = stream.class(now);
        let mut part = data.slice(..data.len().min(room));
        let wrote = io.on(link.connection, |c| c.write(id.index, &mut part, class));
        let wrote = wrote.unwrap_or(Write::Gone);
        if let Write::Taken(taken) = wrote {
            data.advance(taken);
            stream.on_written(taken);
            link.credit.on_written(id.index, taken, now);
        }
        wrote
    }

    /// Handles what the peer has read, or that it sent another control message. Returns the streams
    /// whose writes were held back and can go on.
    pub(in crate::node) fn on_control_message(
        &mut self,
        peer: PeerId,
        message: &ControlMessage,
        io: &Io,
    ) -> Vec<u64> {
        let Some(link) = self.links.get_mut(&peer) else { return Vec::new() };
        let (path, now) = (path(link.connection, io), io.now());
        let ControlMessage::Credit(credit) = message else {
            return link.credit.on_other_message();
        };
        link.reports.on_wanted();
        link.credit.set_budget(credit.budget);
        let read = credit.read.iter();
        read.filter(|&&(stream, read)| link.credit.on_read(stream, read, path, now))
            .map(|&(stream, _)| stream)
            .collect()
    }

    /// Returns the next peer that is to get a report.
    pub(in crate::node) fn pop_report_due(&mut self, now: Instant) -> Option<PeerId> {
        self.report_timers.pop_due(now).map(|(peer, _)| peer)
    }

    /// Returns the report for a peer; `None` unless the control stream `is_clear`, so that no more
    /// than one report waits there.
    pub(in crate::node) fn report(
        &mut self,
        peer: PeerId,
        is_clear: bool,
        io: &Io,
    ) -> Option<Message> {
        let link = self.links.get_mut(&peer)?;
        let report = if is_clear {
            let budget = io.config.transport.connection_window.into();
            let read = link.reports.take(io.now());
            Some(Message::Control(ControlMessage::Credit(Credit { budget, read })))
        } else {
            link.reports.postpone(io.now());
            None
        };
        self.schedule_report(peer, io);
        report
    }

    /// Handles a stream of which no more will be read: to its end, or because it is stopped.
    pub(super) fn on_read_over(&mut self, id: StreamId, is_stopped: bool, io: &Io) {
        let Some(link) = self.link_mut(id) else { return };
        let Some(stream) = link.table.get(id.index) else { return };
        // A request that is stopped is small, or its sender has not finished it.
        let may_be_stored = is_stopped
            && matches!(
                stream.receiving,
                Receiving::Raw | Receiving::Answer(_) | Receiving::Offered
            );
        if (stream.taken > FREE || may_be_stored) && link.reports.on_over(id.index) {
            self.schedule_report(id.peer, io);
        }
    }

    fn schedule_report(&mut self, peer: PeerId, io: &Io) {
        let Some(link) = self.links.get(&peer) else { return };
        let due = link.reports.due(path(link.connection, io).rtt, io.now());
        self.report_timers.set(peer, due.map(|at| (at, Reason::Credit)));
    }
}

/// Returns the first message to a peer, by which it knows that this node reports.
pub(in crate::node) fn greeting(io: &Io) -> Message {
    let budget = io.config.transport.connection_window.into();
    Message::Control(ControlMessage::Credit(Credit { budget, read: Vec::new() }))
}

fn path(connection: ConnectionId, io: &Io) -> PathState {
    let connection = io.quic.get(connection);
    PathState {
        rtt: connection.map(crate::quic::Connection::rtt).unwrap_or_default(),
        congestion_window: connection.map_or(0, crate::quic::Connection::congestion_window),
    }
}
