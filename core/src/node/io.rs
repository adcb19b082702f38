//! The shared parts that every owner uses: the transport, the clock, the configuration, and the
//! queues of effects and events.
//!
//! An owner changes only its own fields and those of [`Io`]. What it causes in another owner is an
//! [`Effect`]: only the node drains that queue, so that no method reaches itself by way of others,
//! however many peers there are.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::shutdown::Shutdown;
use crate::clock::ClampedClock;
use crate::config::Config;
use crate::error::Failure;
use crate::event::Event;
use crate::id::{PeerId, StreamId};
use crate::message::{self, Message};
use crate::quic::{Connection, ConnectionId, Endpoint};
use crate::rng::Rng;

/// An effect of one owner on another.
#[derive(Debug)]
pub(super) enum Effect {
    /// Put a message on a peer's control stream.
    Send { peer: PeerId, message: Message },
    /// Close a peer's connection; the peer may come back.
    Close { peer: PeerId, failure: Failure },
    /// An attempt to connect begins.
    AttemptStarted { peer: PeerId },
    /// An attempt to connect has failed.
    AttemptFailed { peer: PeerId },
    /// No relay found the service of an attempt within its time.
    LookupOverdue { peer: PeerId },
    /// A peer is connected.
    Up { peer: PeerId },
    /// The connection of a peer is lost, with all its streams and requests.
    Down { peer: PeerId, connection: ConnectionId, failure: Failure },
    /// A dialled peer that lost its connection is to be dialled again.
    Redial { peer: PeerId, failure: Failure },
    /// No further attempt to connect will be made.
    GaveUp { peer: PeerId, failure: Failure },
    /// A peer is over.
    Remove { peer: PeerId, failure: Failure },
    /// A handshake was complete, but its peer was refused.
    Refused { connection: ConnectionId },
    /// A peer's stream carries a request that has arrived completely.
    RequestArrived { stream: StreamId, request: message::Request },
    /// A peer's request bodies that waited for room may continue.
    BodyReleased { peer: PeerId },
    /// One relay sees this node at another address: the others are to be notified.
    AddressChanged { relay: PeerId },
}

/// The transport, the clock, the configuration, and the queues.
pub(super) struct Io {
    pub(super) quic: Endpoint,
    pub(super) clock: ClampedClock,
    pub(super) config: Config,
    /// No new peers, streams or requests begin while the node is shutting down.
    pub(super) shutdown: Shutdown,
    rng: Rng,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
}

impl Io {
    pub(super) const fn new(quic: Endpoint, clock: ClampedClock, config: Config, rng: Rng) -> Self {
        Self {
            quic,
            clock,
            config,
            shutdown: Shutdown::None,
            rng,
            effects: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Returns the latest time that the node received.
    pub(super) const fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the wall time at that instant.
    pub(super) fn unix(&self) -> Duration {
        self.clock.unix()
    }

    /// Returns a separate generator for one purpose.
    pub(super) fn rng(&mut self, purpose: &str) -> Rng {
        Rng::new(self.rng.seed(), purpose)
    }

    /// Queues an event for the caller.
    pub(super) fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Queues the event that a handshake of another node failed, unless [`Event::ShutDown`] was the
    /// last event.
    pub(super) fn reject(&mut self, remote: SocketAddr, failure: Failure) {
        if !self.shutdown.is_over() {
            self.emit(Event::Rejected { remote, failure });
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Queues an effect on another owner.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Queues a message for a peer's control stream.
    pub(super) fn send(&mut self, peer: PeerId, message: Message) {
        self.effect(Effect::Send { peer, message });
    }

    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(super) fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Runs `act` on a connection for a call that cannot end it (see [`Endpoint::stream`]).
    pub(super) fn on<T>(
        &mut self,
        connection: ConnectionId,
        act: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        self.quic.stream(connection, act)
    }

    /// Closes a connection and sends its peer the reason.
    pub(super) fn close(&mut self, connection: ConnectionId, failure: &Failure) {
        let now = self.now();
        self.quic.with(connection, now, |c| c.close(failure, now));
    }
}
