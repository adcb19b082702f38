//! Packets that wait for a client until its connection has room: fair between their senders, and
//! bounded.
//!
//! It decides which packet goes next and which is dropped. It never inspects a packet, and does not
//! know which client may send to which.
//!
//! Every sender has a separate queue for each receiver, and these take turns by bytes (deficit
//! round robin, Shreedhar and Varghese 1995). When there is no room, the oldest packet of the
//! sender with the most bytes waiting is dropped: a sender above its share takes no room from one
//! below it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::id::PeerId;

/// Size that a packet counts beyond its bytes: about the memory to hold one.
pub(super) const OVERHEAD: usize = 64;

/// Bytes that a sender may send in its turn: one full packet of an ordinary path.
const QUANTUM: usize = 1_500;

/// Bytes that may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueCapacity {
    /// Bytes for one receiver.
    pub(super) of_a_receiver: usize,
    /// Bytes for one receiver from one sender.
    pub(super) of_a_source: usize,
    /// Bytes for all receivers.
    pub(super) in_all: usize,
}

/// The packets that wait for every client. A client without waiting packets takes no room.
#[derive(Debug)]
pub(super) struct Queues {
    limits: QueueCapacity,
    receivers: BTreeMap<PeerId, ReceiverQueue>,
    /// Receivers that were given packets since they were last returned.
    ready: BTreeSet<PeerId>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct ReceiverQueue {
    flows: BTreeMap<PeerId, SourceQueue>,
    /// The senders in their order of turns, each with a packet waiting once.
    turns: VecDeque<PeerId>,
    bytes: usize,
}

#[derive(Debug)]
struct SourceQueue {
    packets: VecDeque<Bytes>,
    bytes: usize,
    credit: usize,
}

impl Queues {
    pub(super) const fn new(limits: QueueCapacity) -> Self {
        Self { limits, receivers: BTreeMap::new(), ready: BTreeSet::new(), bytes: 0 }
    }

    /// Appends a packet of `source` to the queue of `receiver`, and returns how many packets were
    /// dropped for it, itself included if it was.
    pub(super) fn push(&mut self, receiver: PeerId, source: PeerId, packet: Bytes) -> u64 {
        let cost = packet.len() + OVERHEAD;
        let queue = self.receivers.entry(receiver).or_default();
        let mut dropped = 0;
        let is_kept = loop {
            let own = queue.flows.get(&source).map_or(0, |flow| flow.bytes);
            let victim = if own + cost > self.limits.of_a_source {
                source
            } else if queue.bytes + cost > self.limits.of_a_receiver
                || self.bytes + cost > self.limits.in_all
            {
                queue.heaviest(source, own + cost)
            } else {
                break true;
            };
            dropped += 1;
            let Some(freed) = queue.drop_oldest(victim) else { break false };
            self.bytes -= freed;
        };
        if is_kept {
            queue.push(source, packet, cost);
            self.bytes += cost;
            self.ready.insert(receiver);
        }
        if queue.bytes == 0 {
            self.forget(receiver);
        }
        dropped
    }

    /// Returns a client that was given packets since this last returned it.
    pub(super) fn poll_ready(&mut self) -> Option<PeerId> {
        self.ready.pop_first()
    }

    /// Returns the length of the next packet for a client.
    pub(super) fn peek(&mut self, receiver: PeerId) -> Option<usize> {
        self.receivers.get_mut(&receiver)?.next().map(Bytes::len)
    }

    /// Removes the next packet for a client.
    pub(super) fn poll(&mut self, receiver: PeerId) -> Option<Bytes> {
        let queue = self.receivers.get_mut(&receiver)?;
        queue.next()?;
        let packet = queue.take()?;
        self.bytes -= packet.len() + OVERHEAD;
        if queue.bytes == 0 {
            self.forget(receiver);
        }
        Some(packet)
    }

    /// Drops all packets that wait for a client, and returns how many.
    pub(super) fn remove(&mut self, receiver: PeerId) -> u64 {
        let Some(queue) = self.receivers.get(&receiver) else { return 0 };
        self.bytes -= queue.bytes;
        let packets = queue.flows.values().map(|flow| flow.packets.len() as u64).sum();
        self.forget(receiver);
        packets
    }

