//! A node's relays: each is resolved, dialled, and resolved again when its link is lost or silent. It
//! decides which of a relay's addresses is used; the core decides what goes through a relay.
//!
//! The addresses are dialled by [`happy_eyeballs`], in the order that [`names`](crate::net::names)
//! returns. A node has each relay once: the slower addresses are disconnected as soon as one has
//! answered. A link in doubt is kept until another is connected, so that end-to-end connections move
//! from one to the other.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::config::Dial;
use adit_tokio::core::drive::{Events, Handle, Peer};
use adit_tokio::core::error::{Category, Code, Failure, Misuse};
use adit_tokio::core::event::Event;
use adit_tokio::core::lifecycle::State;
use adit_tokio::core::tls::{Identity, Tls, Trust};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

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

/// How long a lookup may take while a link is in doubt, before the addresses that were found last are
/// dialled.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the transport of a link is looked at. Silence is noticed after 5 s, so that this adds
/// little to it.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long a link is kept after another one has taken over: time for both ends of each end-to-end
/// connection to have a channel there.
const LINGER: Duration = Duration::from_secs(1);

/// Pause before a name that did not resolve is looked up again, and before addresses that do not
/// answer are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The same pause after [`QUICK_ROUNDS`] without an answer.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Rounds over all addresses that follow each other quickly: those of the first minute.
const QUICK_ROUNDS: u32 = 5;

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
        let networks = change.subscribe();
        let mut tasks = vec![interfaces::track(node.handle.clone(), node.local, change)];
        tasks.extend(relays.iter().map(|relay| {
            let dialer = RelayDialer {
                handle: node.handle.clone(),
                relay_transports: node.relay_transports.clone(),
                relay: relay.clone(),
                identity: identity.clone(),
                lookup: lookup(relay),
                changed: networks.clone(),
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

/// Looks up the addresses that a relay has now.
type Lookup = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>> + Send + Sync>;

/// Another link to a relay that is being established.
type Race = Pin<Box<dyn Future<Output = DialledRelay> + Send>>;

/// One relay of one node.
#[derive(Clone)]
struct RelayDialer {
    handle: Handle,
    relay_transports: Option<RelayTransports>,
    relay: RelayAddress,
    identity: watch::Receiver<Identity>,
    lookup: Lookup,
    /// Notified of other networks.
    changed: watch::Receiver<()>,
}

impl RelayDialer {
    async fn run(mut self) {
        let mut unanswered = 0;
        loop {
            let addresses = (self.lookup)().await;
            // Before the relay is dialled, so that its first answers are seen.
            let events = self.handle.events();
            let pause = match timeout(CONNECT_TIMEOUT, self.dial_first(&addresses)).await {
                Ok(Ok(dialled)) => {
                    tracing::info!("connected to the relay {}", self.relay.at);
                    unanswered = 0;
                    self.follow(dialled, addresses, events).await
                }
                Ok(Err(Some(failure))) => self.log_refusal(&failure),
                Ok(Err(None)) => RETRY_DELAY,
                Err(_) => {
                    tracing::warn!("the relay {} does not answer; retrying", self.relay.at);
                    unanswered += 1;
                    if unanswered < QUICK_ROUNDS { RETRY_DELAY } else { LONGEST_DELAY }
                }
            };
            self.pause(pause).await;
        }
    }

    fn tls(&self) -> Tls {
        Tls::new(self.identity.borrow().clone(), Trust::pinned_leaf(self.relay.key))
    }

    /// Waits this long, or until this machine is on other networks.
    async fn pause(&mut self, time: Duration) {
        // Without a sender there are no changes to wait for.
        let changed = async {
            if self.changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(time, changed).await;
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
        Ok(DialledRelay { peer, address, tcp_target })
    }

    /// Follows a relay until it refuses this machine, or for good. While its link is lost or silent,
    /// its other addresses are dialled beside it, and the first that answers takes over. Returns the
    /// pause before the relay is dialled again.
    async fn follow(
        &mut self,
        mut link: DialledRelay,
        known: Vec<SocketAddr>,
        mut events: Events,
    ) -> Duration {
        let (mut is_lost, mut is_silent) = (false, false);
        let mut race: Option<Race> = None;
        let mut ticks = interval(POLL_INTERVAL);
        loop {
            match link.peer.state() {
                State::Connected { .. } => {
                    if std::mem::take(&mut is_lost) {
                        tracing::info!("connected to the relay {} again", self.relay.at);
                    }
                }
                State::Failed { error, .. } => return self.log_refusal(&error),
                State::Disconnected => return RETRY_DELAY,
                State::Connecting { .. } | State::Reconnecting { .. } => {
                    if !std::mem::replace(&mut is_lost, true) {
                        let at = &self.relay.at;
                        tracing::warn!("lost the connection to the relay {at}; reconnecting");
                    }
                }
            }
            match is_lost || is_silent {
                true if race.is_none() => {
                    race = Some(Box::pin(self.clone().race(link.address, known.clone())));
                }
                true => {}
                false => race = None,
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(event) if peer_of(&event) == Some(link.peer.id()) => self.log(&event),
                    Some(_) => {}
                    None => return RETRY_DELAY,
                },
                _ = ticks.tick() => is_silent = link.is_silent(),
                other = winner(&mut race) => {
                    tracing::info!("the relay {} answers at {}", self.relay.at, other.address);
                    (race, is_lost, is_silent) = (None, false, false);
                    std::mem::replace(&mut link, other).leave();
                }
                Ok(()) = self.identity.changed() => {
                    if let Err(error) = self.handle.set_dial_tls(&link.peer, &self.tls()) {
                        tracing::warn!("the new certificate cannot be shown to the relay: {error}");
                    }
                }
            }
        }
    }

    /// Looks the relay up again and dials every address but the present one, until one answers.
    async fn race(mut self, present: SocketAddr, mut known: Vec<SocketAddr>) -> DialledRelay {
        let mut rounds = 0;
        loop {
            // The answers of nameservers may take the path that is silent.
            if let Ok(found) = timeout(RESOLVE_TIMEOUT, (self.lookup)()).await
                && !found.is_empty()
            {
                known = found;
            }
            let others: Vec<_> = known.iter().copied().filter(|it| *it != present).collect();
            match timeout(CONNECT_TIMEOUT, self.dial_first(&others)).await {
                Ok(Ok(dialled)) => return dialled,
                Ok(Err(Some(failure))) => {
                    tracing::debug!("no other address of {} answers: {failure}", self.relay.at);
                }
                Ok(Err(None)) | Err(_) => {}
            }
            rounds += 1;
            self.pause(if rounds < QUICK_ROUNDS { RETRY_DELAY } else { LONGEST_DELAY }).await;
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

/// Returns the lookup of a relay's name by the system.
fn lookup(relay: &RelayAddress) -> Lookup {
    let names = Arc::new((NameResolver::new(), [relay.at.clone().into()]));
    Arc::new(move || {
        let names = names.clone();
        Box::pin(async move { names.0.resolve(&names.1).await })
    })
}

/// A relay that was dialled; disconnected when this is dropped.
struct DialledRelay {
    peer: Peer,
    address: SocketAddr,
    tcp_target: Option<TcpTargetGuard>,
}

impl DialledRelay {
    /// Returns true if nothing is heard from it by UDP, nor by TCP.
    fn is_silent(&self) -> bool {
        self.tcp_target.as_ref().is_some_and(TcpTargetGuard::is_silent)
    }

    /// Disconnects it in a moment.
    fn leave(self) {
        tokio::spawn(async move {
            sleep(LINGER).await;
            drop(self);
        });
    }
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

/// Completes with the link that a race has established.
async fn winner(race: &mut Option<Race>) -> DialledRelay {
    match race {
        Some(race) => race.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
