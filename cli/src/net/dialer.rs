//! Dials a connector by its relays and at its own addresses, and keeps the first connection (RFC
//! 8305). Relays go first, since a connection that begins there moves to a direct path and falls
//! back; the connector's own addresses follow when no relay answers soon, in the order that
//! [`names`](crate::net::names) returns. It decides how long each candidate is alone; the caller
//! decides how a connection is used.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_tokio::core::ServiceName;
use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::retry::Policy;
use adit_tokio::core::tls::Identity;

use super::happy_eyeballs::{self, HEAD_START};
use super::node::{self, RunningNode};
use super::relays::AttachedRelays;
use super::{event_log, interfaces};
use crate::base::exit::ExitError;
use crate::config::RemoteConnector;
use crate::identity::credentials::Credentials;

/// How long relays are alone before the connector's own addresses are dialled as well: a relay on
/// the other side of the earth answers, asks the connector and opens a channel within that time.
const RELAYS_ALONE: Duration = Duration::from_millis(1_500);

/// Most candidates of which the last failure is remembered: those of a name that changes.
const MAX_CANDIDATES: usize = 64;

/// Returns how long the core keeps dialling one of several candidates: a second attempt on the same
/// socket finds a peer that restarted, and more would keep the others from their turn.
pub(crate) fn one_of_several() -> Policy {
    Policy::builder().max_attempts(Some(1)).build().unwrap_or_default()
}

/// The identity and the settings to dial with.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) core: Config,
    /// The identity that relays are shown.
    pub(crate) relay_identity: Identity,
    /// True if a gateway is asked to map the socket.
    pub(crate) port_mapping: bool,
    /// How long the core keeps dialling one candidate.
    pub(crate) retry: Policy,
    pub(crate) failures: FailureLog,
}

/// The cause of the last failure of each candidate, so that the log has one when it is known and
/// when it changes, and not with each retry.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailureLog(Arc<Mutex<BTreeMap<String, String>>>);

impl FailureLog {
    fn report(&self, candidate: &str, failure: &Failure) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = failure.to_string();
        if known.get(candidate) == Some(&cause) {
            return;
        }
        tracing::info!("{candidate}: {cause}");
        if known.len() >= MAX_CANDIDATES {
            known.pop_first();
        }
        known.insert(candidate.to_owned(), cause);
    }
}

impl Dialer {
    /// Returns the same settings with other credentials.
    #[must_use]
    pub(crate) fn with(self, credentials: Credentials) -> Self {
        Self {
            core: self.core.with_tls(credentials.tls),
            relay_identity: credentials.relay_identity,
            port_mapping: self.port_mapping,
            retry: self.retry,
            failures: self.failures,
        }
    }
}

/// A candidate that is being dialled, or is connected.
#[derive(Debug)]
pub(crate) struct DialAttempt {
    pub(crate) node: RunningNode,
    /// The relays that lead to the connector; `None` if its own address was dialled.
    pub(crate) relays: Option<AttachedRelays>,
    pub(crate) peer: Peer,
    pub(crate) events: Events,
    /// When it was dialled.
    pub(crate) since: Instant,
}

/// Why no candidate is connected.
#[derive(Debug)]
pub(crate) enum DialError {
    /// All have failed, and this is the most actionable error.
    Failed(Failure),
    /// This machine cannot dial, or what it was given cannot be dialled.
    Stopped(ExitError),
}

/// Dials one address, from a node of its own.
///
/// # Errors
/// When the name or the address cannot be dialled.
pub(crate) fn dial(
    dialer: &Dialer,
    name: &str,
    address: SocketAddr,
) -> Result<DialAttempt, ExitError> {
    let node = node::start(node::local_for(address), dialer.core.clone())?;
    let events = node.handle.events();
    let since = Instant::now();
    let dial = Dial { retry: Some(dialer.retry), ..Dial::new(address, name) };
    let peer = node.handle.dial(dial).map_err(|error| {
        ExitError::usage(format!("the connector \"{name}\" at {address}: {error}; correct it"))
    })?;
    tracing::debug!(%address, "dialling");
    Ok(DialAttempt { node, relays: None, peer, events, since })
}

