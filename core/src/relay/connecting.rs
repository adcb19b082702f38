//! Channels: which client gets one to which connector, and when it ends.

use std::time::{Duration, Instant};

use super::Relay;
use super::client::ChannelEnd;
use super::shutting_down;
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::message::{
    Connect, Hangup, Incoming, Matched, Message, RelayMessage, ServiceName, Unmatched,
};

/// Delay requested of a client that asks too often, or for which there is no room.
const WAIT: Duration = Duration::from_secs(1);

impl Relay {
    /// Looks up a service for a client. A lookup that finds nothing is held for a while: after a
    /// restart, a connector is often the last to return.
    pub(super) fn connect(&mut self, client: PeerId, connect: &Connect, now: Instant) {
        let rate = self.config.connects();
        let is_within =
            self.clients.get_mut(&client).is_some_and(|it| it.connects.take(1, rate, now));
        let found = match is_within {
            true => self.find(client, connect, now),
            false => Err(busy("too many lookups")),
        };
        let is_unknown = found.as_ref().is_err_and(|it| it.code() == Code::UnknownService);
        if is_unknown && !self.config.lookup_wait.is_zero() {
            let until = now + self.config.lookup_wait;
            if self.held.hold(client, connect, self.config.held(), until) {
                return;
            }
        }
        self.send_found(client, connect, found);
    }

    /// Answers the held lookups of the services that a connector offers and that it admits.
    pub(super) fn answer_held(&mut self, connector: PeerId, now: Instant) {
        let Some(registration) = self.registry.get(connector) else { return };
        let admits = |client: &PeerId| {
            self.clients
                .get(client)
                .is_some_and(|it| registration.admits(it.key, it.mesh, it.serial))
        };
        let services = registration.services.iter();
        let waiting = services.flat_map(|service| self.held.of_service(service));
        let mut waiting: Vec<u64> =
            waiting.filter(|(_, client)| admits(client)).map(|(id, _)| id).collect();
        waiting.sort_unstable();
        for id in waiting {
            let Some(lookup) = self.held.get(id) else { continue };
            let (client, connect) = (lookup.client, lookup.connect.clone());
            let found = self.find(client, &connect, now);
            if found.as_ref().is_err_and(|it| it.code() == Code::UnknownService) {
                continue;
            }
            self.held.take(id);
            self.send_found(client, &connect, found);
        }
    }

    /// Answers a lookup that was held long enough.
    pub(super) fn answer(&mut self, client: PeerId, connect: &Connect, now: Instant) {
        let found = self.find(client, connect, now);
        self.send_found(client, connect, found);
    }

    /// Opens a channel to a connector that offers the service. Returns the caller's number for it,
    /// and the connector.
    fn find(
        &mut self,
        client: PeerId,
        connect: &Connect,
        now: Instant,
    ) -> Result<(u32, PeerId), Failure> {
        let connector = self.choose(client, connect, now)?;
        self.open(client, connector, &connect.service).ok_or_else(unknown_service)
    }

    fn send_found(
        &mut self,
        client: PeerId,
        connect: &Connect,
        found: Result<(u32, PeerId), Failure>,
    ) {
        let answer = match found {
            Ok((channel, connector)) => {
                self.counters.matched += 1;
                let name = self.registry.get(connector).map(|it| it.name.to_string());
                let key = self.clients.get(&connector).map(|it| it.key);
                let (Some(name), Some(key)) = (name, key) else { return };
                Message::Relay(RelayMessage::Matched(Matched {
                    request: connect.request,
                    channel,
                    name,
                    key,
                }))
            }
            Err(failure) => {
                self.counters.unmatched += 1;
                Message::Relay(RelayMessage::Unmatched(Unmatched::new(connect.request, &failure)))
            }
        };
        self.send(client, answer);
    }

    /// Returns the connector that a client is matched with: of those that offer the service to it,
    /// the one with the fewest channels, and among equals the one that registered first.
    fn choose(
        &mut self,
        client: PeerId,
        connect: &Connect,
        now: Instant,
    ) -> Result<PeerId, Failure> {
        let caller = self.clients.get(&client).ok_or_else(unknown_service)?;
        if let Some(after) = self.draining {
            return Err(shutting_down(after));
        }
        let offers = self.registry.offers(&connect.service, caller.key, caller.mesh, caller.serial);
        let is_wanted = |id: &PeerId| {
            let key = self.clients.get(id).map(|it| it.key);
            *id != client && key.is_some_and(|key| !connect.exclude.contains(&key))
        };
        let mut offers: Vec<PeerId> = offers.into_iter().filter(is_wanted).collect();
        if offers.is_empty() {
            return Err(unknown_service());
        }
        if self.clients.get(&client).is_none_or(|it| it.called >= self.config.channels) {
            return Err(busy("too many channels at once"));
        }
        offers.retain(|id| self.has_room(client, *id));
        offers.sort_by_cached_key(|id| (self.clients.get(id).map_or(0, |it| it.served()), *id));
        let incoming = self.config.incoming();
        let mut may_notify = |id: &PeerId| {
            self.registry.get_mut(*id).is_some_and(|it| it.notifications.take(1, incoming, now))
        };
        offers.into_iter().find(|id| may_notify(id)).ok_or_else(|| busy("the connector is busy"))
    }

