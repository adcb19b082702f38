//! The agent's connection to its connector: the name resolved, IPv4 and IPv6 raced, the winner
//! held, and all of it again when the core gives up. It decides when retrying makes no sense;
//! when to retry, as long as one address holds, is the core's business.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::lifecycle::State;
use tokio::sync::watch;
use tokio::time::Instant;

use super::event_log;
use super::names::Names;
use super::node::{Node, Sight};
use super::race::{Attempt, Caller, Defeat, race};
use super::relays::Relays;
use crate::address::Place;
use crate::base::stop::{Exit, Stop};
use crate::config::Remote;
use crate::identity::source::Follower;
use crate::identity::who::Who;

/// Pause before a name that did not resolve is asked for again, and before a connector that the
/// core gave up is dialled anew.
const AGAIN: Duration = Duration::from_secs(2);

/// Pause after a refusal that nobody has proven, by a connector that had been there.
const UNPROVEN: Duration = Duration::from_secs(10);

/// How long a name may take to resolve where there are relays that need not wait for it.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// The peer that streams are opened to. It changes when the connector is dialled anew.
pub(crate) type Tunnel = watch::Receiver<Option<Peer>>;

/// The connection, across all addresses it may have.
#[derive(Debug)]
pub(crate) struct Link {
    remote: Remote,
    names: Names,
    caller: Caller,
    current: watch::Sender<Option<Peer>>,
    /// The node whose peer that is.
    seen: watch::Sender<Option<Sight>>,
    patience: Patience,
    follower: Follower,
    node: Option<Node>,
    relays: Option<Relays>,
    /// Since when there is the connection that is held, or was held last.
    up_since: Option<Instant>,
    /// There was one at all.
    was_up: bool,
}

impl Link {
    /// A link that ends when it was down for as long as `give_up_after`, and what the forwards
    /// follow it by.
    pub(crate) fn new(
        (remote, names): (Remote, Names),
        (caller, follower): (Caller, Follower),
        give_up_after: Option<Duration>,
    ) -> (Self, Tunnel) {
        let (current, tunnel) = watch::channel(None);
        let patience = Patience { limit: give_up_after, since: Some(Instant::now()) };
        (
            Self {
                remote,
                names,
                caller,
                current,
                seen: watch::Sender::new(None),
                patience,
                follower,
                node: None,
                relays: None,
                up_since: None,
                was_up: false,
            },
            tunnel,
        )
    }

    /// How the node of the present connection is followed.
    pub(crate) fn seen(&self) -> watch::Receiver<Option<Sight>> {
        self.seen.subscribe()
    }

    /// Closes the local ports, which follow the link, and gives the node, if there is one, with its
    /// relays, to be shut down.
    pub(crate) fn end(self) -> Option<(Node, Option<Relays>)> {
        self.node.map(|node| (node, self.relays))
    }

