//! The state that a driver and its handles share: the node under a lock, and the wakers of waiting
//! tasks.
//!
//! User code is never called under the lock. Wakers are called under it: a waker of `std::task`
//! only schedules.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::io::Clock;
use super::wakers::Wakers;
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::fallback::Fallback;
use crate::id::{PeerId, RequestId, StreamId};
use crate::lifecycle::State;
use crate::message::ServiceName;
use crate::node::{Node, Output};
use crate::timer::Deadline;

/// Lifecycle events kept for a subscriber that does not fetch them; beyond it the oldest are
/// dropped.
pub(super) const EVENT_BUFFER: usize = 1_024;

/// Streams and requests that peers offered and the application has not taken yet. Bounded by the
/// transport's stream limit.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) streams: VecDeque<(StreamId, ServiceName)>,
    pub(super) requests: VecDeque<RequestId>,
    /// Why the peer is closed; no more offers come then.
    pub(super) closed: Option<Failure>,
    /// Handles that name the peer.
    pub(super) handles: usize,
}

impl Offers {
    /// Keeps a request until the application takes it. Requests that the peer has cancelled
    /// meanwhile are removed first, since a peer that cancels without end would otherwise fill the
    /// memory.
    fn push_request(&mut self, request: RequestId, node: &Node) {
        if self.requests.len() == self.requests.capacity() {
            self.requests.retain(|id| node.is_offered(*id));
        }
        self.requests.push_back(request);
    }
}

/// One subscriber's events.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    pub(super) events: VecDeque<Event>,
    pub(super) dropped: u64,
    pub(super) waker: Option<Waker>,
}

pub(super) struct Inner {
    pub(super) node: Node,
    pub(super) wakers: Wakers,
    pub(super) driver: Option<Waker>,
    pub(super) accepted: VecDeque<PeerId>,
    pub(super) offers: BTreeMap<PeerId, Offers>,
    pub(super) subscribers: BTreeMap<u64, Subscriber>,
    pub(super) next_subscriber: u64,
    /// Why the node has no further work.
    pub(super) over: Option<Failure>,
    /// The driver sends no more.
    pub(super) has_driver_ended: bool,
}

impl Inner {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            wakers: Wakers::default(),
            driver: None,
            accepted: VecDeque::new(),
            offers: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            next_subscriber: 0,
            over: None,
            has_driver_ended: false,
        }
    }

    /// Records an event for later callers, and wakes the tasks that wait for it now.
    pub(super) fn on_event(&mut self, event: Event) {
        match &event {
            Event::Accepted { peer } => {
                self.offers.entry(*peer).or_default();
                self.accepted.push_back(*peer);
            }
            Event::StreamOffered { stream, service } => {
                if let Some(offers) = self.offers.get_mut(&stream.peer()) {
                    offers.streams.push_back((*stream, service.clone()));
                }
            }
            Event::RequestOffered { peer, request } => {
                if let Some(offers) = self.offers.get_mut(peer) {
                    offers.push_request(*request, &self.node);
                }
            }
            Event::Transition { peer, transition } => {
                // Offers are dropped with their connection.
                if !matches!(transition.to, State::Connected { .. })
                    && let Some(offers) = self.offers.get_mut(peer)
                {
                    offers.streams.clear();
                    offers.requests.clear();
                }
            }
            Event::Closed { peer, failure } => self.on_closed(*peer, failure),
            Event::ShutDown => self.over = Some(Failure::new(Code::Closed, "shut down")),
            Event::AttemptFailed { .. }
            | Event::Rejected { .. }
            | Event::HeartbeatAcked { .. }
            | Event::GoingAway { .. }
            | Event::Observed { .. }
            | Event::Registered { .. }
            | Event::Unregistered { .. }
            | Event::PathChanged { .. }
            | Event::StreamsAvailable { .. }
            | Event::StreamReadable { .. }
            | Event::StreamWritable { .. }
            | Event::StreamFinished { .. }
            | Event::StreamStopped { .. }
            | Event::DatagramReceived { .. }
            | Event::RequestProgressed { .. } => {}
        }
        self.wakers.on_event(&event);
        self.publish(event);
    }

    fn on_closed(&mut self, peer: PeerId, failure: &Failure) {
        self.accepted.retain(|accepted| *accepted != peer);
        if let Some(offers) = self.offers.get_mut(&peer) {
            offers.streams.clear();
            offers.requests.clear();
            offers.closed = Some(failure.clone());
            if offers.handles == 0 {
                self.offers.remove(&peer);
            }
        }
    }

    fn publish(&mut self, event: Event) {
        if !is_lifecycle(&event) {
            return;
        }
        for subscriber in self.subscribers.values_mut() {
            if subscriber.events.len() >= EVENT_BUFFER {
                subscriber.events.pop_front();
                subscriber.dropped += 1;
            }
            subscriber.events.push_back(event.clone());
            if let Some(waker) = subscriber.waker.take() {
                waker.wake();
            }
        }
    }

    /// Takes the events that a call caused, and wakes the driver to send its output.
    pub(super) fn settle(&mut self) {
        while let Some(event) = self.node.poll_event() {
            self.on_event(event);
        }
        self.wake_driver();
    }

    pub(super) fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    /// Ends everything: the driver has ended.
    pub(super) fn end(&mut self, failure: Failure) {
        self.over.get_or_insert(failure);
        self.has_driver_ended = true;
        self.wakers.wake_all_tasks();
        for subscriber in self.subscribers.values_mut() {
            if let Some(waker) = subscriber.waker.take() {
                waker.wake();
            }
        }
    }

    /// Routes one output of the node; the driver handles a transmission.
    pub(super) fn take(&mut self, output: Output) -> Option<crate::transmit::Transmit> {
        match output {
            Output::Transmit(transmit) => Some(transmit),
            Output::Event(event) => {
                self.on_event(event);
                None
            }
        }
    }
}

