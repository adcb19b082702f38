//! The forwarded streams of a world: which data was written, and which data may be read.
//!
//! A reader sees a prefix of what its writer wrote, in order, once, and the end only at the end.
//! The applications here react only to events and never poll without one, so that an event which
//! the node omits shows as a stream that stalls.

use std::collections::BTreeMap;
use std::task::Poll;

use super::marks::{Mark, Marks};
use super::op::Side;
use super::pair::pattern;
use crate::error::{Code, Failure};
use crate::id::{PeerId, StreamId};
use crate::message::ServiceName;
use crate::node::{Node, StreamError};

/// A stream at the n-th start of a node.
type Name = (Side, u64, StreamId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Open,
    Finished,
    Reset,
    /// Stopped by the peer, or lost with its connection.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Open,
    Ended,
    Stopped,
    /// Reset by the peer, refused, or lost with its connection.
    Gone,
}

/// One side of a stream.
#[derive(Debug)]
struct End {
    name: Name,
    backlog: u64,
    wants_end: bool,
    written: u64,
    out: Out,
    /// It may be abandoned after that, and its end arrive all the same.
    was_finished: bool,
    is_reading: bool,
    read: u64,
    into: In,
    is_lost: bool,
}

/// How the acceptor treats a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Accepting,
    Refusing,
    /// Decides when the world is being healed.
    Hesitating,
}

#[derive(Debug)]
struct Flow {
    service: Service,
    opener: Side,
    ends: [Option<End>; 2],
    /// Offered, and not decided upon.
    waiting: Option<Name>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    by_name: BTreeMap<Name, usize>,
    is_healing: bool,
}

impl End {
    const fn new(name: Name) -> Self {
        Self {
            name,
            backlog: 0,
            wants_end: false,
            written: 0,
            out: Out::Open,
            was_finished: false,
            is_reading: true,
            read: 0,
            into: In::Open,
            is_lost: false,
        }
    }
}

impl Flows {
    /// Opens a stream to a service.
    pub(super) fn open(
        &mut self,
        (side, start, peer): (Side, u64, PeerId),
        service: u8,
        node: &mut Node,
        marks: &mut Marks,
    ) {
        let tag = self.flows.len();
        let name: ServiceName = format!("s{tag}").parse().expect("a service name");
        let service = match service % 8 {
            0..=5 => Service::Accepting,
            6 => Service::Refusing,
            _ => Service::Hesitating,
        };
        match node.open(peer, name) {
            Ok(Some(stream)) => {
                let name = (side, start, stream);
                let mut ends = [None, None];
                ends[side as usize] = Some(End::new(name));
                assert_eq!(self.by_name.insert(name, tag), None, "{stream} was there before");
                self.flows.push(Flow { service, opener: side, ends, waiting: None });
            }
            Ok(None) => marks.hit(Mark::StreamsExhausted),
            Err(_) => {}
        }
    }

    pub(super) fn on_offered(
        &mut self,
        (side, start, stream): Name,
        service: &ServiceName,
        node: &mut Node,
        marks: &mut Marks,
    ) {
        let name = (side, start, stream);
        let tag: usize = service.as_str()[1..].parse().expect("a service of ours");
        let flow = &mut self.flows[tag];
        assert_eq!(flow.opener.other(), side, "offered to its opener");
        assert!(flow.ends[side as usize].is_none() && flow.waiting.is_none(), "offered twice");
        match flow.service {
            Service::Hesitating if self.is_healing => self.accept(tag, name, node, marks),
            Service::Accepting => self.accept(tag, name, node, marks),
            Service::Refusing => {
                let failure = Failure::new(Code::NoSuchService, "refused");
                // Its connection may be lost meanwhile.
                let _ = node.refuse_stream(stream, &failure);
            }
            Service::Hesitating => flow.waiting = Some(name),
        }
    }

    fn accept(&mut self, tag: usize, name: Name, node: &mut Node, marks: &mut Marks) {
        // Its connection may have been lost while it was waiting.
        if node.accept_stream(name.2).is_ok() {
            let side = name.0;
            self.flows[tag].ends[side as usize] = Some(End::new(name));
            assert_eq!(self.by_name.insert(name, tag), None, "{} was there before", name.2);
            self.read(tag, side, node, marks);
        }
    }

