//! The streams of one connection, from the header to the last byte.
//!
//! It decides the purpose of a stream (from its header), the state of its acceptor's answer, and
//! which of its writes count as interactive. It never reads or writes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::reassembly::Reassembly;
use crate::error::{Code, Failure};
use crate::frame::{Frame, FrameDecoder, Header};
use crate::id::RequestId;
use crate::message::{Message, MessageKind, Open, ResetAt, StreamMessage};
use crate::quic::{Read, WriteClass};

/// Largest first frame of a forwarded stream and largest answer to it.
const MAX_HEADER: usize = 4 << 10;

/// Recent bytes up to which a stream is interactive: one large response, or a second of fast
/// typing.
const INTERACTIVE_BURST: f64 = 64.0 * 1024.0;

/// Bytes a second by which the allowance of a stream refills: a stream below this rate always stays
/// interactive.
const INTERACTIVE_RATE: f64 = 1024.0 * 1024.0;

/// The state of a stream's receiving direction.
#[derive(Debug)]
pub(super) enum Receiving {
    /// Ours: the acceptor has not answered yet.
    Answer(FrameDecoder),
    /// The peer's: its first frame is not complete yet.
    Header(FrameDecoder),
    /// The peer's request; its body waits for room under the peer's budget.
    Held(FrameDecoder),
    /// The peer's: offered, and neither accepted nor refused yet.
    Offered,
    /// The peer's request; all of it has arrived.
    Arrived,
    /// The bytes are the application's.
    Raw,
    /// Ours: the acceptor refused it. It stays until the application has seen that.
    Refused(Failure),
    /// A request of ours or of the peer's; its own machine reads.
    Request(RequestId),
    /// Read to its end, reset or stopped.
    Done,
}

/// The state of a stream's sending direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// More may be written.
    Open,
    /// Finished, and not everything acknowledged.
    Finishing,
    /// To be reset once the peer has read everything; it stops the direction then.
    Resetting(Code),
    /// Stopped by the peer, and the application has not seen it yet.
    Stopped(Code),
    /// Acknowledged, reset, or known to be stopped.
    Done,
}

/// What has arrived of a stream, and what follows it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) bytes: Reassembly,
    /// Where the next bytes belong that are still read in order. The transport (quinn-proto 0.11.19)
    /// returns bytes twice if it is asked for any order while it has some that were read before, so
    /// that all that is there is read in order first.
    pub(super) in_order: Option<u64>,
    /// The end or the reset of the stream, once all that comes before has arrived.
    pub(super) then: Option<Read>,
}

impl Arrived {
    /// Returns the code with which the peer has reset the stream.
    pub(super) const fn reset(&self) -> Option<Code> {
        match self.then {
            Some(Read::Reset(code)) => Some(code),
            Some(Read::Chunk(_) | Read::Blocked | Read::End | Read::Gone) | None => None,
        }
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// The frame that precedes the application's bytes.
    pub(super) ahead: Bytes,
    /// `finish` was called while `ahead` was not written yet.
    pub(super) finish_after: bool,
    /// Bytes of the peer's budget that the body of this request uses.
    pub(super) charged: usize,
    /// The opener's mark of an offered stream.
    pub(super) origin: Option<Box<str>>,
    /// The application's bytes that the transport has taken from it, and those that it has read:
    /// without the frames that precede them.
    pub(super) written: u64,
    pub(super) read: u64,
    /// The peer's direction is reset once so much of it is read.
    pub(super) reset_at: Option<(u64, Code)>,
    /// Bytes that were read, the frames included, and how many of them were last to be reported to
    /// the peer.
    pub(super) taken: u64,
    pub(super) reported: u64,
    /// What has arrived and was not read, of a stream that is read as it arrives.
    pub(super) arrived: Option<Box<Arrived>>,
    allowance: f64,
    allowance_at: Instant,
}

impl StreamState {
    pub(super) fn new(receiving: Receiving, ahead: Bytes, now: Instant) -> Self {
        Self {
            receiving,
            sending: Sending::Open,
            ahead,
            finish_after: false,
            charged: 0,
            origin: None,
            written: 0,
            read: 0,
            reset_at: None,
            taken: 0,
            reported: 0,
            arrived: None,
            allowance: INTERACTIVE_BURST,
            allowance_at: now,
        }
    }