/// Returns true for events that a subscriber sees: those of connections, not of streams.
const fn is_lifecycle(event: &Event) -> bool {
    match event {
        Event::Transition { .. }
        | Event::AttemptFailed { .. }
        | Event::Accepted { .. }
        | Event::Closed { .. }
        | Event::Rejected { .. }
        | Event::HeartbeatAcked { .. }
        | Event::GoingAway { .. }
        | Event::Observed { .. }
        | Event::Registered { .. }
        | Event::Unregistered { .. }
        | Event::PathChanged { .. }
        | Event::ShutDown => true,
        Event::StreamsAvailable { .. }
        | Event::StreamOffered { .. }
        | Event::StreamReadable { .. }
        | Event::StreamWritable { .. }
        | Event::StreamFinished { .. }
        | Event::StreamStopped { .. }
        | Event::DatagramReceived { .. }
        | Event::RequestOffered { .. }
        | Event::RequestProgressed { .. } => false,
    }
}

/// The shared state and its clock.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    fallback: Mutex<Fallback>,
    /// The fallback has a relay or a listener, or had one: most nodes have neither, and pay
    /// nothing.
    uses_fallback: AtomicBool,
    pub(super) clock: Arc<dyn Clock>,
    /// The address of the socket, as far as the adapter knows.
    pub(super) local: Result<SocketAddr, ErrorKind>,
}

impl Shared {
    pub(super) fn new(
        inner: Inner,
        fallback: Fallback,
        clock: Arc<dyn Clock>,
        local: Result<SocketAddr, ErrorKind>,
    ) -> Self {
        Self {
            inner: Mutex::new(inner),
            fallback: Mutex::new(fallback),
            uses_fallback: AtomicBool::new(false),
            clock,
            local,
        }
    }

    /// Returns whether the fallback has anything to do.
    pub(super) fn uses_fallback(&self) -> bool {
        self.uses_fallback.load(Ordering::Acquire)
    }

    /// From now on the driver asks the fallback.
    pub(super) fn use_fallback(&self) {
        self.uses_fallback.store(true, Ordering::Release);
        self.lock().wake_driver();
    }

    /// Returns when the fallback is due.
    pub(super) fn fallback_deadline(&self) -> Option<Deadline> {
        if self.uses_fallback() { self.fallback().deadline() } else { None }
    }

    /// Returns the TCP fallback, which stands beside the node.
    pub(super) fn fallback(&self) -> MutexGuard<'_, Fallback> {
        self.fallback.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Start;
    use crate::testing::clock::{EPOCH, origin};
    use crate::testing::crypto::SeededCrypto;
    use crate::testing::pair;

    #[test]
    fn requests_that_were_given_up_before_anybody_took_them_do_not_pile_up() {
        let crypto = SeededCrypto::new([1; 32]);
        let config = pair::agent(&crypto).build().expect("the defaults work");
        let start = Start { seed: [1; 32], now: origin(), unix: EPOCH };
        let mut inner = Inner::new(Node::new(config, start).expect("the identity is good"));
        let peer = PeerId(0);
        inner.on_event(Event::Accepted { peer });
        for request in 0..10_000 {
            inner.on_event(Event::RequestOffered { peer, request: RequestId(request) });
        }
        let kept = inner.offers.get(&peer).map_or(0, |o| o.requests.len());
        assert!(kept <= 16, "{kept} are kept");
    }
}
