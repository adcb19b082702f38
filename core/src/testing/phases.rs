//! The phases after the faults of a world: it is healed, quiesces, and ends.
//!
//! It decides how long each may take, and what must be true then.

use std::time::Duration;

use super::clock::{EPOCH, origin};
use super::link::Conditions;
use super::marks::Mark;
use super::net::HostId;
use super::op::{Op, Side};
use super::pair;
use super::play::Play;
use crate::lifecycle::State;

/// The longest back-off with its jitter, a handshake's whole time, the longest silence and the time
/// to catch up on lost data.
pub(super) const HEALED_WITHIN: Duration = Duration::from_secs(78 + 30 + 60 + 60);

/// Packets of an idle pair of connections in five minutes: keep-alives, heartbeats, their answers
/// and acknowledgements.
const IDLE_PACKETS: u64 = 600;

impl Play {
    /// Takes every fault back, and sees that all comes right.
    pub(super) fn heal(&mut self) {
        self.is_healing = true;
        self.is_lazy = false;
        let [a, c] = self.hosts;
        self.world.net_mut().set_conditions(a, c, &Conditions::default());
        for side in Side::BOTH {
            let host = self.host(side);
            self.world.resume(host);
            let unix = EPOCH + (self.world.now() - origin());
            self.world.set_unix(host, unix);
            self.settle();
            let starts = self.start(side);
            // A node that is shutting down is done within its drain time; then it starts again.
            if self.world.is_running(host) && self.is_leaving(host) {
                self.advance(Duration::from_secs(6));
                assert!(self.world.node(host).is_shut_down(), "it does not end");
                self.crash(side);
            }
            if !self.world.is_running(host) {
                self.world.restart(host);
                assert_eq!(self.start(side), starts + 1);
            }
        }
        for side in Side::BOTH {
            let (host, start) = (self.host(side), self.start(side));
            self.flows.heal(side, start, self.world.node_mut(host).0, &mut self.marks);
            for peer in self.lives.of(side, start) {
                let (node, now) = self.world.node_mut(host);
                self.asks.on_datagrams(peer, node, &mut self.marks);
                if matches!(node.state(peer), Some(State::Failed { .. })) {
                    node.reconnect(peer, now).expect("it had failed");
                }
            }
        }
        self.settle();
        if self.lives.of(Side::Agent, self.start(Side::Agent)).is_empty() {
            self.apply(Op::Dial);
            self.settle();
        }
        self.advance(HEALED_WITHIN);
        let start = self.start(Side::Agent);
        for peer in self.lives.of(Side::Agent, start) {
            assert!(pair::is_connected(&self.world, a, peer), "{peer} was not healed");
        }
        for side in Side::BOTH {
            let history = self.world.node(self.host(side)).history();
            self.lives.check_history(side, self.start(side), history);
        }
        self.flows.check_complete();
        self.asks.check_complete();
    }

    fn is_leaving(&self, host: HostId) -> bool {
        self.world.node(host).is_leaving()
    }

    /// Ends all traffic, and checks that an idle connection costs almost no packets.
    pub(super) fn quiesce(&mut self) {
        for side in Side::BOTH {
            let (host, start) = (self.host(side), self.start(side));
            for tag in self.flows.of(side, start) {
                let node = self.world.node_mut(host).0;
                self.flows.reset(tag, side, node);
                self.flows.stop(tag, side, node);
            }
            self.settle();
        }
        self.advance(Duration::from_secs(120));
        for side in Side::BOTH {
            for peer in self.world.node(self.host(side)).snapshot().peers {
                if peer.datagrams_dropped > 0 {
                    self.marks.hit(Mark::DatagramDropped);
                }
                let left = (peer.streams, peer.held_bytes, peer.requests.queued);
                assert_eq!(left, (0, 0, 0), "{side:?}: {} is not idle", peer.id);
            }
        }
        let before = self.world.net().counters().sent;
        self.advance(Duration::from_secs(300));
        let packets = self.world.net().counters().sent - before;
        let beats = 300 / self.interval.as_secs() * 8;
        assert!(packets <= IDLE_PACKETS + beats, "{packets} packets of an idle world");
    }

    /// Disconnects, and checks that no state is left.
    pub(super) fn drop_all(&mut self) {
        let (host, start) = (self.host(Side::Agent), self.start(Side::Agent));
        for peer in self.lives.of(Side::Agent, start) {
            let (node, now) = self.world.node_mut(host);
            node.disconnect(peer, now).expect("it is not closed");
        }
        self.advance(Duration::from_secs(120));
        for side in Side::BOTH {
            let node = self.world.node(self.host(side));
            let snapshot = node.snapshot();
            assert_eq!((snapshot.connections, snapshot.peers.len()), (0, 0), "{side:?}");
            assert_eq!(node.deadline(), None, "{side:?}");
            assert!(self.lives.of(side, self.start(side)).is_empty(), "{side:?}");
        }
        assert_eq!(self.world.next_at(), None);
    }
}