    /// Returns the indices of a side's streams on running nodes.
    pub(super) fn of(&self, side: Side, start: u64) -> Vec<usize> {
        let there = |(tag, flow): (usize, &Flow)| {
            let end = flow.ends[side as usize].as_ref()?;
            (end.name.1 == start).then_some(tag)
        };
        self.flows.iter().enumerate().filter_map(there).collect()
    }

    /// Adds more data for a side to write.
    pub(super) fn write(
        &mut self,
        tag: usize,
        side: Side,
        bytes: u64,
        node: &mut Node,
        marks: &mut Marks,
    ) {
        if let Some(end) = &mut self.flows[tag].ends[side as usize]
            && !end.wants_end
        {
            end.backlog += bytes;
        }
        self.push(tag, side, node, marks);
    }

    /// Lets a side finish its direction.
    pub(super) fn finish(&mut self, tag: usize, side: Side, node: &mut Node, marks: &mut Marks) {
        if let Some(end) = &mut self.flows[tag].ends[side as usize] {
            end.wants_end = true;
        }
        self.push(tag, side, node, marks);
    }

    /// Lets a side reset its direction.
    pub(super) fn reset(&mut self, tag: usize, side: Side, node: &mut Node) {
        if let Some(end) = &mut self.flows[tag].ends[side as usize] {
            node.stream(end.name.2).reset(Code::Cancelled);
            if end.out != Out::Gone {
                end.out = Out::Reset;
            }
            end.backlog = 0;
        }
    }

    /// Lets a side stop the other direction.
    pub(super) fn stop(&mut self, tag: usize, side: Side, node: &mut Node) {
        if let Some(end) = &mut self.flows[tag].ends[side as usize] {
            node.stream(end.name.2).stop(Code::Cancelled);
            if end.into == In::Open {
                end.into = In::Stopped;
            }
        }
    }

    /// Lets a side pause its reading, or continue.
    pub(super) fn hold(&mut self, tag: usize, side: Side, node: &mut Node, marks: &mut Marks) {
        if let Some(end) = &mut self.flows[tag].ends[side as usize] {
            end.is_reading = !end.is_reading;
        }
        self.read(tag, side, node, marks);
    }

    pub(super) fn on_readable(&mut self, name: Name, node: &mut Node, marks: &mut Marks) {
        if let Some(&tag) = self.by_name.get(&name) {
            self.read(tag, name.0, node, marks);
        }
    }

    pub(super) fn on_writable(&mut self, name: Name, node: &mut Node, marks: &mut Marks) {
        if let Some(&tag) = self.by_name.get(&name) {
            self.push(tag, name.0, node, marks);
        }
    }

    pub(super) fn on_finished(&self, name: Name) {
        if let Some(&tag) = self.by_name.get(&name) {
            let end = self.flows[tag].ends[name.0 as usize].as_ref().expect("it has a name");
            assert!(end.was_finished, "finished without being told: {end:?}");
        }
    }

    pub(super) fn on_stopped(&mut self, name: Name, marks: &mut Marks) {
        let Some(&tag) = self.by_name.get(&name) else { return };
        let flow = &mut self.flows[tag];
        if let Some(reader) = &flow.ends[name.0.other() as usize] {
            assert_eq!(reader.into, In::Stopped, "nobody stopped it");
        }
        let end = flow.ends[name.0 as usize].as_mut().expect("it has a name");
        if end.out == Out::Open {
            marks.hit(Mark::StreamStopped);
        }
        (end.out, end.backlog) = (Out::Gone, 0);
    }

    fn push(&mut self, tag: usize, side: Side, node: &mut Node, marks: &mut Marks) {
        let Some(end) = &mut self.flows[tag].ends[side as usize] else { return };
        while end.backlog > 0 && end.out == Out::Open {
            let mut chunk = content(tag, side, end.written, end.backlog.min(64 << 10));
            match node.stream(end.name.2).write(&mut chunk) {
                Poll::Ready(Ok(taken)) => {
                    end.written += taken as u64;
                    end.backlog -= taken as u64;
                }
                Poll::Pending => return marks.hit(Mark::WriteBlocked),
                // The event for it is still to come; without it, the backlog stays.
                Poll::Ready(Err(_)) => return,
            }
        }
        if end.wants_end && end.out == Out::Open {
            let finished = node.stream(end.name.2).finish();
            end.was_finished = finished.is_ok();
            end.out = if finished.is_ok() { Out::Finished } else { Out::Gone };
        }
    }