    fn has_room(&self, client: PeerId, connector: PeerId) -> bool {
        let Some(it) = self.clients.get(&connector) else { return false };
        let between = self.clients.get(&client).map_or(0, |caller| {
            caller.channels.values().filter(|end| end.is_caller && end.partner == connector).count()
        });
        it.served() < self.config.channels_of_a_connector
            && between < self.config.channels_of_a_pair
    }

    /// Opens a channel and notifies the connector; returns the caller's number for it.
    fn open(
        &mut self,
        caller: PeerId,
        connector: PeerId,
        service: &ServiceName,
    ) -> Option<(u32, PeerId)> {
        let key = self.clients.get(&caller)?.key;
        let there = self.clients.get_mut(&connector)?.next_channel();
        let here = self.clients.get_mut(&caller)?.next_channel();
        let end = ChannelEnd { partner: connector, number: there, is_caller: true };
        self.clients.get_mut(&caller)?.insert(here, end);
        let end = ChannelEnd { partner: caller, number: here, is_caller: false };
        self.clients.get_mut(&connector)?.insert(there, end);
        self.channels += 1;
        let incoming = Incoming { channel: there, service: service.clone(), key };
        self.send(connector, Message::Relay(RelayMessage::Incoming(incoming)));
        Some((here, connector))
    }

    /// Ends a channel for a client. An unknown channel was ended at the same time by the other
    /// side.
    pub(super) fn on_hangup(&mut self, client: PeerId, hangup: &Hangup) {
        if let Some(end) = self.close(client, hangup.channel) {
            let hangup = Hangup { channel: end.number, ..hangup.clone() };
            self.send(end.partner, Message::Relay(RelayMessage::Hangup(hangup)));
        }
    }

    /// Ends the channels of a client that `which` selects, and notifies both ends.
    pub(super) fn hang_up_all(
        &mut self,
        client: PeerId,
        why: &Failure,
        which: impl Fn(&ChannelEnd) -> bool,
    ) {
        let Some(attached) = self.clients.get(&client) else { return };
        let ends = attached.channels.iter().filter(|(_, end)| which(end));
        let numbers: Vec<u32> = ends.map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(end) = self.close(client, number) {
                self.send(client, Message::Relay(RelayMessage::Hangup(Hangup::new(number, why))));
                self.send(
                    end.partner,
                    Message::Relay(RelayMessage::Hangup(Hangup::new(end.number, why))),
                );
            }
        }
    }

    /// Ends the channels from clients that a connector does not admit any more.
    pub(super) fn hang_up_the_refused(&mut self, connector: PeerId) {
        let Some(registration) = self.registry.get(connector) else { return };
        let Some(attached) = self.clients.get(&connector) else { return };
        let ends = attached.channels.iter().filter(|(_, end)| !end.is_caller);
        let refused: Vec<(u32, ChannelEnd)> = ends
            .filter(|(_, end)| {
                let caller = self.clients.get(&end.partner);
                !caller.is_some_and(|it| registration.admits(it.key, it.mesh, it.serial))
            })
            .map(|(number, end)| (*number, *end))
            .collect();
        let why =
            Failure::new(Code::Forbidden, "the connector does not let this device in any more");
        for (number, end) in refused {
            self.close(connector, number);
            self.send(connector, Message::Relay(RelayMessage::Hangup(Hangup::new(number, &why))));
            self.send(
                end.partner,
                Message::Relay(RelayMessage::Hangup(Hangup::new(end.number, &why))),
            );
        }
    }

    /// Removes both ends of a channel; returns the one that was here.
    fn close(&mut self, client: PeerId, number: u32) -> Option<ChannelEnd> {
        let end = self.clients.get_mut(&client)?.remove(number)?;
        if let Some(partner) = self.clients.get_mut(&end.partner) {
            partner.remove(end.number);
        }
        self.channels -= 1;
        Some(end)
    }
}

/// Returns the same message whether there is no such service, or none for this caller: a stranger
/// cannot learn which services exist.
fn unknown_service() -> Failure {
    Failure::new(Code::UnknownService, "no connector offers it to this device here")
}

fn busy(why: &'static str) -> Failure {
    Failure::new(Code::Overloaded, why).with_retry_after(WAIT)
}
