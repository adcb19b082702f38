//! The requests and datagrams of a world: which ones were sent, and which answers are valid.
//!
//! A request is offered at most once, and ends exactly once: with its responder's answer, or with a
//! failure. A datagram arrives at most once, and unchanged.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::marks::{Mark, Marks};
use super::op::Side;
use super::pair::pattern;
use crate::error::{Code, Failure, Misuse};
use crate::id::{PeerId, RequestId};
use crate::node::Node;
use crate::request::{Priority, Request};

/// A request at the n-th start of a node.
type Name = (Side, u64, RequestId);

/// Bytes of a chunk of an answer: ten are more than a responder may have waiting.
const CHUNK: u64 = 40_000;
const CHUNKS: u64 = 10;

/// What a responder does, chosen by the content of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Whole,
    Chunks,
    Refuses,
    BreaksOff,
    Silent,
}

impl Manner {
    const fn from_byte(byte: u8) -> Self {
        match byte % 8 {
            0..=2 => Self::Whole,
            3 | 4 => Self::Chunks,
            5 => Self::Refuses,
            6 => Self::BreaksOff,
            _ => Self::Silent,
        }
    }

    /// Returns the length of the complete answer to the request of this number.
    const fn answer(self, tag: usize) -> u64 {
        match self {
            Self::Whole => (tag as u64 * 7919) % 20_000,
            Self::Chunks | Self::BreaksOff => CHUNK * CHUNKS,
            Self::Refuses | Self::Silent => 0,
        }
    }
}

#[derive(Debug)]
struct Asked {
    name: Name,
    manner: Manner,
    number: u8,
    due: Instant,
    read: u64,
    was_offered: bool,
    was_answered: bool,
    outcome: Option<Result<(), Code>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Asks {
    asked: Vec<Asked>,
    by_name: BTreeMap<Name, usize>,
    /// Answers in progress: the number of the request and of the next chunk.
    answering: BTreeMap<Name, (usize, u64)>,
    datagrams: Vec<(usize, bool)>,
}

impl Asks {
    /// Makes a request, to be answered in the manner of this number.
    pub(super) fn ask(
        &mut self,
        (side, start, peer): (Side, u64, PeerId),
        number: u8,
        (node, now): (&mut Node, Instant),
        marks: &mut Marks,
    ) {
        let tag = self.asked.len();
        let deadline = Duration::from_secs([1, 5, 30, 60][usize::from(number) % 4]);
        let priority = [Priority::Normal, Priority::High, Priority::Low][usize::from(number) % 3];
        let request = Request::new(body(tag, number)).deadline(deadline).priority(priority);
        match node.request(peer, request, now) {
            Ok(id) => {
                let name = (side, start, id);
                assert_eq!(self.by_name.insert(name, tag), None, "{id} was there before");
                self.asked.push(Asked {
                    name,
                    manner: Manner::from_byte(number),
                    number,
                    due: now + deadline,
                    read: 0,
                    was_offered: false,
                    was_answered: false,
                    outcome: None,
                });
            }
            Err(Misuse::OverLimit) => marks.hit(Mark::RequestQueueFull),
            Err(_) => {}
        }
    }

    /// Cancels the n-th of the requests of a node that are not over.
    pub(super) fn cancel(&mut self, side: Side, start: u64, nth: usize, node: &mut Node) {
        let is_open = |asked: &&mut Asked| {
            (asked.name.0, asked.name.1) == (side, start) && asked.outcome.is_none()
        };
        let mut open: Vec<_> = self.asked.iter_mut().filter(is_open).collect();
        let count = open.len().max(1);
        if let Some(asked) = open.get_mut(nth % count) {
            node.cancel(asked.name.2).expect("it is not over");
            asked.outcome = Some(Err(Code::Cancelled));
        }
    }

    pub(super) fn on_offered(&mut self, name: Name, node: &mut Node, marks: &mut Marks) {
        // A request that was offered may have been withdrawn immediately.
        let Some(mut offer) = node.offer(name.2) else { return };
        let arrived = offer.body.clone();
        let tag = bytes::Buf::get_u64(&mut offer.body) as usize;
        let asked = &mut self.asked[tag];
        assert!(!asked.was_offered, "offered twice: {:?}", asked.name);
        assert!(arrived == body(tag, asked.number), "another body arrived: {:?}", asked.name);
        assert_eq!(asked.name.0.other(), name.0, "offered to its maker");
        asked.was_offered = true;
        match asked.manner {
            Manner::Silent => {}
            Manner::Whole => {
                asked.was_answered = true;
                let answer = content(tag, 0, asked.manner.answer(tag));
                node.respond(name.2, answer).expect("it was offered");
            }
            Manner::Refuses => {
                let failure = Failure::new(Code::BackendUnavailable, "refused");
                node.fail(name.2, &failure).expect("it was offered");
            }
            Manner::Chunks | Manner::BreaksOff => {
                self.answering.insert(name, (tag, 0));
                self.answer_on(name, node, marks);
            }
        }
    }

