//! A relay that does wrong, for tests: what it is given to pass on, and what it says, is somebody's to
//! change. It decides nothing itself.

use std::fmt::Debug;
use std::time::Instant;

use super::Node;
use crate::id::PeerId;
use crate::message::Message;

/// Whoever has taken a relay over, or looks at what it sees: out of the encryption between its clients
/// and itself.
pub trait Meddler: Debug + Send {
    /// What is passed on in place of this datagram of a client's, and as whose; by default itself.
    fn on_packet(&mut self, from: PeerId, datagram: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        vec![(from, datagram.to_vec())]
    }

    /// A message to a client, before it is said; by default it stays as it is.
    fn on_message(&mut self, _to: PeerId, _message: &mut Message) {}
}

impl Node {
    /// From now on this node, which is a relay, does as `meddler` says.
    pub fn take_over(&mut self, meddler: Box<dyn Meddler>) {
        if let Some(serving) = &mut self.serving {
            serving.meddler = Some(meddler);
        }
    }

    /// Whether somebody did it in the relay's place.
    pub(super) fn meddle_with_packet(
        &mut self,
        from: PeerId,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let Some(serving) = &mut self.serving else { return false };
        let Some(meddler) = &mut serving.meddler else { return false };
        for (from, datagram) in meddler.on_packet(from, datagram) {
            serving.relay.forward(from, &datagram, now);
        }
        true
    }

    pub(super) fn meddle_with_message(&mut self, to: PeerId, mut message: Message) -> Message {
        if let Some(meddler) = self.serving.as_mut().and_then(|s| s.meddler.as_mut()) {
            meddler.on_message(to, &mut message);
        }
        message
    }
}
