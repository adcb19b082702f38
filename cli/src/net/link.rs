//! The agent's connection to its connector: it resolves the name, dials the candidates, keeps the
//! first connection, and begins again when the core gives up. It decides when retrying makes no
//! sense. The core's policy decides when to retry: in the core as long as one address is used, and
//! here for all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::event::Event;
use adit_tokio::core::lifecycle::State;
use adit_tokio::core::retry::{Policy, Retry, RetryDecision};
use adit_tokio::core::rng::Rng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::dialer::{DialAttempt, DialError, Dialer, dial_any};
use super::event_log;
use super::names::NameResolver;
use super::node::{NodeHandle, RunningNode};
use super::relays::AttachedRelays;
use crate::address::HostAddress;
use crate::base::exit::{Exit, ExitError, is_about_clock, next_step};
use crate::base::patience::CLOCK_POLL_INTERVAL;
use crate::base::system::{random, unix_now};
use crate::config::RemoteConnector;
use crate::identity::credentials::Credentials;
use crate::identity::source::CredentialWatcher;

/// Pause before a name that did not resolve is looked up again, and between a connection and the
/// next, when a certificate ended the first.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Pause after a rejection that is not authenticated, where a connection had been established
/// before.
const UNPROVEN_RETRY_DELAY: Duration = Duration::from_secs(10);

/// How long a name may take to resolve if there are relays that need not wait for it.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The peer that streams are opened to. It changes when the connector is dialled again.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    peer: watch::Receiver<Option<Peer>>,
    demand: Arc<Notify>,
}

impl Tunnel {
    /// Returns a tunnel to a peer that stays the same for as long as the sender lives.
    pub(crate) fn to(peer: Peer) -> (watch::Sender<Option<Peer>>, Self) {
        let (current, peer) = watch::channel(Some(peer));
        (current, Self { peer, demand: Arc::default() })
    }

    /// Returns the present peer, whether it is connected or not.
    pub(crate) fn peer(&mut self) -> Option<Peer> {
        self.peer.borrow_and_update().clone()
    }

    /// Waits for another peer than the one that was returned last.
    ///
    /// # Errors
    /// If there will be none.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.peer.changed().await
    }

    /// Brings the next attempt to connect forward, since a caller waits for the connection.
    pub(crate) fn dial_now(&self) {
        let peer = self.peer.borrow().clone();
        let is_connected =
            peer.as_ref().is_some_and(|peer| matches!(peer.state(), State::Connected { .. }));
        if is_connected {
            return;
        }
        if let Some(peer) = peer {
            peer.dial_now();
        }
        self.demand.notify_one();
    }
}

/// The connection to a connector, across all candidates.
#[derive(Debug)]
pub(crate) struct ConnectorLink {
    remote: RemoteConnector,
    /// Where the connector was last, if it has moved from the address at which it was dialled.
    moved: Option<SocketAddr>,
    names: NameResolver,
    dialer: Dialer,
    current: watch::Sender<Option<Peer>>,
    /// The handle of that peer's node.
    node_handle: watch::Sender<Option<NodeHandle>>,
    outage: OutageTimer,
    watcher: CredentialWatcher,
    node: Option<RunningNode>,
    relays: Option<AttachedRelays>,
    /// When the present connection, or the last one, was established.
    up_since: Option<Instant>,
    /// True if a connection was ever established.
    was_up: bool,
    /// When all candidates are dialled again.
    retry: Retry,
    /// Notified of every caller that waits for the connection.
    demand: Arc<Notify>,
    /// True if the log names the clock that is wrong.
    has_named_clock: bool,
}