    fn forget(&mut self, receiver: PeerId) {
        self.receivers.remove(&receiver);
        self.ready.remove(&receiver);
    }

    /// Returns the clients with waiting packets.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn receivers(&self) -> impl Iterator<Item = PeerId> {
        self.receivers.keys().copied()
    }

    /// Returns the bytes that wait for all clients.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ReceiverQueue {
    /// Returns the sender with the most bytes waiting once `source` has `own` bytes; `source` among
    /// equals.
    fn heaviest(&self, source: PeerId, own: usize) -> PeerId {
        let others = self.flows.iter().filter(|(id, _)| **id != source);
        let most = others.map(|(id, flow)| (flow.bytes, *id)).max();
        most.filter(|(bytes, _)| *bytes > own).map_or(source, |(_, id)| id)
    }

    fn push(&mut self, source: PeerId, packet: Bytes, cost: usize) {
        self.bytes += cost;
        let turns = &mut self.turns;
        let flow = self.flows.entry(source).or_insert_with(|| {
            turns.push_back(source);
            SourceQueue { packets: VecDeque::new(), bytes: 0, credit: QUANTUM }
        });
        flow.bytes += cost;
        flow.packets.push_back(packet);
    }

    /// Drops the oldest packet of a sender, and returns how many bytes that freed; `None` if it has
    /// none.
    fn drop_oldest(&mut self, source: PeerId) -> Option<usize> {
        let flow = self.flows.get_mut(&source)?;
        let freed = flow.packets.pop_front()?.len() + OVERHEAD;
        flow.bytes -= freed;
        self.bytes -= freed;
        if flow.packets.is_empty() {
            self.flows.remove(&source);
            self.turns.retain(|it| *it != source);
        }
        Some(freed)
    }

    /// Returns the packet that goes next: turns pass until it is that of a sender that may send.
    fn next(&mut self) -> Option<&Bytes> {
        loop {
            let flow = self.flows.get_mut(self.turns.front()?)?;
            let cost = flow.packets.front()?.len() + OVERHEAD;
            if flow.credit >= cost {
                break;
            }
            flow.credit += QUANTUM;
            self.turns.rotate_left(1);
        }
        self.flows.get(self.turns.front()?)?.packets.front()
    }

    fn take(&mut self) -> Option<Bytes> {
        let source = *self.turns.front()?;
        let flow = self.flows.get_mut(&source)?;
        let packet = flow.packets.pop_front()?;
        let cost = packet.len() + OVERHEAD;
        flow.bytes -= cost;
        flow.credit = flow.credit.saturating_sub(cost);
        self.bytes -= cost;
        if flow.packets.is_empty() {
            self.flows.remove(&source);
            self.turns.pop_front();
        }
        Some(packet)
    }
}

#[cfg(any(test, feature = "testing"))]
impl Queues {
    /// Checks that counters and indices match the packets, and that limits are kept.
    pub(super) fn audit(&self) {
        let mut all = 0;
        for (id, queue) in &self.receivers {
            let mut sum = 0;
            for flow in queue.flows.values() {
                let bytes: usize = flow.packets.iter().map(|it| it.len() + OVERHEAD).sum();
                assert_eq!(flow.bytes, bytes, "{id}");
                assert!(bytes > 0 && bytes <= self.limits.of_a_source, "{id}: {bytes} of one");
                sum += bytes;
            }
            let turns: BTreeSet<_> = queue.turns.iter().collect();
            assert_eq!(turns.len(), queue.turns.len(), "{id}: a sender has two turns");
            assert!(turns.into_iter().eq(queue.flows.keys()), "{id}: a sender has no turn");
            assert!(sum > 0 && sum <= self.limits.of_a_receiver, "{id}: {sum} wait");
            assert_eq!(queue.bytes, sum, "{id}");
            all += sum;
        }
        assert_eq!(self.bytes, all);
        assert!(all <= self.limits.in_all);
        assert!(
            self.ready.iter().all(|id| self.receivers.contains_key(id)),
            "an empty one is ready"
        );
    }
}
