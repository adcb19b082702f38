//! Leaving in good order: say so, let what is under way finish, close, be gone.

use std::time::Instant;

use super::Node;
use super::peer::Peer;
use crate::error::{Code, Failure};
use crate::event::Event;
use crate::id::PeerId;
use crate::message::{Goaway, Message};
use crate::timer::{Deadline, Reason};

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// Nobody asked for one.
    #[default]
    None,
    /// What is under way may finish until then.
    Draining(Instant),
    /// Every peer is gone.
    Done,
}

impl Shutdown {
    pub(super) const fn is_under_way(self) -> bool {
        !matches!(self, Self::None)
    }

    pub(super) const fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Draining(until) => Some((until, Reason::Drain)),
            Self::None | Self::Done => None,
        }
    }
}

impl Node {
    /// Shuts the node down: no new peers, streams or requests; peers are told; what is under way
    /// may finish within the configured drain time; then every connection is closed and
    /// [`Event::ShutDown`] follows.
    pub fn shutdown(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if self.shutdown.is_under_way() {
            return;
        }
        self.shutdown = Shutdown::Draining(now + self.config.drain);
        self.endpoint.stop_accepting();
        let mut farewell = Failure::new(Code::ShuttingDown, "shutting down");
        if let Some(after) = self.start_relay_drain() {
            farewell = farewell.with_retry_after(after);
        }
        let goaway = Message::Goaway(Goaway::from(&farewell));
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            // One that nothing is under way with is closed at once, with the same words.
            let is_busy = self.peers.get(&id).is_some_and(|p| !self.is_quiet(p));
            let link = self.peers.get_mut(&id).filter(|_| is_busy).and_then(|p| p.link.as_mut());
            if let Some(pushed) = link.map(|l| l.control.push(&goaway)) {
                self.after_push(id, pushed, now);
            }
        }
        self.advance(now);
    }

    /// Whether a shutdown was asked for and every peer is gone. What is still to be sent tells
    /// the peers, so drain the outputs before letting go of the socket.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.shutdown == Shutdown::Done
    }

    /// Whether every peer was told as well, as far as that is up to this side: there is nothing more
    /// to wait for.
    #[must_use]
    pub fn has_taken_leave(&self) -> bool {
        self.is_shut_down() && !self.endpoint.is_sending() && !self.endpoint.is_closing()
    }

    pub(super) fn advance_shutdown(&mut self, now: Instant) {
        let Shutdown::Draining(until) = self.shutdown else { return };
        let failure = Failure::new(Code::ShuttingDown, "shutting down");
        let is_over = until <= now;
        let (relays, others): (Vec<&Peer>, Vec<&Peer>) =
            self.peers.values().partition(|p| self.is_relay(p.id));
        let relays: Vec<PeerId> = relays.iter().map(|p| p.id).collect();
        let mut ready: Vec<PeerId> =
            others.iter().filter(|p| is_over || self.is_quiet(p)).map(|p| p.id).collect();
        // A relay carries what the others are told: it is left when they have been.
        let are_alone = others.is_empty() && !relays.is_empty();
        if is_over || (are_alone && !self.is_carrying()) {
            ready.extend(relays);
        }
        for id in ready {
            // It was listed a moment ago.
            let _ = self.end_peer(id, &failure, now);
        }
        if self.peers.is_empty() {
            self.shutdown = Shutdown::Done;
            self.emit(Event::ShutDown);
        }
    }

    /// Whether something of a closed connection is still to go out through a relay.
    fn is_carrying(&mut self) -> bool {
        let links = self.peers.values().filter_map(|p| p.link.as_ref());
        let connections: Vec<_> = links.map(|link| link.connection).collect();
        // Only looking has nothing to send: a node that did would not come to rest.
        let mut waits = |connection| self.endpoint.datagrams_waiting(connection) > 0;
        connections.into_iter().any(&mut waits) || self.endpoint.is_closing()
    }

    fn is_quiet(&self, peer: &Peer) -> bool {
        peer.queue.is_empty()
            && peer.link.as_ref().is_none_or(|l| l.streams.len() == 0)
            && !self.is_carrying_for(peer.id)
    }
}
