//! A relay under somebody else's control, for tests: it may change what it passes on and what it
//! sends. It decides nothing itself.

use std::fmt::Debug;

use crate::id::PeerId;
use crate::message::Message;

/// Has taken a relay over, or looks at what it sees outside of the encryption between its clients
/// and itself.
pub trait FaultInjector: Debug + Send {
    /// Returns what is passed on in place of this datagram of a client's, and in whose name; by
    /// default the datagram itself.
    fn on_packet(&mut self, from: PeerId, datagram: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        vec![(from, datagram.to_vec())]
    }

    /// May change a message to a client before it is sent; by default it stays as it is.
    fn on_message(&mut self, _to: PeerId, _message: &mut Message) {}
}