    /// Returns a stream that we opened to a service.
    pub(super) fn opened(ahead: Bytes, now: Instant) -> Self {
        Self::new(Receiving::Answer(FrameDecoder::with_limit(MAX_HEADER)), ahead, now)
    }

    /// Returns a stream that the peer opened.
    pub(super) fn arrived(now: Instant) -> Self {
        Self::new(Receiving::Header(FrameDecoder::new()), Bytes::new(), now)
    }

    /// Returns the class of the next write.
    pub(super) fn class(&mut self, now: Instant) -> WriteClass {
        let elapsed = now.saturating_duration_since(self.allowance_at).as_secs_f64();
        self.allowance = (self.allowance + elapsed * INTERACTIVE_RATE).min(INTERACTIVE_BURST);
        self.allowance_at = now;
        if self.allowance > 0.0 { WriteClass::Interactive } else { WriteClass::Bulk }
    }

    /// Counts a write against the class. The debt is bounded, so that a stream which was bulk is
    /// interactive again soon after it stops.
    pub(super) fn on_written(&mut self, bytes: usize) {
        self.allowance = (self.allowance - bytes as f64).max(-INTERACTIVE_BURST);
    }

    /// Makes an arriving body wait for room.
    pub(super) fn hold(&mut self) {
        if let Receiving::Header(decoder) = &mut self.receiving {
            self.receiving = Receiving::Held(std::mem::take(decoder));
        }
    }

    /// Continues with a body that had to wait.
    pub(super) fn unhold(&mut self) {
        if let Receiving::Held(decoder) = &mut self.receiving {
            self.receiving = Receiving::Header(std::mem::take(decoder));
        }
    }

    /// Returns true if both directions are over, so that the entry can be removed. A stopped one is
    /// over even if its writer is not notified yet: the transport does not count it any more, so
    /// that entries kept for a writer that never comes would have no bound.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.receiving, Receiving::Done)
            && matches!(self.sending, Sending::Done | Sending::Stopped(_))
    }
}

/// The streams of one connection. A peer's are bounded by the transport's stream limit, ours by
/// the peer's.
#[derive(Debug, Default)]
pub(super) struct StreamTable {
    table: BTreeMap<u64, StreamState>,
    /// The deadlines of headers, oldest first; at most two entries for each stream of the table.
    headers: VecDeque<(Instant, u64)>,
}

impl StreamTable {
    pub(super) fn insert(&mut self, id: u64, stream: StreamState) {
        self.table.insert(id, stream);
    }

    /// Inserts a stream the peer opened, which has until `due` to send its header.
    pub(super) fn insert_arrived(&mut self, id: u64, due: Instant, now: Instant) {
        self.table.insert(id, StreamState::arrived(now));
        // Streams that are past their opening leave their entry behind. Behind a stream without a
        // header, a peer could pile up any number of them.
        if self.headers.len() >= 2 * self.table.len().max(32) {
            let mut headers = std::mem::take(&mut self.headers);
            headers.retain(|&(_, id)| self.is_opening(id));
            self.headers = headers;
        }
        self.headers.push_back((due, id));
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut StreamState> {
        self.table.get_mut(&id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&StreamState> {
        self.table.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns every stream with its number.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &StreamState)> {
        self.table.iter().map(|(&index, stream)| (index, stream))
    }

    /// Returns how many streams are watched for their first frame, including those that recently
    /// sent it.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn openings(&self) -> usize {
        self.headers.len()
    }

    /// Removes the stream if it is over.
    pub(super) fn reap(&mut self, id: u64) {
        if self.table.get(&id).is_some_and(StreamState::is_over) {
            self.table.remove(&id);
        }
    }

    /// Returns the oldest stream with a body that waits for room.
    pub(super) fn first_held(&self) -> Option<u64> {
        let held = |(_, s): &(&u64, &StreamState)| matches!(s.receiving, Receiving::Held(_));
        self.table.iter().find(held).map(|(id, _)| *id)
    }

    /// Returns the earliest deadline of a header.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        while let Some(&(due, id)) = self.headers.front() {
            if self.is_opening(id) {
                return Some(due);
            }
            self.headers.pop_front();
        }
        None
    }

