//! A node's relays: each is resolved, dialled, and resolved again when it is lost for long. It
//! decides which of a relay's addresses is used; the core decides what goes through a relay.
//!
//! The addresses are dialled by [`happy_eyeballs`], in the order that [`names`](crate::net::names)
//! returns. A node has each relay once: the slower addresses are disconnected as soon as one has
//! answered.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::config::Dial;
use adit_tokio::core::drive::{Events, Handle, Peer};
use adit_tokio::core::error::{Category, Code, Failure, Misuse};
use adit_tokio::core::event::Event;
use adit_tokio::core::lifecycle::State;
use adit_tokio::core::tls::{Identity, Tls, Trust};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::event_log::peer_of;
use super::happy_eyeballs::{self, HEAD_START};
use super::interfaces;
use super::names::NameResolver;
use super::node::RunningNode;
use super::port_mapping::PortMappingTask;
use super::relay_transports::{RelayTransports, TcpTargetGuard};
use crate::address::{RELAY_NAME, RelayAddress};
use crate::base::exit::next_step;
use crate::base::task::Background;

/// How long the addresses of a relay are tried before its name is looked up again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a relay may be lost at its address before its name is looked up again: it may have
/// moved.
const LOST_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause before a name that did not resolve is looked up again, and before addresses that do not
/// answer are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Pause after a relay that refuses this machine, or that has another key than the known one: its
/// owner has to act.
const REFUSED_RETRY_DELAY: Duration = Duration::from_secs(30);

/// The relays of one node, connected for as long as this lives.
#[derive(Debug)]
pub(crate) struct AttachedRelays {
    relay_identity: watch::Sender<Identity>,
    mapper: Option<PortMappingTask>,
    _tasks: Vec<Background<()>>,
}

impl AttachedRelays {
    /// Connects a node to relays, of which there may be none, with this identity; with
    /// `port_mapping`, its gateway is asked to map its socket for peers.
    pub(crate) fn attach(
        node: &RunningNode,
        relays: &[RelayAddress],
        relay_identity: Identity,
        port_mapping: bool,
    ) -> Self {
        let (relay_identity, identity) = watch::channel(relay_identity);
        let (change, changed) = watch::channel(());
        let mapper = port_mapping.then(|| {
            PortMappingTask::start(
                (node.handle.clone(), node.local),
                node.port_mapping.clone(),
                changed,
                !relays.is_empty(),
            )
        });
        let mut tasks = vec![interfaces::track(node.handle.clone(), node.local, change)];
        tasks.extend(relays.iter().map(|relay| {
            let (handle, relay) = (node.handle.clone(), relay.clone());
            let (relay_transports, identity) = (node.relay_transports.clone(), identity.clone());
            let dialer = RelayDialer {
                handle,
                relay_transports,
                relay,
                identity,
                names: NameResolver::new(),
            };
            Background::spawn(dialer.run())
        }));
        Self { relay_identity, mapper, _tasks: tasks }
    }

    /// Releases the gateway's mapping, before the end of the program.
    pub(crate) async fn release(&self) {
        if let Some(mapper) = &self.mapper {
            mapper.release().await;
        }
    }

    /// Uses this identity for handshakes with relays from now on.
    pub(crate) fn set_identity(&self, relay_identity: Identity) {
        self.relay_identity.send_replace(relay_identity);
    }
}

/// One relay of one node.
struct RelayDialer {
    handle: Handle,
    relay_transports: Option<RelayTransports>,
    relay: RelayAddress,
    identity: watch::Receiver<Identity>,
    names: NameResolver,
}

impl RelayDialer {
    async fn run(mut self) {
        let place = [self.relay.at.clone().into()];
        loop {
            let addresses = self.names.resolve(&place).await;
            // Before the relay is dialled, so that its first answers are seen.
            let events = self.handle.events();
            let pause = match timeout(CONNECT_TIMEOUT, self.dial_first(&addresses)).await {
                Ok(Ok(dialled)) => {
                    tracing::info!("connected to the relay {}", self.relay.at);
                    self.follow_peer(&dialled.peer, events).await;
                    RETRY_DELAY
                }
                Ok(Err(Some(failure))) => self.log_refusal(&failure),
                Ok(Err(None)) => RETRY_DELAY,
                Err(_) => {
                    tracing::warn!("the relay {} does not answer; retrying", self.relay.at);
                    RETRY_DELAY
                }
            };
            sleep(pause).await;
        }
    }

