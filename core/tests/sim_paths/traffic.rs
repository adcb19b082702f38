//! Application traffic over one stream, in either direction or both, and when its bytes arrive.
//!
//! It decides what each end writes and reads. It never changes the network, and never judges.

use std::task::Poll;
use std::time::{Duration, Instant};

use adit_core::error::Code;
use adit_core::id::{PeerId, StreamId};
use adit_core::testing::lab::Lab;
use adit_core::testing::net::HostId;
use bytes::Bytes;

use super::ms;

/// What the two ends do with the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// The agent writes as much as it can.
    Upload,
    /// The connector does.
    Download,
    /// Both do.
    Both,
    /// The agent writes a few bytes, the connector returns them, and so on.
    Echo,
    /// Both write a few bytes every 100 ms, whatever arrives.
    Typing,
}

impl Load {
    pub(crate) const ALL: [Self; 5] =
        [Self::Upload, Self::Download, Self::Both, Self::Echo, Self::Typing];

    /// Returns whether each end, the agent first, is sent bytes.
    pub(crate) const fn reads(self) -> [bool; 2] {
        match self {
            Self::Upload => [false, true],
            Self::Download => [true, false],
            Self::Both | Self::Echo | Self::Typing => [true, true],
        }
    }
}

/// The time between two small writes of [`Load::Typing`].
const TYPED_EVERY: Duration = ms(100);
/// Bytes of a small write.
const SMALL: usize = 64;
/// Bytes of a large one.
const LARGE: usize = 64 << 10;

/// One stream, and its bytes.
pub(crate) struct Traffic {
    load: Load,
    /// The stream at each end, the agent's first.
    ends: [(HostId, StreamId); 2],
    /// Small writes that each end is still to make.
    owed: [usize; 2],
    typed: Instant,
    /// When each end read the first byte after the latest mark.
    marked: Instant,
    first: [Option<Instant>; 2],
    is_broken: bool,
}

impl Traffic {
    /// Opens the stream and begins.
    pub(crate) fn new(
        lab: &mut Lab,
        from: (HostId, PeerId),
        connector: HostId,
        load: Load,
    ) -> Self {
        let (ours, theirs) = lab.open(from, connector);
        Self {
            load,
            ends: [(from.0, ours), (connector, theirs)],
            owed: [usize::from(load == Load::Echo), 0],
            typed: lab.now(),
            marked: lab.now(),
            first: [None; 2],
            is_broken: false,
        }
    }

    /// Returns true if the stream ended with its connection.
    pub(crate) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// From now on the first byte at each end is awaited.
    pub(crate) fn mark(&mut self, lab: &Lab) {
        self.marked = lab.now();
        self.first = [None; 2];
    }

    /// Returns how long after the mark each end read its first byte.
    pub(crate) fn firsts(&self) -> [Option<Duration>; 2] {
        self.first.map(|at| at.map(|at| at - self.marked))
    }

    /// Returns true if bytes came wherever they are awaited, or none can come.
    pub(crate) fn has_come(&self) -> bool {
        let mut awaited = self.load.reads().into_iter().zip(self.first);
        self.is_broken || awaited.all(|(reads, first)| !reads || first.is_some())
    }

    /// Lets time pass while the traffic goes on, until `until` or until `is_done`.
    pub(crate) fn run(&mut self, lab: &mut Lab, until: Instant, is_done: impl Fn(&Self) -> bool) {
        loop {
            self.advance(lab);
            if is_done(self) {
                return;
            }
            let next = if self.load == Load::Typing { self.typed.min(until) } else { until };
            if !lab.step(next) && lab.now() >= until {
                return;
            }
        }
    }

    /// Ends the stream: what is not sent yet is not sent.
    pub(crate) fn end(self, lab: &mut Lab) {
        for (host, stream) in self.ends {
            let mut end = lab.node_mut(host).0.stream(stream);
            end.reset(Code::Cancelled);
            end.stop(Code::Cancelled);
        }
    }

    fn advance(&mut self, lab: &mut Lab) {
        if self.load == Load::Typing && lab.now() >= self.typed {
            self.typed = lab.now() + TYPED_EVERY;
            self.owed = self.owed.map(|owed| owed + 1);
        }
        for end in 0..2 {
            if !self.is_broken {
                let went = self.take(lab, end).and_then(|()| self.give(lab, end));
                self.is_broken = went.is_none();
            }
        }
    }

    /// Reads what has come at an end. Returns `None` if the stream is over.
    fn take(&mut self, lab: &mut Lab, end: usize) -> Option<()> {
        let (host, stream) = self.ends[end];
        let now = lab.now();
        while let Poll::Ready(read) = lab.node_mut(host).0.stream(stream).read(LARGE) {
            let bytes = read.ok()??;
            self.first[end].get_or_insert(now);
            if self.load == Load::Echo {
                self.owed[end] += bytes.len().div_ceil(SMALL);
            }
        }
        Some(())
    }

    /// Writes at an end what is to be written. Returns `None` if the stream is over.
    fn give(&mut self, lab: &mut Lab, end: usize) -> Option<()> {
        let (host, stream) = self.ends[end];
        let is_bulk = match self.load {
            Load::Upload => end == 0,
            Load::Download => end == 1,
            Load::Both => true,
            Load::Echo | Load::Typing => false,
        };
        while is_bulk || self.owed[end] > 0 {
            let mut chunk = Bytes::from(vec![0; if is_bulk { LARGE } else { SMALL }]);
            match lab.node_mut(host).0.stream(stream).write(&mut chunk) {
                Poll::Ready(taken) => {
                    taken.ok()?;
                    self.owed[end] = self.owed[end].saturating_sub(1);
                }
                Poll::Pending => break,
            }
        }
        Some(())
    }
}