/// Dials a connector by its relays, from a node of its own.
fn dial_by_relay(
    dialer: &Dialer,
    remote: &RemoteConnector,
    service: &ServiceName,
) -> Result<DialAttempt, ExitError> {
    let node = node::start_with_relays(interfaces::wildcard(0), dialer.core.clone())?;
    let events = node.handle.events();
    let since = Instant::now();
    let dial = Dial::service(service.clone(), remote.name.clone());
    let dial = Dial { retry: Some(dialer.retry), ..dial };
    let peer = node.handle.dial(dial).map_err(|error| {
        ExitError::usage(format!(
            "the connector \"{}\" behind a relay: {error}; correct it",
            remote.name
        ))
    })?;
    let relays = Some(AttachedRelays::attach(
        &node,
        &remote.relays,
        dialer.relay_identity.clone(),
        dialer.port_mapping,
    ));
    Ok(DialAttempt { node, relays, peer, events, since })
}

/// Dials the known relays and these addresses until one is connected. A single candidate is
/// returned while it is still being dialled. If this machine lacks an address family, that is no
/// failure as long as another candidate is left.
///
/// # Errors
/// Why none is connected.
pub(crate) async fn dial_any(
    dialer: &Dialer,
    remote: &RemoteConnector,
    addresses: &[SocketAddr],
) -> Result<DialAttempt, DialError> {
    let service = remote.service.as_ref().filter(|_| !remote.relays.is_empty());
    let mut candidates: Vec<_> = service.map(DialCandidate::Relays).into_iter().collect();
    let mut seen = std::collections::BTreeSet::new();
    candidates.extend(
        addresses.iter().copied().filter(|it| seen.insert(*it)).map(DialCandidate::Address),
    );
    if let [only] = &candidates[..] {
        return only.start(dialer, remote).map_err(DialError::Stopped);
    }
    let start = |candidate: DialCandidate<'_>| {
        let attempt = candidate.start(dialer, remote).map_err(DialError::Stopped)?;
        Ok(run(PendingAttempt(Some(attempt)), candidate.to_string(), dialer.failures.clone()))
    };
    let nothing = || DialError::Stopped(ExitError::usage("the connector has no address"));
    let won = happy_eyeballs::first(candidates, DialCandidate::alone, start, worse).await;
    won.map_err(|error| error.unwrap_or_else(nothing))
}

/// An address or a relay by which a connector may be reached.
#[derive(Debug)]
enum DialCandidate<'a> {
    /// Transport the relay that it is registered at, with the service to look up.
    Relays(&'a ServiceName),
    /// At an address of its own.
    Address(SocketAddr),
}

impl DialCandidate<'_> {
    fn start(&self, dialer: &Dialer, remote: &RemoteConnector) -> Result<DialAttempt, ExitError> {
        match self {
            Self::Relays(service) => dial_by_relay(dialer, remote, service),
            Self::Address(address) => dial(dialer, &remote.name, *address),
        }
    }

    /// Returns how long it is alone before the next candidate is dialled as well.
    const fn alone(&self) -> Duration {
        match self {
            Self::Relays(_) => RELAYS_ALONE,
            Self::Address(_) => HEAD_START,
        }
    }
}

