//! One connection: its streams and datagrams in our terms.
//!
//! It decides which writes may use the reserve that bulk must leave free; it translates the rest.
//! Streams have quinn's number, which the node wraps in its own id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    ConnectionHandle, Dir, FinishError, ReadError, ReadableError, SendDatagramError, VarInt,
    WriteError,
};

use super::congestion::Pacer;
use super::source::PeerSource;
use super::stall::{Due, Flight, StallGuard};
use super::{Layer, Unproven, convert};
use crate::error::{Code, Failure, Misuse};
use crate::event::Statistics;
use crate::path::TransportProgress;
use crate::transmit::Route;

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes in order, at most as many as requested.
    Chunk(Bytes),
    /// No data yet: a readable event follows.
    Blocked,
    /// The peer finished the stream and everything has been read.
    End,
    /// The peer reset the stream.
    Reset(Code),
    /// The stream does not exist: read to its end, stopped, or never opened.
    Gone,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// This many bytes were taken.
    Taken(usize),
    /// None were: a writable event follows.
    Blocked,
    /// The peer stopped the stream.
    Stopped(Code),
    /// The stream does not exist, or is finished.
    Gone,
}

/// The priority class of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WriteClass {
    /// The send window.
    Bulk,
    /// The send window and the reserve for small writes.
    Interactive,
    /// The send window, that reserve, and the reserve for the control stream.
    Control,
}

impl WriteClass {
    /// Returns the order in which streams with data are sent.
    pub(super) const fn priority(self) -> i32 {
        match self {
            Self::Bulk => 0,
            Self::Interactive => 1,
            Self::Control => 2,
        }
    }
}

/// Bytes the control stream may write beyond the limit of every other stream.
const CONTROL_RESERVE: u64 = 256 << 10;

/// Streams that the peer may have open. The transport keeps a place for each that it may open, so
/// that they are allowed as they are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    pub(super) allowed: u32,
    pub(super) most: u32,
}

/// One quinn connection and the state that we keep for it.
pub(crate) struct Connection {
    pub(super) handle: ConnectionHandle,
    pub(super) layer: Layer,
    /// The address of the peer when it was last checked.
    pub(super) remote: SocketAddr,
    pub(super) inner: quinn_proto::Connection,
    /// TLS is complete on this side: the peer is authenticated.
    pub(super) proven: bool,
    /// Set until the handshake is confirmed by both sides.
    pub(super) establishing: bool,
    /// The state that a connection of a dialling peer holds until it is confirmed or removed.
    pub(super) unproven: Option<Unproven>,
    pub(super) lost: bool,
    pub(super) streams: Allowance,
    /// The smallest and the largest window for what is written and not acknowledged.
    pub(super) send_windows: (u64, u64),
    pub(super) interactive_reserve: u64,
    /// Whether it is in the queue of connections that may have data to send.
    pub(super) queued: bool,
    pub(super) heard_frames: u64,
    /// Those of them that have data.
    pub(super) heard_data: u64,
    pub(super) last_heard: Instant,
    /// What it shares with its congestion controllers.
    pub(super) flight: Arc<Flight>,
    pub(super) stall: StallGuard,
    pub(super) pacer: Pacer,
    /// Lost probes for the packet size, and the packet size.
    pub(super) mtu_probes: (u64, u16),
    /// Where its peer is, as far as the transport does not know.
    pub(super) source: PeerSource,
    /// Packets declared lost.
    pub(super) lost_packets: u64,
}