impl ConnectorLink {
    /// Returns a link that ends after an outage of `give_up_after`, and the tunnel that forwards
    /// use.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(crate) fn new(
        (remote, names): (RemoteConnector, NameResolver),
        (dialer, watcher): (Dialer, CredentialWatcher),
        give_up_after: Option<Duration>,
    ) -> Result<(Self, Tunnel), ExitError> {
        let (current, peer) = watch::channel(None);
        let demand = Arc::new(Notify::new());
        let tunnel = Tunnel { peer, demand: demand.clone() };
        let mut seed = [0; 32];
        random(&mut seed)?;
        let retry = Retry::new(Policy::persistent(), Rng::new(seed, "link"));
        // The core dials a single candidate for as long as it takes. Of several it dials again the one
        // that it was connected to, once, and then all of them are dialled.
        let dialer = match remote.has_no_choice() {
            true => Dialer { retry: Policy::persistent(), ..dialer },
            false => dialer,
        };
        let outage = OutageTimer { limit: give_up_after, since: Some(Instant::now()) };
        Ok((
            Self {
                remote,
                moved: None,
                names,
                dialer,
                current,
                node_handle: watch::Sender::new(None),
                outage,
                watcher,
                node: None,
                relays: None,
                up_since: None,
                was_up: false,
                retry,
                demand,
                has_named_clock: false,
            },
            tunnel,
        ))
    }

    /// Returns the handle of the present connection's node, as it changes.
    pub(crate) fn node_handle(&self) -> watch::Receiver<Option<NodeHandle>> {
        self.node_handle.subscribe()
    }

    /// Closes the local ports, which follow the link, and returns the node, if there is one, with
    /// its relays, to be shut down.
    pub(crate) fn end(self) -> Option<(RunningNode, Option<AttachedRelays>)> {
        self.node.map(|node| (node, self.relays))
    }

    /// Keeps the connection up until retrying makes no sense, and returns why.
    pub(crate) async fn keep_up(&mut self) -> ExitError {
        loop {
            let failure = match self.connect_once().await {
                Ok(failure) => failure,
                Err(stop) => return stop,
            };
            self.outage.on_state(false);
            let lived = self.up_since.take().map(|since| since.elapsed());
            self.was_up |= lived.is_some();
            let paused = match (failure.category(), lived) {
                // A certificate that expired in use has a successor, on either side; a revoked one
                // will be rejected by the next handshake.
                (Category::Authentication, Some(lived)) => {
                    tracing::info!("reconnecting with the present certificates: {failure}");
                    self.pause(RETRY_DELAY.saturating_sub(lived)).await
                }
                (Category::Authentication, None) if self.may_be_a_clock(&failure) => {
                    self.name_clock(&failure);
                    self.pause(CLOCK_POLL_INTERVAL).await
                }
                // Any attacker on the path could have sent it.
                (Category::Authentication, None) if self.was_up && !failure.is_proven() => {
                    tracing::warn!("retrying: the rejection was not authenticated: {failure}");
                    self.pause(UNPROVEN_RETRY_DELAY).await
                }
                (Category::Authentication | Category::Configuration, _) => return failure.into(),
                (
                    Category::Network | Category::Server | Category::Protocol | Category::Unknown,
                    _,
                ) => {
                    tracing::warn!("reconnecting to {}: {failure}", self.remote.title());
                    self.pause_after(&failure).await
                }
            };
            if let Err(stop) = paused {
                return stop;
            }
        }
    }

    /// Returns true if a rejection may end when a clock is set. It may not if both clocks agree that
    /// this machine's certificate is not valid.
    fn may_be_a_clock(&self, failure: &Failure) -> bool {
        is_about_clock(failure)
            && !(is_by_peers_clock(failure) && self.watcher.clock_conflict(unix_now()).is_some())
    }

    /// Logs once that a clock is wrong.
    fn name_clock(&mut self, failure: &Failure) {
        if std::mem::replace(&mut self.has_named_clock, true) {
            return;
        }
        let next = next_step(failure);
        match self.watcher.clock_conflict(unix_now()) {
            Some(conflict) => tracing::warn!("waiting: {conflict}; {next}"),
            None => tracing::warn!("waiting: {failure}; {next}"),
        }
    }

    /// Waits as the policy says after a failure, and less if somebody waits for the connection.
    async fn pause_after(&mut self, failure: &Failure) -> Result<(), ExitError> {
        let now = Instant::now().into_std();
        let mut until = match self.retry.on_attempt_failed(failure, now) {
            RetryDecision::Wait { until, .. } => until,
            RetryDecision::GiveUp(failure) => return Err(failure.into()),
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => break,
                () = self.demand.notified() => {
                    let sooner = self.retry.on_demand(Instant::now().into_std());
                    until = sooner.unwrap_or(until);
                }
                stop = self.outage.lost() => return Err(stop),
            }
        }
        self.retry.poll(Instant::now().into_std().max(until));
        Ok(())
    }

    /// Waits this long, unless the outage has lasted too long.
    async fn pause(&self, time: Duration) -> Result<(), ExitError> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            stop = self.outage.lost() => Err(stop),
        }
    }

    /// Connects once, and returns how the connection was lost.
    async fn connect_once(&mut self) -> Result<Failure, ExitError> {
        let found = loop {
            let (remote, names) = (self.remote.clone(), &self.names);
            let dialer = self.dialer.clone();
            let moved = self.moved;
            let found = async {
                let mut addresses = addresses(names, &remote).await;
                addresses.extend(moved);
                dial_any(&dialer, &remote, &addresses).await
            };
            tokio::select! {
                found = found => break found,
                credentials = self.watcher.next() => self.dialer = dialer.with(credentials),
                stop = self.outage.lost() => return Err(stop),
            }
        };
        let DialAttempt { node, relays, peer, events, .. } = match found {
            Ok(winner) => winner,
            Err(DialError::Failed(failure)) => return Ok(failure),
            Err(DialError::Stopped(stop)) => return Err(stop),
        };
        self.current.send_replace(Some(peer.clone()));
        self.node_handle.send_replace(Some(node.to_handle()));
        self.relays = relays;
        if let Some(old) = self.node.replace(node) {
            old.retire();
        }
        self.follow_peer(&peer, events).await
    }

    /// Follows a peer until the core gives up.
    async fn follow_peer(&mut self, peer: &Peer, mut events: Events) -> Result<Failure, ExitError> {
        let dialled = peer.remote();
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { break };
                    self.log(&event, peer);
                    if self.relays.is_none() && matches!(event, Event::Transition { .. }) {
                        self.moved = peer.remote().filter(|at| Some(*at) != dialled).or(self.moved);
                    }
                    match peer.state() {
                        State::Failed { error, .. } => return Ok(error),
                        State::Connected { .. } => {
                            let since = *self.up_since.get_or_insert_with(Instant::now);
                            self.retry.on_up(since.into_std());
                            self.has_named_clock = false;
                            self.outage.on_state(true);
                        }
                        State::Disconnected
                        | State::Connecting { .. }
                        | State::Reconnecting { .. } => self.outage.on_state(false),
                    }
                }
                failure = peer.closed() => return Ok(failure),
                credentials = self.watcher.next() => self.set_credentials(credentials),
                stop = self.outage.lost() => return Err(stop),
            }
        }
        match &mut self.node {
            Some(node) => Err(node.driver.ended().await),
            None => Err(ExitError::new(Exit::Degraded, "the node is gone")),
        }
    }

    /// Logs an event: of the connector as a sentence, of any other peer for debugging.
    fn log(&self, event: &Event, peer: &Peer) {
        let of_connector = event_log::peer_of(event) == Some(peer.id());
        match of_connector.then(|| event_log::sentence(event, self.remote.title())).flatten() {
            Some(sentence) => tracing::info!("{sentence}"),
            None => {
                if let Some(line) = event_log::line(event) {
                    tracing::debug!("{line}");
                }
            }
        }
    }

    /// Uses new credentials. The connection goes on, unless its peer is no longer trusted.
    fn set_credentials(&mut self, credentials: Credentials) {
        self.dialer = self.dialer.clone().with(credentials.clone());
        if let Some(relays) = &self.relays {
            relays.set_identity(credentials.relay_identity);
        }
        let tls = credentials.tls;
        match self.node.as_ref().map_or(Ok(()), |node| node.handle.set_tls(tls)) {
            Ok(()) => tracing::info!("the new certificate is in use"),
            Err(error) => tracing::warn!("the new certificate cannot be used: {error}"),
        }
    }
}