    fn read(&mut self, tag: usize, side: Side, node: &mut Node, marks: &mut Marks) {
        let flow = &mut self.flows[tag];
        let [one, two] = &mut flow.ends;
        let (end, writer) = match side {
            Side::Agent => (one, two),
            Side::Connector => (two, one),
        };
        let Some(end) = end else { return };
        while end.is_reading && end.into == In::Open {
            let read = match node.stream(end.name.2).read(50_000) {
                Poll::Pending => return,
                Poll::Ready(read) => read,
            };
            match read {
                Ok(Some(bytes)) => {
                    let expected = content(tag, side.other(), end.read, bytes.len() as u64);
                    assert!(bytes == expected, "wrong bytes at {} of {end:?}", end.read);
                    end.read += bytes.len() as u64;
                    let written = writer.as_ref().map_or(0, |w| w.written);
                    assert!(end.read <= written, "more was read than written: {end:?}");
                }
                Ok(None) => {
                    let writer = writer.as_ref().expect("somebody ended it");
                    assert_eq!((writer.was_finished, writer.written), (true, end.read));
                    marks.hit(Mark::StreamEnded);
                    end.into = In::Ended;
                }
                Err(error) => {
                    end.into = In::Gone;
                    match error {
                        StreamError::Reset(_) => {
                            let out = writer.as_ref().map(|w| w.out);
                            assert!(matches!(out, None | Some(Out::Reset)), "nobody reset it");
                            marks.hit(Mark::StreamReset);
                        }
                        StreamError::Refused(_) => {
                            marks.hit(Mark::StreamRefused);
                            node.stream(end.name.2).reset(Code::Cancelled);
                            node.stream(end.name.2).stop(Code::Cancelled);
                            end.out = Out::Gone;
                        }
                        StreamError::ConnectionLost(_) => marks.hit(Mark::StreamLost),
                        StreamError::Stopped(_) | StreamError::Closed => {
                            panic!("{error}: {end:?}")
                        }
                    }
                }
            }
        }
    }

    /// Lets every application read again and make its pending decisions.
    pub(super) fn heal(&mut self, side: Side, start: u64, node: &mut Node, marks: &mut Marks) {
        self.is_healing = true;
        for tag in 0..self.flows.len() {
            if let Some(name) = self.flows[tag].waiting.filter(|n| (n.0, n.1) == (side, start)) {
                self.flows[tag].waiting = None;
                self.accept(tag, name, node, marks);
            }
        }
        for tag in self.of(side, start) {
            if let Some(end) = &mut self.flows[tag].ends[side as usize] {
                end.is_reading = true;
            }
            self.read(tag, side, node, marks);
        }
    }

    /// Handles the lost connection to a peer, and its lost streams.
    pub(super) fn on_lost(&mut self, side: Side, start: u64, peer: PeerId) {
        let ends = self.flows.iter_mut().filter_map(|flow| flow.ends[side as usize].as_mut());
        for end in ends.filter(|end| end.name.1 == start && end.name.2.peer() == peer) {
            end.is_lost = true;
        }
    }

    /// Handles the crash of a node, which loses its streams.
    pub(super) fn on_crash(&mut self, side: Side) {
        let ends = self.flows.iter_mut().filter_map(|flow| flow.ends[side as usize].as_mut());
        ends.for_each(|end| end.is_lost = true);
    }

    /// Checks that all data has been read where both ends still run.
    pub(super) fn check_complete(&self) {
        for flow in &self.flows {
            let [Some(one), Some(two)] = &flow.ends else { continue };
            if one.is_lost || two.is_lost {
                continue;
            }
            for (writer, reader) in [(one, two), (two, one)] {
                if matches!(writer.out, Out::Open | Out::Finished) && reader.into != In::Stopped {
                    assert_eq!(writer.backlog, 0, "nobody writes: {writer:?} {reader:?}");
                    assert_eq!(reader.read, writer.written, "it stands still: {reader:?}");
                    let (has_ended, was_finished) =
                        (reader.into == In::Ended, writer.out == Out::Finished);
                    assert_eq!(has_ended, was_finished, "{writer:?} {reader:?}");
                }
            }
        }
    }
}

/// Returns the data that a side writes: other streams and the other direction write different data.
fn content(tag: usize, side: Side, offset: u64, length: u64) -> bytes::Bytes {
    pattern(offset + 1013 * (2 * tag as u64 + side as u64), length)
}
