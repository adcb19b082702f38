//! Datagrams of channels that no relay has announced to this node yet.
//!
//! A relay announces a channel on the control stream, and forwards its packets in datagrams: a
//! first packet arrives before the announcement when that is lost and retransmitted, and its sender
//! would repeat it only after a second (RFC 9002 §6.2.2). It decides which datagrams are kept and
//! for how long, and never inspects them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::{Channel, PeerId};

/// How long a datagram may be early: at most as long as a lost message takes to be sent again.
const KEPT: Duration = Duration::from_secs(1);

/// Early datagrams of one relay: the first packets of four concurrent dialers.
const MOST: usize = 16;

/// Those that wait.
#[derive(Debug, Default)]
pub(crate) struct EarlyDatagrams {
    kept: VecDeque<(Instant, Channel, Bytes)>,
}

impl EarlyDatagrams {
    /// Keeps a datagram, unless the limit of this relay is reached.
    pub(crate) fn push(&mut self, channel: Channel, datagram: &Bytes, now: Instant) {
        self.expire(now);
        let of_relay = self.kept.iter().filter(|(_, of, _)| of.relay == channel.relay).count();
        if of_relay < MOST {
            // A copy: the given bytes keep alive the whole buffer they were received in.
            self.kept.push_back((now, channel, Bytes::copy_from_slice(datagram)));
        }
    }

    /// Returns the datagrams of a channel, in order, and removes them.
    pub(crate) fn take(&mut self, channel: Channel, now: Instant) -> Vec<Bytes> {
        self.expire(now);
        let (its, others): (VecDeque<_>, _) =
            std::mem::take(&mut self.kept).into_iter().partition(|(_, of, _)| *of == channel);
        self.kept = others;
        its.into_iter().map(|(_, _, datagram)| datagram).collect()
    }

    /// Removes a lost relay, and its channels.
    pub(crate) fn forget(&mut self, relay: PeerId) {
        self.kept.retain(|(_, of, _)| of.relay != relay);
    }

    fn expire(&mut self, now: Instant) {
        self.kept.retain(|(since, _, _)| now.saturating_duration_since(*since) < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::anchor;

    const NANO: Duration = Duration::from_nanos(1);

    fn channel(relay: u64, number: u32) -> Channel {
        Channel { relay: PeerId(relay), number }
    }

    fn datagram(byte: u8) -> Bytes {
        vec![byte].into()
    }

    #[test]
    fn what_came_early_is_given_once_and_in_order_to_its_own_channel() {
        let (now, mut early) = (anchor(), EarlyDatagrams::default());
        for (of, byte) in [(channel(0, 1), 1), (channel(1, 1), 2), (channel(0, 1), 3)] {
            early.push(of, &datagram(byte), now);
        }
        assert_eq!(early.take(channel(0, 2), now), Vec::<Bytes>::new());
        assert_eq!(early.take(channel(0, 1), now), [datagram(1), datagram(3)]);
        assert_eq!(early.take(channel(0, 1), now), Vec::<Bytes>::new());
        early.forget(PeerId(1));
        assert_eq!(early.take(channel(1, 1), now), Vec::<Bytes>::new());
    }

    #[test]
    fn one_relay_fills_its_own_room_and_no_more() {
        let (now, mut early) = (anchor(), EarlyDatagrams::default());
        for number in 0..100 {
            early.push(channel(0, number), &datagram(0), now);
        }
        early.push(channel(1, 7), &datagram(7), now);
        assert_eq!(early.kept.len(), MOST + 1);
        assert_eq!(early.take(channel(1, 7), now), [datagram(7)]);
    }

    #[test]
    fn it_is_early_for_a_second_at_most() {
        let (now, mut early) = (anchor(), EarlyDatagrams::default());
        early.push(channel(0, 1), &datagram(1), now);
        early.push(channel(0, 2), &datagram(2), now);
        assert_eq!(early.take(channel(0, 1), now + KEPT - NANO), [datagram(1)]);
        assert_eq!(early.take(channel(0, 2), now + KEPT), Vec::<Bytes>::new());
        assert_eq!(early.kept.len(), 0);
    }
}