/// Returns true if the peer rejected this machine's certificate by its own clock.
fn is_by_peers_clock(failure: &Failure) -> bool {
    failure.detail().contains(" its clock")
}

/// Dials a connector until it is connected, for a command that connects once.
///
/// # Errors
/// If it refuses, or there is no answer within `limit`.
pub(crate) async fn reach(
    remote: &RemoteConnector,
    dialer: &Dialer,
    limit: Duration,
) -> Result<DialAttempt, ExitError> {
    let outage = OutageTimer { limit: Some(limit), since: Some(Instant::now()) };
    let names = NameResolver::new();
    let reached = async {
        loop {
            let addresses = addresses(&names, remote).await;
            let failure = match dial_any(dialer, remote, &addresses).await {
                Ok(attempt) => match attempt.peer.connected().await {
                    Ok(()) => return Ok(attempt),
                    Err(failure) => failure,
                },
                Err(DialError::Failed(failure)) => failure,
                Err(DialError::Stopped(stop)) => return Err(stop),
            };
            match failure.category() {
                Category::Authentication | Category::Configuration => return Err(failure.into()),
                Category::Network | Category::Server | Category::Protocol | Category::Unknown => {
                    tracing::info!("no connection to {} yet: {failure}", remote.title());
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    };
    tokio::select! {
        result = reached => result,
        stop = outage.lost() => Err(stop),
    }
}

/// Returns the connector's own addresses: as soon as there are any or, if there are relays as well,
/// those that are found soon.
async fn addresses(names: &NameResolver, remote: &RemoteConnector) -> Vec<SocketAddr> {
    if remote.relays.is_empty() {
        return resolve_at_last(names, &remote.addresses).await;
    }
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, names.resolve(&remote.addresses)).await;
    found.unwrap_or_default()
}

/// Returns the addresses of the names, as soon as there are any.
async fn resolve_at_last(names: &NameResolver, places: &[HostAddress]) -> Vec<SocketAddr> {
    loop {
        let found = names.resolve(places).await;
        if !found.is_empty() {
            return found;
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Measures how long an outage lasts.
#[derive(Debug)]
struct OutageTimer {
    limit: Option<Duration>,
    since: Option<Instant>,
}

impl OutageTimer {
    fn on_state(&mut self, connected: bool) {
        match connected {
            true => self.since = None,
            false => drop(self.since.get_or_insert_with(Instant::now)),
        }
    }

    /// Completes when the outage has lasted too long.
    async fn lost(&self) -> ExitError {
        let (Some(limit), Some(since)) = (self.limit, self.since) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(since + limit).await;
        let next = "check that the connector runs and that UDP reaches it";
        ExitError::new(Exit::Unreachable, format!("no connection for {limit:?}; {next}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn patience_ends_after_its_limit_without_a_connection_and_not_with_one() {
        let limit = Duration::from_millis(50);
        let mut outage = OutageTimer { limit: Some(limit), since: Some(Instant::now()) };
        let stop = tokio::time::timeout(TEST_LIMIT, outage.lost()).await.unwrap();
        assert_eq!(stop.exit(), Exit::Unreachable);
        outage.on_state(true);
        assert!(tokio::time::timeout(2 * limit, outage.lost()).await.is_err());
    }
}