impl fmt::Display for DialCandidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relays(_) => f.write_str("by relay"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// An attempt that closes its node when it is dropped.
struct PendingAttempt(Option<DialAttempt>);

impl Drop for PendingAttempt {
    fn drop(&mut self) {
        if let Some(attempt) = self.0.take() {
            attempt.node.retire();
        }
    }
}

/// Follows one attempt until it is connected or given up.
async fn run(
    mut pending: PendingAttempt,
    candidate: String,
    failures: FailureLog,
) -> Result<DialAttempt, DialError> {
    let Some(attempt) = &mut pending.0 else { return std::future::pending().await };
    let peer = attempt.peer.clone();
    let connected = peer.connected();
    tokio::pin!(connected);
    loop {
        tokio::select! {
            biased;
            result = &mut connected => match result {
                Ok(()) => break,
                Err(failure) => {
                    failures.report(&candidate, &failure);
                    return Err(DialError::Failed(failure));
                }
            },
            Some(event) = attempt.events.next() => {
                if let Some(line) = event_log::line(&event) {
                    tracing::debug!(%candidate, "{line}");
                }
            }
        }
    }
    match pending.0.take() {
        Some(attempt) => Ok(attempt),
        None => std::future::pending().await,
    }
}

/// Picks the more actionable error: a rejection before silence, and either before a candidate that
/// could not be dialled.
fn worse(before: DialError, now: DialError) -> DialError {
    match (&before, &now) {
        (_, DialError::Stopped(_)) => before,
        (DialError::Failed(failure), _) if failure.category() == Category::Authentication => before,
        (DialError::Failed(_) | DialError::Stopped(_), DialError::Failed(_)) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::throwaway::ThrowawayAuthority;

    const TEST_LIMIT: Duration = Duration::from_secs(60);

    /// Returns a connector that listens on `address`, and the settings of an agent to dial it.
    fn pair(address: SocketAddr) -> (RunningNode, Dialer) {
        let authority = ThrowawayAuthority::new().unwrap();
        let config = |name, listening| {
            let tls = authority.device(name).unwrap();
            Config::builder(tls).listening(listening).retry(Policy::interactive()).build().unwrap()
        };
        let relay_identity = authority.device("agent").unwrap().identity().clone();
        let core = config("agent", false);
        let retry = Policy::interactive();
        let dialer = Dialer {
            core,
            relay_identity,
            port_mapping: false,
            retry,
            failures: FailureLog::default(),
        };
        (node::start(address, config("connector", true)).unwrap(), dialer)
    }

    fn remote() -> RemoteConnector {
        RemoteConnector::at(Vec::new(), "connector".into())
    }

    /// Returns two addresses of which one has no listener.
    fn addresses() -> (SocketAddr, SocketAddr) {
        let v4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (v4, SocketAddr::new("::1".parse().unwrap(), v4.port()))
    }

    async fn winner(core: &Dialer, addresses: &[SocketAddr]) -> SocketAddr {
        let remote = remote();
        let dialled = dial_any(core, &remote, addresses);
        let attempt = tokio::time::timeout(TEST_LIMIT, dialled).await.unwrap().unwrap();
        tokio::time::timeout(TEST_LIMIT, attempt.peer.connected()).await.unwrap().unwrap();
        attempt.peer.remote().unwrap()
    }

    #[tokio::test]
    async fn the_other_family_wins_when_the_preferred_one_is_silent() {
        let (v4, v6) = addresses();
        let (_connector, core) = pair(v4);
        assert_eq!(winner(&core, &[v6, v6, v4]).await, v4);
    }

    #[tokio::test]
    async fn the_preferred_family_wins_when_both_answer() {
        let (v4, v6) = addresses();
        let (_connector, core) = pair(v4);
        assert_eq!(winner(&core, &[v4, v6]).await, v4);
    }

    #[tokio::test]
    async fn the_last_of_many_wins_when_all_others_are_silent() {
        let (v4, _) = addresses();
        let (_connector, core) = pair(v4);
        let silent: Vec<_> =
            (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut all: Vec<_> = silent.iter().map(|s| s.local_addr().unwrap()).collect();
        all.push(v4);
        assert_eq!(winner(&core, &all).await, v4);
    }

    #[tokio::test]
    async fn a_stranger_on_one_address_does_not_end_the_race() {
        let ((v4, _), (other, _)) = (addresses(), addresses());
        let (_stranger, _) = pair(other);
        let (_connector, core) = pair(v4);
        assert_eq!(winner(&core, &[other, v4]).await, v4);
    }

    #[tokio::test]
    async fn strangers_on_all_addresses_are_what_the_race_is_lost_to() {
        let ((one, _), (other, _)) = (addresses(), addresses());
        let ((_a, _), (_b, core)) = (pair(one), pair(other));
        let authority = ThrowawayAuthority::new().unwrap();
        let core = core.with(Credentials::alone(authority.device("agent").unwrap()));
        let remote = remote();
        let both = [one, other];
        let lost = tokio::time::timeout(TEST_LIMIT, dial_any(&core, &remote, &both)).await.unwrap();
        let Err(DialError::Failed(failure)) = lost else { panic!("somebody won") };
        assert_eq!(failure.category(), Category::Authentication);
    }

    #[tokio::test]
    async fn one_address_is_not_waited_for() {
        let (v4, _) = addresses();
        let (connector, core) = pair(v4);
        connector.driver.abort().await;
        let (only, remote) = ([v4], remote());
        let dialled = dial_any(&core, &remote, &only);
        assert!(tokio::time::timeout(TEST_LIMIT, dialled).await.unwrap().is_ok());
    }
}
