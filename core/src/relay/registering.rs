//! Registration of names: taking, keeping and losing one.

use std::time::Instant;

use super::Relay;
use super::registry::ConnectorRegistration;
use super::shutting_down;
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::message::{Message, Register, Registered, RelayMessage, Unregistered};
use crate::shares::Origin;
use crate::timer::Reason;
use crate::tls::KeyDigest;

/// A registration that may be made.
struct Admitted {
    mesh: KeyDigest,
    origin: Origin,
    /// The registration that it replaces.
    ghost: Option<PeerId>,
}

impl Relay {
    /// Registers a client, or refreshes its registration. A refused refresh leaves the earlier
    /// registration in place: it is a sign of life all the same.
    pub(super) fn register(&mut self, client: PeerId, register: &Register, now: Instant) {
        match self.admit(client, register) {
            Ok(Admitted { mesh, origin, ghost }) => {
                if let Some(ghost) = ghost {
                    self.evict(ghost, client);
                }
                let registration = ConnectorRegistration::new(mesh, origin, register, now);
                self.install(client, registration, now);
                self.end_the_revoked(client, mesh, &origin);
                let registered = Registered { refresh_ms: self.config.refresh_ms() };
                self.send(client, Message::Relay(RelayMessage::Registered(registered)));
                self.answer_held(client, now);
            }
            Err(failure) => {
                if self.registry.get(client).is_some() {
                    self.keep(client, now);
                }
                self.send(
                    client,
                    Message::Relay(RelayMessage::Unregistered(Unregistered::from(&failure))),
                );
            }
        }
    }

    /// Checks whether a client may register as it asks: in which mesh, and in place of which other
    /// registration. Makes room for it.
    fn admit(&mut self, client: PeerId, register: &Register) -> Result<Admitted, Failure> {
        let attached = self.clients.get(&client);
        let (mesh, origin) =
            attached.and_then(|it| Some((it.mesh?, it.origin()))).ok_or_else(|| {
                Failure::new(Code::Forbidden, "only a member of a mesh can register a name in it")
            })?;
        self.may_register(client, mesh, register)?;
        if let Some(after) = self.draining
            && self.registry.get(client).is_none()
        {
            return Err(shutting_down(after));
        }
        let holder = self.registry.holder(mesh, &register.name).filter(|holder| *holder != client);
        if let Some(holder) = holder {
            self.may_replace(holder, client, register.takeover)?;
        }
        let key = origin.key();
        if let Some(service) = self.registry.crowded(client, mesh, key, &register.services) {
            let words = format!("too many connectors offer {service} already");
            return Err(Failure::new(Code::Overloaded, words));
        }
        self.make_room(client, register, &origin)?;
        Ok(Admitted { mesh, origin, ghost: holder })
    }

    /// Ends registrations of the client with the most entries until there is room for another. It
    /// may register again, and then has less than its share.
    fn make_room(
        &mut self,
        client: PeerId,
        register: &Register,
        origin: &Origin,
    ) -> Result<(), Failure> {
        while !self.registry.has_room(client, register, self.config.entries) {
            let Some(largest) = self.registry.makes_room(client, register, origin) else {
                let words = "the relay has no room for so large a registration";
                return Err(Failure::new(Code::Overloaded, words));
            };
            let words = "the relay is full, and this source or mesh has the most registrations";
            let failure = Failure::new(Code::Overloaded, words);
            let failure = failure.with_retry_after(self.config.refresh);
            self.end_registration(largest, &failure);
            let ended = Unregistered::from(&failure);
            self.send(largest, Message::Relay(RelayMessage::Unregistered(ended)));
            self.counters.displaced += 1;
        }
        Ok(())
    }

    /// Checks whether the certificate of a client is one of a connector of this name.
    fn may_register(
        &self,
        client: PeerId,
        mesh: KeyDigest,
        register: &Register,
    ) -> Result<(), Failure> {
        let Some(attached) = self.clients.get(&client) else { return Ok(()) };
        let forbidden = |words| Err(Failure::new(Code::Forbidden, words));
        if attached.names.is_empty() {
            return forbidden("only a connector can register: a certificate for serverAuth");
        }
        if !attached.names.iter().any(|name| name.eq_ignore_ascii_case(&register.name)) {
            return forbidden("the name is not one of the DNS names in the certificate");
        }
        if self.revocations.contains(mesh, attached.key, attached.serial) {
            return forbidden("a connector of this mesh has revoked the certificate");
        }
        Ok(())
    }

