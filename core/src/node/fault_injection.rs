//! A malicious relay, for tests: it may change what it forwards and what it sends. It decides
//! nothing itself.

use std::fmt::Debug;

use crate::id::PeerId;
use crate::message::Message;

/// Controls a relay, or observes what the relay sees outside of the encryption between its clients
/// and itself.
pub trait FaultInjector: Debug + Send {
    /// Returns the datagram to forward in place of this one from a client, and the client it seems
    /// to come from; by default the datagram itself.
    fn on_packet(&mut self, from: PeerId, datagram: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        vec![(from, datagram.to_vec())]
    }

    /// Changes a message to a client before it is sent; by default leaves it unchanged.
    fn on_message(&mut self, _to: PeerId, _message: &mut Message) {}
}
