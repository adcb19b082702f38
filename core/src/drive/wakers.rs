//! Wakers of the tasks that wait on streams, requests and peers, and of those that accept.
//!
//! It wakes tasks; it never inspects the event for which it wakes them. A woken task asks the node
//! again, so that a superfluous wake-up is harmless and a missing one is the only bug possible
//! here: every event wakes all tasks that it could concern.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

use crate::event::Event;
use crate::id::{PeerId, RequestId, StreamId};
use crate::lifecycle::State;

/// The conditions that a task can wait for at a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Interest {
    /// The peer's state to change.
    State,
    /// A stream to be offered.
    Stream,
    /// A request to be offered.
    Request,
    /// A datagram.
    Datagram,
    /// Room for another stream at the peer.
    Open,
}

/// The direction of a stream that a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Read,
    Write,
}

/// Wakers, by the conditions they wait for.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    streams: BTreeMap<(StreamId, Direction), Waker>,
    requests: BTreeMap<RequestId, Waker>,
    peers: BTreeMap<(PeerId, Interest), Vec<Waker>>,
    accept: Vec<Waker>,
}

impl Wakers {
    pub(super) fn wait_stream(&mut self, id: StreamId, direction: Direction, cx: &Context<'_>) {
        match self.streams.get_mut(&(id, direction)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.streams.insert((id, direction), cx.waker().clone());
            }
        }
    }

    pub(super) fn wait_request(&mut self, id: RequestId, cx: &Context<'_>) {
        self.requests.insert(id, cx.waker().clone());
    }

    pub(super) fn wait_peer(&mut self, id: PeerId, interest: Interest, cx: &Context<'_>) {
        add(self.peers.entry((id, interest)).or_default(), cx);
    }

    pub(super) fn wait_accept(&mut self, cx: &Context<'_>) {
        add(&mut self.accept, cx);
    }

    /// Removes the waiters of a stream with a dropped handle.
    pub(super) fn forget_stream(&mut self, id: StreamId, direction: Direction) {
        self.streams.remove(&(id, direction));
    }

    pub(super) fn forget_request(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    /// Wakes all tasks that an event could concern.
    pub(super) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Transition { peer, transition } => {
                self.wake_peer(*peer, Interest::State);
                if !matches!(transition.to, State::Connected { .. }) {
                    self.wake_streams(*peer);
                }
                self.wake_peer(*peer, Interest::Open);
            }
            Event::Accepted { .. } => wake(&mut self.accept),
            Event::Closed { peer, .. } => self.wake_all(*peer),
            Event::GoingAway { peer } | Event::StreamsAvailable { peer } => {
                self.wake_peer(*peer, Interest::Open);
            }
            Event::StreamOffered { stream, .. } => self.wake_peer(stream.peer(), Interest::Stream),
            Event::StreamReadable { stream } => self.wake_stream(*stream, Direction::Read),
            Event::StreamWritable { stream } | Event::StreamFinished { stream } => {
                self.wake_stream(*stream, Direction::Write);
            }
            Event::StreamStopped { stream, .. } => {
                self.wake_stream(*stream, Direction::Write);
            }
            Event::DatagramReceived { peer } => self.wake_peer(*peer, Interest::Datagram),
            Event::RequestOffered { peer, .. } => self.wake_peer(*peer, Interest::Request),
            Event::RequestProgressed { request } => {
                if let Some(waker) = self.requests.remove(request) {
                    waker.wake();
                }
            }
            Event::ShutDown => wake(&mut self.accept),
            // No wait is over; but the wakers of tasks that have stopped waiting are dropped here,
            // or a long outage would keep every one of them.
            Event::AttemptFailed { peer, .. } => {
                self.wake_peer(*peer, Interest::State);
                self.wake_peer(*peer, Interest::Open);
            }
            Event::Rejected { .. }
            | Event::HeartbeatAcked { .. }
            | Event::Observed { .. }
            | Event::Registered { .. }
            | Event::Unregistered { .. }
            | Event::PathChanged { .. } => {}
        }
    }

    /// Wakes the tasks that wait to open a stream: this side is leaving and opens no more.
    pub(super) fn wake_openers(&mut self) {
        for ((_, interest), wakers) in &mut self.peers {
            if *interest == Interest::Open {
                wake(wakers);
            }
        }
    }

    /// Wakes every task because the driver has ended: no further event will come.
    pub(super) fn wake_all_tasks(&mut self) {
        wake(&mut self.accept);
        for (_, waker) in std::mem::take(&mut self.streams) {
            waker.wake();
        }
        for (_, waker) in std::mem::take(&mut self.requests) {
            waker.wake();
        }
        for (_, mut wakers) in std::mem::take(&mut self.peers) {
            wake(&mut wakers);
        }
    }

    fn wake_stream(&mut self, id: StreamId, direction: Direction) {
        if let Some(waker) = self.streams.remove(&(id, direction)) {
            waker.wake();
        }
    }

    fn wake_streams(&mut self, peer: PeerId) {
        let from = (StreamId { peer, connection: 0, index: 0 }, Direction::Read);
        let to = (StreamId { peer, connection: u64::MAX, index: u64::MAX }, Direction::Write);
        let keys: Vec<_> = self.streams.range(from..=to).map(|(key, _)| *key).collect();
        for (id, direction) in keys {
            self.wake_stream(id, direction);
        }
    }

    fn wake_peer(&mut self, peer: PeerId, interest: Interest) {
        if let Some(mut wakers) = self.peers.remove(&(peer, interest)) {
            wake(&mut wakers);
        }
    }

    fn wake_all(&mut self, peer: PeerId) {
        self.wake_streams(peer);
        for interest in [
            Interest::State,
            Interest::Stream,
            Interest::Request,
            Interest::Datagram,
            Interest::Open,
        ] {
            self.wake_peer(peer, interest);
        }
    }
}

fn add(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|w| w.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

fn wake(wakers: &mut Vec<Waker>) {
    for waker in wakers.drain(..) {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::error::{Code, Failure};

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn cancelled_waiters_are_dropped_with_the_next_failed_attempt() {
        let (mut wakers, peer) = (Wakers::default(), PeerId(0));
        let tasks: Vec<_> = (0..100).map(|_| Arc::new(Task)).collect();
        for task in &tasks {
            let waker = Waker::from(task.clone());
            wakers.wait_peer(peer, Interest::State, &Context::from_waker(&waker));
        }
        assert!(tasks.iter().all(|task| Arc::strong_count(task) == 2));
        let failure = Failure::new(Code::TimedOut, "");
        let retry_in = Duration::from_secs(1);
        wakers.on_event(&Event::AttemptFailed { peer, failure, attempt: 1, retry_in });
        assert!(tasks.iter().all(|task| Arc::strong_count(task) == 1));
    }
}