impl Connection {
    /// Returns the present address of the peer.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.source.moved_to().unwrap_or_else(|| self.inner.remote_address())
    }

    /// Returns the address at which the transport has the peer, if packets from any other address are
    /// given to it as from there: an acceptor that is authenticated may move.
    pub(super) fn followed(&self) -> Option<SocketAddr> {
        let is_followed = self.source.is_followed() && !self.establishing && self.proven;
        is_followed.then(|| self.inner.remote_address())
    }

    /// Notes where an authentic packet came from.
    pub(super) fn note_source(&mut self, from: Route, now: Instant) {
        let (remote, local_ip) = (self.inner.remote_address(), self.inner.local_ip());
        if self.source.on_heard(from, remote, local_ip, now) {
            self.forget_path(now);
        }
    }

    /// Returns true if it is an end-to-end connection, over any path.
    pub(crate) fn is_overlay(&self) -> bool {
        self.layer == Layer::Overlay
    }

    /// Returns the transport's own smoothed round trip.
    pub(crate) fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// Returns the bytes that the congestion controller allows in flight.
    pub(crate) fn congestion_window(&self) -> u64 {
        self.inner.congestion_state().metrics().congestion_window
    }

    /// Returns how its packets fare, as of the latest that came.
    pub(crate) fn progress(&self) -> TransportProgress {
        TransportProgress {
            unacknowledged: self.stall.unacknowledged().filter(|_| self.may_probe()),
            lost: self.lost_packets,
            full: self.flight.full(),
            size: self.inner.current_mtu(),
        }
    }

    /// Returns the verified certificate chain of the peer in DER, leaf first.
    pub(crate) fn peer_chain(&self) -> Option<Vec<rustls_pki_types::CertificateDer<'static>>> {
        self.inner.crypto_session().peer_identity()?.downcast().ok().map(|chain| *chain)
    }

    /// Counters since the connection began.
    pub(crate) fn statistics(&self) -> Statistics {
        let s = self.inner.stats();
        let congestion_window = self.inner.congestion_state().metrics().congestion_window;
        Statistics {
            bytes_sent: s.udp_tx.bytes,
            bytes_received: s.udp_rx.bytes,
            packets_sent: s.path.sent_packets,
            packets_lost: s.path.lost_packets,
            mtu: s.path.current_mtu,
            congestion_window,
        }
    }

    /// Returns when the last authenticated packet of the peer arrived.
    pub(crate) const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Records frames that arrived since the last call. Only frames of authenticated packets are
    /// counted, so that a forger cannot keep a dead peer alive.
    pub(super) fn note_heard(&mut self, now: Instant) -> bool {
        let stats = self.inner.stats();
        let (f, path) = (stats.frame_rx, stats.path);
        if self.mtu_probes != (path.lost_plpmtud_probes, path.current_mtu) {
            self.mtu_probes = (path.lost_plpmtud_probes, path.current_mtu);
            self.flight.set_mtu_probe(0);
        }
        self.lost_packets = path.lost_packets;
        let data = f.stream + f.datagram;
        let frames = f.acks + data + f.ping + f.max_data + f.max_stream_data;
        let is_news = frames != self.heard_frames;
        if is_news {
            self.heard_frames = frames;
            self.last_heard = now;
            let new = data - std::mem::replace(&mut self.heard_data, data);
            let due = self.stall.on_heard(&self.flight, new, self.inner.rtt(), now);
            self.probe(due, now);
        }
        is_news
    }

    /// Returns when [`Connection::on_stall_time`] is due.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        self.stall.deadline().filter(|_| self.may_probe())
    }

    /// Returns when what its rate holds back may be sent.
    pub(super) fn pacing_due(&self) -> Option<Instant> {
        self.pacer.due().filter(|_| !self.inner.is_closed())
    }

    /// What its rate held back is due: it is sent when the connection is polled next.
    pub(super) fn on_pacing_time(&mut self, now: Instant) {
        if self.pacer.due().is_some_and(|due| due <= now) {
            self.pacer.clear();
        }
    }

    /// Probes the peer, if its silence has lasted long enough.
    pub(super) fn on_stall_time(&mut self, now: Instant) {
        let due = self.stall.on_time(self.inner.rtt(), now);
        self.probe(due, now);
    }

    fn probe(&mut self, due: Due, now: Instant) {
        if due == Due::Nothing || !self.may_probe() {
            return;
        }
        if due == Due::Restart {
            // The window stays: what was lost reduces it.
            self.flight.keep(self.inner.congestion_state().clone_box());
            self.forget_path(now);
        }
        self.ping();
    }

    fn may_probe(&self) -> bool {
        !self.establishing && !self.inner.is_closed()
    }

    /// Puts the next batch, of at most so many packets, into `out`.
    pub(super) fn poll_transmit(
        &mut self,
        segments: usize,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<quinn_proto::Transmit> {
        let mtu = self.inner.current_mtu();
        // One datagram at a time is within what an address that is not validated may be sent.
        let is_bounded = self.unproven.is_some();
        if self.unproven.as_ref().is_some_and(|it| !it.may_send(mtu.into())) {
            return None;
        }
        let segments = if is_bounded { 1 } else { segments };
        // Packets beyond the window are counted by the batch.
        let segments = if self.flight.is_open() { 1 } else { segments };
        let rate = self.flight.pacing_rate();
        self.pacer.clear();
        let allowed =
            rate.map_or(segments, |rate| self.pacer.allow(rate, u64::from(mtu), segments, now));
        // Acknowledgements alone, and the transport's own probes, are not held back.
        self.flight.hold(allowed == 0);
        let before = (!self.stall.is_awaiting()).then(|| self.eliciting_frames());
        let transmit = self.inner.poll_transmit(now, allowed.max(1), out);
        self.flight.hold(false);
        if let Some(rate) = rate {
            match &transmit {
                Some(sent) => self.pacer.on_sent(sent.size),
                None if allowed == 0 => self.pacer.wait(rate, u64::from(mtu), now),
                None => {}
            }
        }
        match &transmit {
            None => self.flight.close(),
            Some(it) if is_mtu_probe(it, mtu) => self.flight.set_mtu_probe(it.size as u64),
            Some(_) => {}
        }
        if let (Some(unproven), Some(transmit)) = (&mut self.unproven, &transmit) {
            unproven.note_sent(transmit.size);
        }
        if before.is_some_and(|before| self.eliciting_frames() != before) {
            self.stall.on_sent(self.inner.rtt(), now);
        }
        transmit
    }

    /// Returns the number of received frames of which each packet of a handshake has one.
    pub(super) fn received_frames(&self) -> u64 {
        let f = self.inner.stats().frame_rx;
        f.acks + f.crypto + f.ping
    }

    /// Returns the number of sent frames that the peer is to acknowledge.
    fn eliciting_frames(&self) -> u64 {
        let f = self.inner.stats().frame_tx;
        let data = f.stream + f.datagram + f.crypto + f.reset_stream + f.stop_sending;
        let limits = f.max_data + f.max_stream_data + f.max_streams_bidi;
        let paths = f.path_challenge + f.path_response;
        let ids = f.new_connection_id + f.retire_connection_id;
        data + limits + paths + ids + f.ping + u64::from(f.handshake_done)
    }

    /// Detects that the address of the peer has changed since the last check.
    pub(super) fn note_moved(&mut self) -> Option<SocketAddr> {
        let remote = self.remote();
        (std::mem::replace(&mut self.remote, remote) != remote).then_some(remote)
    }

    /// Returns the room for datagrams that wait to be sent, in bytes.
    pub(crate) fn datagram_room(&mut self) -> usize {
        self.inner.datagrams().send_buffer_space()
    }

    /// Returns the bytes of datagrams that wait to be sent, if it is a connection to a relay.
    pub(crate) fn datagrams_waiting(&mut self) -> usize {
        match self.layer {
            // The room of an empty buffer is reduced by a datagram's overhead.
            Layer::Underlay => super::UNDERLAY_DATAGRAMS
                .saturating_sub(self.datagram_room())
                .saturating_sub(size_of::<Bytes>()),
            Layer::Direct | Layer::Overlay => 0,
        }
    }

    /// Discards the state of the path, including the size of its packets, and measures it again.
    pub(crate) fn forget_path(&mut self, now: Instant) {
        self.flight.set_mtu_probe(0);
        self.inner.path_changed(now);
    }

    /// Its packets take another path from now on, whose shortest round trip is `round_trip`, if that
    /// is known.
    pub(crate) fn on_path_changed(&self, round_trip: Option<Duration>) {
        self.flight.set_path(round_trip);
    }

    /// Returns a secret that only the two ends of this connection share (RFC 8446 §7.5); `None`
    /// before its TLS handshake is complete.
    pub(crate) fn export<const N: usize>(&self, label: &[u8], context: &[u8]) -> Option<[u8; N]> {
        let mut out = [0; N];
        self.inner.crypto_session().export_keying_material(&mut out, label, context).ok()?;
        Some(out)
    }

    /// Raises the number of streams that an authenticated peer may open; it grows with the number
    /// that it has open.
    pub(super) fn allow_streams(&mut self, known: u32) {
        self.allow(known.min(self.streams.most));
    }

    fn allow(&mut self, streams: u32) {
        self.streams.allowed = streams;
        self.inner.set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(streams));
    }

    /// Opens a stream, unless the peer allows no more for now.
    pub(crate) fn open(&mut self) -> Option<u64> {
        self.inner.streams().open(Dir::Bi).map(u64::from)
    }

    /// Returns the next stream that the peer opened.
    pub(crate) fn accept(&mut self) -> Option<u64> {
        let stream = self.inner.streams().accept(Dir::Bi).map(u64::from)?;
        let Allowance { allowed, most } = self.streams;
        if allowed < most && self.inner.streams().remote_open_streams(Dir::Bi) * 2 > allowed.into()
        {
            self.allow(allowed.saturating_mul(2).min(most));
        }
        Some(stream)
    }

    /// Reads at most `max` bytes in order.
    pub(crate) fn read(&mut self, stream: u64, max: usize) -> Read {
        let Some(id) = stream_id(stream) else { return Read::Gone };
        let mut receive = self.inner.recv_stream(id);
        let mut chunks = match receive.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return Read::Gone;
            }
        };
        let result = match chunks.next(max) {
            Ok(Some(chunk)) => Read::Chunk(chunk.bytes),
            Ok(None) => Read::End,
            Err(error) => unread(&error),
        };
        // Whether credit must be sent shows when the connection is polled, which the endpoint
        // does after every call that borrowed it mutably.
        let _ = chunks.finalize();
        result
    }

    /// Hands over what has arrived of a stream, in any order and nothing twice, as long as `take`
    /// returns true. Returns what follows; `None` if `take` did not want more. From here on the
    /// stream cannot be read in order.
    pub(crate) fn drain(
        &mut self,
        stream: u64,
        mut take: impl FnMut(u64, Bytes) -> bool,
    ) -> Option<Read> {
        let Some(id) = stream_id(stream) else { return Some(Read::Gone) };
        let mut receive = self.inner.recv_stream(id);
        let Ok(mut chunks) = receive.read(false) else { return Some(Read::Gone) };
        let result = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    if !take(chunk.offset, chunk.bytes) {
                        break None;
                    }
                }
                Ok(None) => break Some(Read::End),
                Err(error) => break Some(unread(&error)),
            }
        };
        let _ = chunks.finalize();
        result
    }

    /// Returns how much bulk may be written and not acknowledged: what is in flight, and as much
    /// again to be sent while the acknowledgements come.
    fn send_window(&self) -> u64 {
        let (least, most) = self.send_windows;
        self.congestion_window().saturating_mul(2).clamp(least, most)
    }

    /// Writes as much from the front of `data` as the windows allow.
    pub(crate) fn write(&mut self, stream: u64, data: &mut Bytes, class: WriteClass) -> Write {
        let Some(id) = stream_id(stream) else { return Write::Gone };
        let reserve = match class {
            WriteClass::Bulk => 0,
            WriteClass::Interactive => self.interactive_reserve,
            WriteClass::Control => self.interactive_reserve + CONTROL_RESERVE,
        };
        let window = self.send_window();
        self.inner.set_send_window(window + reserve);
        let mut send = self.inner.send_stream(id);
        if send.set_priority(class.priority()).is_err() {
            return Write::Gone;
        }
        let before = data.len();
        let written = send.write_chunks(std::slice::from_mut(data));
        // The window is restored immediately: left open, it would wake bulk streams without need.
        self.inner.set_send_window(window);
        match written {
            Ok(_) => Write::Taken(before - data.len()),
            Err(WriteError::Blocked) => Write::Blocked,
            Err(WriteError::Stopped(code)) => Write::Stopped(Code::from_wire(code.into_inner())),
            Err(WriteError::ClosedStream) => Write::Gone,
        }
    }

    /// Ends our direction; a finished event follows when the peer has acknowledged everything.
    pub(crate) fn finish(&mut self, stream: u64) -> Result<(), Misuse> {
        let id = stream_id(stream).ok_or(Misuse::UnknownStream)?;
        self.inner.send_stream(id).finish().map_err(|e| match e {
            FinishError::Stopped(_) => Misuse::WrongState,
            FinishError::ClosedStream => Misuse::UnknownStream,
        })
    }

    /// Abandons our direction.
    pub(crate) fn reset(&mut self, stream: u64, code: Code) {
        if let Some(id) = stream_id(stream) {
            // Err means that it is over already, which was the intent.
            let _ = self.inner.send_stream(id).reset(convert::wire(code));
        }
    }

    /// Returns the code of the peer's reset of a stream, and discards the stream if there is one.
    pub(crate) fn take_reset(&mut self, stream: u64) -> Option<Code> {
        let code = self.inner.recv_stream(stream_id(stream)?).received_reset().ok().flatten()?;
        Some(Code::from_wire(code.into_inner()))
    }

    /// Refuses the rest of the peer's direction.
    pub(crate) fn stop(&mut self, stream: u64, code: Code) {
        if let Some(id) = stream_id(stream) {
            // Err means that it is over already, which was the intent.
            let _ = self.inner.recv_stream(id).stop(convert::wire(code));
        }
    }

    /// Queues a datagram; the oldest queued ones are dropped when there is no room.
    pub(crate) fn send_datagram(&mut self, data: Bytes) -> Result<(), Misuse> {
        self.inner.datagrams().send(data, true).map_err(|e| match e {
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                Misuse::WrongState
            }
            SendDatagramError::TooLarge | SendDatagramError::Blocked(_) => Misuse::OverLimit,
        })
    }

    /// Returns the next received datagram.
    pub(crate) fn recv_datagram(&mut self) -> Option<Bytes> {
        self.inner.datagrams().recv()
    }

    /// Returns the size of the largest datagram that the path carries now.
    pub(crate) fn max_datagram(&mut self) -> Option<usize> {
        self.inner.datagrams().max_size()
    }

    /// Closes the connection with a reason for the peer.
    pub(crate) fn close(&mut self, failure: &Failure, now: Instant) {
        let reason = Bytes::copy_from_slice(failure.detail().as_bytes());
        self.inner.close(now, convert::wire(failure.code()), reason);
    }

    /// Sends the peer a ping, even if the window is full.
    pub(crate) fn ping(&mut self) {
        self.flight.open();
        self.inner.ping();
    }

    /// Notifies the transport that our own address changed: it probes the path immediately.
    pub(crate) fn local_address_changed(&mut self) {
        self.flight.open();
        self.inner.local_address_changed();
    }

    /// Returns true if this side closed it and the close has not been sent to the peer.
    pub(super) fn is_closing(&self) -> bool {
        self.inner.is_closed()
            && !self.lost
            && !self.inner.is_drained()
            && self.inner.stats().frame_tx.connection_close == 0
    }

    pub(super) fn is_confirmed(&self) -> bool {
        !self.inner.is_closed()
            && !self.inner.is_handshaking()
            && (self.inner.side().is_server() || self.inner.stats().frame_rx.handshake_done > 0)
    }
}

/// Returns true for a packet that probes for a larger packet size.
pub(super) fn is_mtu_probe(transmit: &quinn_proto::Transmit, mtu: u16) -> bool {
    transmit.segment_size.is_none() && transmit.size > usize::from(mtu)
}

fn unread(error: &ReadError) -> Read {
    match error {
        ReadError::Blocked => Read::Blocked,
        ReadError::Reset(code) => Read::Reset(Code::from_wire(code.into_inner())),
    }
}

fn stream_id(stream: u64) -> Option<quinn_proto::StreamId> {
    VarInt::from_u64(stream).ok().map(quinn_proto::StreamId::from)
}