    /// Runs until going on makes no sense.
    pub(crate) async fn keep_up(&mut self) -> Stop {
        loop {
            let failure = match self.once().await {
                Ok(failure) => failure,
                Err(stop) => return stop,
            };
            self.patience.on_state(false);
            let lived = self.up_since.take().map(|since| since.elapsed());
            self.was_up |= lived.is_some();
            match (failure.category(), lived) {
                // A certificate that ended while it was in use has a successor, on either side; one
                // that was revoked will be refused by the next handshake.
                (Category::Authentication, Some(lived)) => {
                    tracing::info!(%failure, "dialling anew with the certificates of now");
                    tokio::time::sleep(AGAIN.saturating_sub(lived)).await;
                }
                // Anybody on the path could say so, and a clock that is wrong may be set right.
                (Category::Authentication, None) if self.was_up && !failure.is_proven() => {
                    tracing::warn!(%failure, "dialling on: it may be no word of the connector's");
                    tokio::time::sleep(UNPROVEN).await;
                }
                (Category::Authentication | Category::Configuration, _) => return failure.into(),
                (
                    Category::Network | Category::Server | Category::Protocol | Category::Unknown,
                    _,
                ) => {
                    tracing::warn!(%failure, "dialling anew");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// From the name to a connection to its loss, which is what is returned.
    async fn once(&mut self) -> Result<Failure, Stop> {
        let found = loop {
            let (remote, names) = (self.remote.clone(), &self.names);
            let caller = self.caller.clone();
            let found = async {
                let addresses = addresses(names, &remote).await;
                race(&caller, &remote, &addresses).await
            };
            tokio::select! {
                found = found => break found,
                who = self.follower.next() => self.caller = caller.with(who),
                stop = self.patience.lost() => return Err(stop),
            }
        };
        let Attempt { node, relays, peer, events, .. } = match found {
            Ok(winner) => winner,
            Err(Defeat::Failed(failure)) => return Ok(failure),
            Err(Defeat::Stopped(stop)) => return Err(stop),
        };
        self.current.send_replace(Some(peer.clone()));
        self.seen.send_replace(Some(node.sight()));
        self.relays = relays;
        if let Some(old) = self.node.replace(node) {
            old.retire();
        }
        self.hold(&peer, events).await
    }

    /// Follows a peer until the core gives it up.
    async fn hold(&mut self, peer: &Peer, mut events: Events) -> Result<Failure, Stop> {
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { break };
                    if let Some(line) = event_log::line(&event) {
                        tracing::info!("{line}");
                    }
                    match peer.state() {
                        State::Failed { error, .. } => return Ok(error),
                        State::Connected { .. } => {
                            self.up_since.get_or_insert_with(Instant::now);
                            self.patience.on_state(true);
                        }
                        State::Disconnected
                        | State::Connecting { .. }
                        | State::Reconnecting { .. } => self.patience.on_state(false),
                    }
                }
                failure = peer.closed() => return Ok(failure),
                who = self.follower.next() => self.exchange(who),
                stop = self.patience.lost() => return Err(stop),
            }
        }
        match &mut self.node {
            Some(node) => Err(node.driver.ended().await),
            None => Err(Stop::new(Exit::Degraded, "the node is gone")),
        }
    }

    /// The connection goes on as it is, unless the new trust does not believe its peer any more.
    fn exchange(&mut self, who: Who) {
        self.caller = self.caller.clone().with(who.clone());
        if let Some(relays) = &self.relays {
            relays.show(who.shown);
        }
        let tls = who.tls;
        match self.node.as_ref().map_or(Ok(()), |node| node.handle.set_tls(tls)) {
            Ok(()) => tracing::info!("the identity was exchanged"),
            Err(error) => tracing::warn!("the identity is not exchanged: {error}"),
        }
    }
}

/// Dials a connector until it is connected, for a command that needs it once.
///
/// # Errors
/// When it refuses, or nobody answers within `limit`.
pub(crate) async fn reach(
    remote: &Remote,
    caller: &Caller,
    limit: Duration,
) -> Result<Attempt, Stop> {
    let patience = Patience { limit: Some(limit), since: Some(Instant::now()) };
    let names = Names::new();
    let reached = async {
        loop {
            let addresses = addresses(&names, remote).await;
            let failure = match race(caller, remote, &addresses).await {
                Ok(attempt) => match attempt.peer.connected().await {
                    Ok(()) => return Ok(attempt),
                    Err(failure) => failure,
                },
                Err(Defeat::Failed(failure)) => failure,
                Err(Defeat::Stopped(stop)) => return Err(stop),
            };
            match failure.category() {
                Category::Authentication | Category::Configuration => return Err(failure.into()),
                Category::Network | Category::Server | Category::Protocol | Category::Unknown => {
                    tracing::info!(%failure, "no connection yet");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        result = reached => result,
        stop = patience.lost() => Err(stop),
    }
}

/// The connector's own addresses: as soon as there are any or, where there are relays as well, those
/// that are found soon.
async fn addresses(names: &Names, remote: &Remote) -> Vec<SocketAddr> {
    if remote.relays.is_empty() {
        return resolve_at_last(names, &remote.addresses).await;
    }
    let found = tokio::time::timeout(RESOLVED_WITHIN, names.resolve(&remote.addresses)).await;
    found.unwrap_or_default()
}

/// Addresses of the names, as soon as there are any.
async fn resolve_at_last(names: &Names, places: &[Place]) -> Vec<SocketAddr> {
    loop {
        let found = names.resolve(places).await;
        if !found.is_empty() {
            return found;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// How long to bear being without a connection.
#[derive(Debug)]
struct Patience {
    limit: Option<Duration>,
    since: Option<Instant>,
}

impl Patience {
    fn on_state(&mut self, connected: bool) {
        match connected {
            true => self.since = None,
            false => drop(self.since.get_or_insert_with(Instant::now)),
        }
    }

    /// Completes when it is too long.
    async fn lost(&self) -> Stop {
        let (Some(limit), Some(since)) = (self.limit, self.since) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(since + limit).await;
        let next = "check that the connector runs and that UDP reaches it";
        Stop::new(Exit::Unreachable, format!("no connection for {limit:?}; {next}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn patience_ends_after_its_limit_without_a_connection_and_not_with_one() {
        let limit = Duration::from_millis(50);
        let mut patience = Patience { limit: Some(limit), since: Some(Instant::now()) };
        let stop = tokio::time::timeout(SOON, patience.lost()).await.unwrap();
        assert_eq!(stop.exit(), Exit::Unreachable);
        patience.on_state(true);
        assert!(tokio::time::timeout(2 * limit, patience.lost()).await.is_err());
    }
}