    fn may_replace(
        &self,
        holder: PeerId,
        client: PeerId,
        is_takeover: bool,
    ) -> Result<(), Failure> {
        let (Some(held_by), Some(asked_by)) =
            (self.clients.get(&holder), self.clients.get(&client))
        else {
            return Ok(());
        };
        if held_by.key != asked_by.key {
            return Err(Failure::new(Code::NameTaken, "another device is registered by this name"));
        }
        if !is_takeover {
            let words = format!("this identity is registered from {} already", held_by.observed);
            return Err(Failure::new(Code::InUse, words).with_retry_after(self.config.expiry()));
        }
        Ok(())
    }

    /// Ends the registration of a key that came back on another connection. The older connection is
    /// stale or belongs to a second program; it is notified where the name went.
    fn evict(&mut self, ghost: PeerId, client: PeerId) {
        let Some(observed) = self.clients.get(&client).map(|it| it.observed) else { return };
        let gone = Failure::new(Code::PeerGone, "the connector registered again");
        self.end_registration(ghost, &gone);
        let words = format!("this identity registered again from {observed}");
        let failure = Failure::new(Code::Replaced, words);
        self.send(ghost, Message::Relay(RelayMessage::Unregistered(Unregistered::from(&failure))));
        self.counters.evicted += 1;
    }

    fn install(&mut self, client: PeerId, registration: ConnectorRegistration, now: Instant) {
        let before = self.registry.get(client).map(|it| it.name.clone());
        if before.is_some_and(|name| name != registration.name) {
            let gone = Failure::new(Code::PeerGone, "the connector has another name now");
            self.end_registration(client, &gone);
        }
        self.registry.insert(client, registration);
        self.keep(client, now);
        self.hang_up_the_refused(client);
    }

    /// Begins the time of a registration again.
    fn keep(&mut self, client: PeerId, now: Instant) {
        self.timers.set(client, Some((now + self.config.expiry(), Reason::Registration)));
    }

    /// Remembers which certificates a connector has revoked, and ends their registrations.
    fn end_the_revoked(&mut self, client: PeerId, mesh: KeyDigest, origin: &Origin) {
        let Some(key) = self.clients.get(&client).map(|it| it.key) else { return };
        let Some(registration) = self.registry.get(client) else { return };
        let (list, limit) = (&registration.revoked, self.config.entries);
        if !self.revocations.set((mesh, key), origin, list, limit) {
            return;
        }
        for id in self.registry.of_mesh(mesh) {
            let Some(attached) = self.clients.get(&id) else { continue };
            if self.revocations.contains(mesh, attached.key, attached.serial) {
                let words = "a connector of this mesh has revoked the certificate";
                let failure = Failure::new(Code::Forbidden, words);
                self.end_registration(id, &failure);
                let ended = Unregistered::from(&failure);
                self.send(id, Message::Relay(RelayMessage::Unregistered(ended)));
            }
        }
    }

    pub(super) fn withdraw(&mut self, client: PeerId) {
        let gone = Failure::new(Code::PeerGone, "the connector withdrew");
        self.end_registration(client, &gone);
    }

    pub(super) fn expire(&mut self, client: PeerId) {
        let gone = Failure::new(Code::PeerGone, "the connector has fallen silent");
        self.end_registration(client, &gone);
        let words = format!("not registered again within {:?}", self.config.expiry());
        let failure = Failure::new(Code::TimedOut, words);
        self.send(client, Message::Relay(RelayMessage::Unregistered(Unregistered::from(&failure))));
        self.counters.expired += 1;
    }

    /// Frees the registration of a client, and ends the channels that others have because of it.
    fn end_registration(&mut self, client: PeerId, why: &Failure) {
        if self.unregister(client) {
            self.hang_up_all(client, why, |end| !end.is_caller);
        }
    }

    /// Removes the registration of a client, and returns true if there was one.
    pub(super) fn unregister(&mut self, client: PeerId) -> bool {
        self.timers.set(client, None);
        self.registry.remove(client).is_some()
    }
}