    fn tls(&self) -> Tls {
        Tls::new(self.identity.borrow().clone(), Trust::pinned_leaf(self.relay.key))
    }

    /// Dials the addresses, a short time apart, and returns the first that is connected.
    async fn dial_first(&self, addresses: &[SocketAddr]) -> Result<DialledRelay, Option<Failure>> {
        let start = |address| Ok(answer(self.dial(address)));
        let latest = |before: Option<Failure>, now: Option<Failure>| now.or(before);
        let first = happy_eyeballs::first(addresses.to_vec(), |_| HEAD_START, start, latest).await;
        first.map_err(Option::flatten)
    }

    fn dial(&self, address: SocketAddr) -> Result<DialledRelay, Misuse> {
        let relay_transports = self.relay_transports.as_ref();
        let tcp_target = relay_transports
            .map(|relay_transports| relay_transports.add(address, self.relay.tcp, self.relay.key));
        let peer = self.handle.dial(Dial::relay(address, RELAY_NAME, self.tls()))?;
        Ok(DialledRelay { peer, _tcp_target: tcp_target })
    }

    /// Follows a relay until it is lost for long, or for good.
    async fn follow_peer(&mut self, peer: &Peer, mut events: Events) {
        let mut lost: Option<Instant> = None;
        loop {
            match peer.state() {
                State::Connected { .. } => {
                    if lost.take().is_some() {
                        tracing::info!("connected to the relay {} again", self.relay.at);
                    }
                }
                State::Failed { error, .. } => {
                    self.log_refusal(&error);
                    return;
                }
                State::Disconnected => return,
                State::Connecting { .. } | State::Reconnecting { .. } => {
                    if lost.is_none() {
                        let at = &self.relay.at;
                        tracing::warn!("lost the connection to the relay {at}; reconnecting");
                    }
                    lost.get_or_insert_with(Instant::now);
                }
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(event) if peer_of(&event) == Some(peer.id()) => self.log(&event),
                    Some(_) => {}
                    None => return,
                },
                () = until(lost.map(|since| since + LOST_TIMEOUT)) => return,
                Ok(()) = self.identity.changed() => {
                    if let Err(error) = self.handle.set_dial_tls(peer, &self.tls()) {
                        tracing::warn!("the new certificate cannot be shown to the relay: {error}");
                    }
                }
            }
        }
    }

    /// Logs what the relay did with this machine's services.
    fn log(&self, event: &Event) {
        let relay = &self.relay.at;
        if matches!(event, Event::Registered { .. }) {
            tracing::info!("registered at the relay {relay}");
        }
        if let Event::Unregistered { failure, .. } = event
            // A lost connection has its own line.
            && failure.category() != Category::Network
        {
            let next = next_step(failure);
            tracing::warn!("not registered at the relay {relay}: {failure}; {next}");
        }
    }

    fn log_refusal(&self, failure: &Failure) -> Duration {
        let relay = &self.relay.at;
        if failure.code() == Code::Forbidden {
            let next = "have its owner allow it: adit relay --allow-mesh KEY, of adit id show";
            tracing::warn!("{relay}: the relay refuses this machine ({failure}); {next}");
            return REFUSED_RETRY_DELAY;
        }
        if failure.category() == Category::Authentication {
            tracing::warn!(
                "{relay}: the relay has another key than the known one ({failure}); ask its owner for \
                 the line that adit relay prints now"
            );
            return REFUSED_RETRY_DELAY;
        }
        tracing::warn!("no connection to the relay {relay}: {failure}; retrying");
        RETRY_DELAY
    }
}

/// A relay that was dialled; disconnected when this is dropped.
struct DialledRelay {
    peer: Peer,
    _tcp_target: Option<TcpTargetGuard>,
}

impl Drop for DialledRelay {
    fn drop(&mut self) {
        self.peer.disconnect();
    }
}

async fn answer(dialled: Result<DialledRelay, Misuse>) -> Result<DialledRelay, Option<Failure>> {
    match dialled {
        Ok(dialled) => dialled.peer.connected().await.map(|()| dialled).map_err(Some),
        // The node is about to end, and this task with it.
        Err(Misuse::ShuttingDown) => std::future::pending().await,
        Err(error) => {
            tracing::warn!("the relay cannot be dialled: {error}");
            Err(None)
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
