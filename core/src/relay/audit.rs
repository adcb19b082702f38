//! The invariants of a relay between any two calls, checked by tests and fuzzing.
//!
//! It only reads; a broken invariant is a bug of this relay, and panics.

use super::Relay;
use super::client::ChannelEnd;

impl Relay {
    /// Checks that every channel has two live ends which name each other and are allowed to have
    /// it, that a name has one holder, that counters and indices match their contents, and that
    /// every limit is kept.
    ///
    /// # Panics
    /// When that is not so.
    pub(crate) fn audit(&self) {
        let mut ends = 0;
        for (id, client) in &self.clients {
            ends += client.channels.len();
            let called = client.channels.values().filter(|end| end.is_caller).count();
            assert_eq!(client.called, called, "{id}");
            assert!(called <= self.config.channels, "{id} has called {called}");
            assert!(client.served() <= self.config.channels_of_a_connector, "{id}");
            for (number, end) in &client.channels {
                let partner = &self.clients[&end.partner];
                let back = ChannelEnd { partner: *id, number: *number, is_caller: !end.is_caller };
                assert_eq!(partner.channels.get(&end.number), Some(&back), "{id} {number}");
                assert_ne!(end.partner, *id, "a channel to itself");
                if end.is_caller {
                    let connector = self.registry.get(end.partner).expect("it is registered");
                    let is_in = connector.admits(client.key, client.mesh, client.serial);
                    assert!(is_in, "{id} may not have a channel to {}", end.partner);
                }
            }
        }
        assert_eq!(ends, 2 * self.channels, "half a channel");
        assert_eq!(self.guests, self.clients.values().filter(|it| it.mesh.is_none()).count());
        assert!(self.clients.len() <= self.config.clients);
        for (id, registration) in self.registry.iter() {
            assert_eq!(self.clients[&id].mesh, Some(registration.mesh), "{id}");
        }
        assert_eq!(self.timers.len(), self.registry.len(), "a registration without its end");
        self.registry.audit();
        self.revocations.audit(self.config.entries);
        self.held.audit(self.config.held());
        assert!(self.held.clients().all(|id| self.clients.contains_key(&id)));
        self.queues.audit();
        assert!(self.queues.receivers().all(|id| self.clients.contains_key(&id)));
    }

    /// Returns true if no state of any client is left.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
            && self.registry.len() == 0
            && self.queues.bytes() == 0
            && self.timers.is_empty()
            && self.held.is_empty()
            && self.channels == 0
            && self.guests == 0
    }
}