    /// Returns the next stream with an overdue header.
    pub(super) fn poll_overdue(&mut self, now: Instant) -> Option<u64> {
        let due = self.deadline()?;
        if due > now {
            return None;
        }
        self.headers.pop_front().map(|(_, id)| id)
    }

    /// Returns true if the purpose of a stream is not known yet. It is known for a request with an
    /// incomplete body: the requester's own deadline and the budget for bodies bound that.
    fn is_opening(&self, id: u64) -> bool {
        let opening =
            |s: &StreamState| matches!(s.receiving, Receiving::Header(_)) && s.charged == 0;
        self.table.get(&id).is_some_and(opening)
    }
}

/// The purpose of a stream, from the first frame that the peer sent on it.
#[derive(Debug)]
pub(super) enum Opening {
    /// A service's bytes.
    Service(Open),
    /// A request, whole.
    Request(crate::message::Request),
    /// None of its own: it announces the reset of another.
    ResetAt(ResetAt),
    /// It cannot be served.
    Refuse(Failure),
}

/// Returns the error in the length of a first frame, from its header alone. Only a request has a
/// body, which is charged against a budget; every other frame has to be small, since no budget
/// bounds it.
pub(super) fn excess(header: Header) -> Option<Failure> {
    let is_request = MessageKind::from_wire(header.kind) == Some(MessageKind::Request);
    let detail = || format!("a first frame of {} bytes", header.length);
    (!is_request && header.length as usize > MAX_HEADER)
        .then(|| Failure::new(Code::TooLarge, detail()))
}

/// Reads the first frame of a stream the peer opened. Connections to a relay have no services.
pub(super) fn opening(frame: Frame, has_services: bool) -> Opening {
    match Message::decode(frame.kind, frame.payload) {
        Ok(Some(Message::Stream(StreamMessage::ResetAt(at)))) => Opening::ResetAt(at),
        _ if !has_services => {
            Opening::Refuse(Failure::new(Code::NoSuchService, "a relay has no services"))
        }
        Ok(Some(Message::Stream(StreamMessage::Open(open)))) => Opening::Service(open),
        Ok(Some(Message::Stream(StreamMessage::Request(request)))) => Opening::Request(request),
        Ok(Some(_)) => Opening::Refuse(violation("a stream cannot begin with this message")),
        Ok(None) => Opening::Refuse(violation("a stream begins with an unknown message")),
        Err(error) => Opening::Refuse(violation(&error.to_string())),
    }
}

/// Reads the acceptor's answer.
pub(super) fn answer(frame: Frame) -> Receiving {
    match Message::decode(frame.kind, frame.payload) {
        Ok(Some(Message::Stream(StreamMessage::Opened(_)))) => Receiving::Raw,
        Ok(Some(Message::Stream(StreamMessage::Error(error)))) => {
            Receiving::Refused(error.to_failure())
        }
        Ok(Some(_) | None) => Receiving::Refused(violation("the answer is not one to a stream")),
        Err(error) => Receiving::Refused(violation(&error.to_string())),
    }
}

fn violation(detail: &str) -> Failure {
    Failure::new(Code::ProtocolViolation, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MAX_PAYLOAD;

    #[test]
    fn only_a_request_may_begin_a_stream_with_a_large_frame() {
        let excess = |kind, length: usize| excess(Header { kind, length: length as u32 });
        assert_eq!(excess(MessageKind::Request.to_wire(), MAX_PAYLOAD), None);
        for kind in [MessageKind::Open.to_wire(), MessageKind::Response.to_wire(), 0xff] {
            assert_eq!(excess(kind, MAX_HEADER), None);
            assert_eq!(excess(kind, MAX_HEADER + 1).unwrap().code(), Code::TooLarge);
        }
    }
}
