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
    /// Looks up a service for a client.
    pub(super) fn connect(&mut self, client: PeerId, connect: &Connect, now: Instant) {
        let matched = self.choose(client, connect, now).and_then(|connector| {
            self.open(client, connector, &connect.service).ok_or_else(unknown_service)
        });
        let answer = match matched {
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
        let connects = self.config.connects();
        let caller = self.clients.get_mut(&client).ok_or_else(unknown_service)?;
        if !caller.connects.take(1, connects, now) {
            return Err(busy("too many lookups"));
        }
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