    fn answer_on(&mut self, name: Name, node: &mut Node, marks: &mut Marks) {
        let Some((tag, next)) = self.answering.get_mut(&name) else { return };
        let asked = &mut self.asked[*tag];
        loop {
            if asked.manner == Manner::BreaksOff && *next == 3 {
                let failure = Failure::new(Code::BackendUnavailable, "broken off");
                node.fail(name.2, &failure).expect("the answer is not complete");
                break;
            }
            let is_last = *next == CHUNKS - 1;
            let chunk = content(*tag, *next * CHUNK, CHUNK);
            // A chunk may reach the requester before the next line runs.
            asked.was_answered |= is_last;
            match node.respond_chunk(name.2, chunk, is_last) {
                Poll::Ready(Ok(())) if is_last => break,
                Poll::Ready(Ok(())) => *next += 1,
                Poll::Ready(Err(Misuse::UnknownRequest)) => {
                    marks.hit(Mark::RequestWithdrawn);
                    break;
                }
                Poll::Ready(Err(misuse)) => panic!("{misuse}: {asked:?}"),
                Poll::Pending => return marks.hit(Mark::ChunkBlocked),
            }
        }
        self.answering.remove(&name);
    }

    pub(super) fn on_progressed(
        &mut self,
        name: Name,
        (node, now): (&mut Node, Instant),
        marks: &mut Marks,
    ) {
        let Some(&tag) = self.by_name.get(&name) else {
            return self.answer_on(name, node, marks);
        };
        let asked = &mut self.asked[tag];
        while asked.outcome.is_none() {
            match node.response(name.2) {
                Poll::Pending => return,
                Poll::Ready(Ok(Some(part))) => {
                    let expected = content(tag, asked.read, part.len() as u64);
                    assert!(part == expected, "a wrong answer at {}: {asked:?}", asked.read);
                    asked.read += part.len() as u64;
                }
                Poll::Ready(Ok(None)) => {
                    assert!(asked.was_answered, "nobody answered {asked:?}");
                    assert_eq!(asked.read, asked.manner.answer(tag), "cut short: {asked:?}");
                    asked.outcome = Some(Ok(()));
                    marks.hit(if asked.manner == Manner::Whole {
                        Mark::Answered
                    } else {
                        Mark::AnsweredInChunks
                    });
                }
                Poll::Ready(Err(failure)) => {
                    let code = failure.code();
                    asked.outcome = Some(Err(code));
                    let known = [
                        (Code::BackendUnavailable, Mark::RequestRefused),
                        (Code::DeadlineExceeded, Mark::RequestExpired),
                        (Code::ConnectionLost, Mark::RequestLost),
                    ];
                    let mark = known.into_iter().find(|(known, _)| *known == code);
                    let is_early = code == Code::DeadlineExceeded && now < asked.due;
                    assert!(!is_early, "expired before its time: {asked:?}");
                    mark.into_iter().for_each(|(_, mark)| marks.hit(mark));
                }
            }
        }
    }

    /// Handles the crash of a node, which loses its requests.
    pub(super) fn on_crash(&mut self, side: Side, start: u64) {
        for asked in &mut self.asked {
            if (asked.name.0, asked.name.1) == (side, start) {
                asked.outcome.get_or_insert(Err(Code::Closed));
            }
        }
        self.answering.retain(|name, _| (name.0, name.1) != (side, start));
    }

    /// Checks that no request of a running node is open after its deadline.
    pub(super) fn check_deadlines(&self, side: Side, start: u64, now: Instant) {
        for asked in &self.asked {
            if (asked.name.0, asked.name.1) == (side, start) && asked.outcome.is_none() {
                assert!(
                    now <= asked.due,
                    "its deadline passed {:?} ago: {asked:?}",
                    now - asked.due
                );
            }
        }
    }

    /// Checks that every request is over.
    pub(super) fn check_complete(&self) {
        for asked in &self.asked {
            assert!(asked.outcome.is_some(), "neither answered nor failed: {asked:?}");
        }
    }

    /// Sends a datagram, if there is a connection.
    pub(super) fn send_datagram(&mut self, peer: PeerId, size: u8, node: &mut Node) {
        let (tag, length) = (self.datagrams.len(), 16 * usize::from(size));
        let mut data = BytesMut::new();
        data.put_u64(tag as u64);
        data.put(pattern(tag as u64, length as u64));
        if node.send_datagram(peer, &data).is_ok() {
            self.datagrams.push((length, false));
        }
    }

    /// Fetches the datagrams of a peer.
    pub(super) fn on_datagrams(&mut self, peer: PeerId, node: &mut Node, marks: &mut Marks) {
        while let Some(mut data) = node.recv_datagram(peer) {
            let tag = bytes::Buf::get_u64(&mut data) as usize;
            let (length, has_arrived) = &mut self.datagrams[tag];
            assert!(!*has_arrived, "datagram {tag} arrived twice");
            assert!(data == pattern(tag as u64, *length as u64), "datagram {tag} has changed");
            *has_arrived = true;
            marks.hit(Mark::DatagramDelivered);
        }
    }
}

/// Returns the body of a request: its tag first.
fn body(tag: usize, number: u8) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u64(tag as u64);
    body.put(pattern(tag as u64, u64::from(number / 8) * 3_000));
    body.freeze()
}

/// Returns the answer to the request of this number.
fn content(tag: usize, offset: u64, length: u64) -> Bytes {
    pattern(offset + 4_099 * tag as u64, length)
}
