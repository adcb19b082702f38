//! The agent's connection to its connector: the name resolved, IPv4 and IPv6 raced, the winner
//! held, and all of it again when the core gives up. It decides when retrying makes no sense;
//! when to retry, as long as one address holds, is the core's business.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Events, Peer};
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::session::State;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Remote;
use crate::node::{self, Node};
use crate::stop::{Exit, Stop};
use crate::{forward, lifecycle};

/// Pause before a name that did not resolve is asked for again, and before a connector that the
/// core gave up is dialled anew.
const AGAIN: Duration = Duration::from_secs(2);

/// How long the address that the resolver prefers is alone in the race (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The connection, across all addresses it may have.
#[derive(Debug)]
pub(crate) struct Link {
    remote: Remote,
    core: Config,
    current: watch::Sender<Option<Peer>>,
    patience: Patience,
    node: Option<Node>,
}

impl Link {
    /// A link that ends when it was down for as long as `give_up_after`, and what the forwards
    /// follow it by.
    pub(crate) fn new(
        remote: Remote,
        core: Config,
        give_up_after: Option<Duration>,
    ) -> (Self, forward::agent::Tunnel) {
        let (current, tunnel) = watch::channel(None);
        let patience = Patience { limit: give_up_after, since: Some(Instant::now()) };
        (Self { remote, core, current, patience, node: None }, tunnel)
    }

    /// Closes the local ports, which follow the link, and gives the node, if there is one, to be
    /// shut down.
    pub(crate) fn end(self) -> Option<Node> {
        self.node
    }

    /// Runs until going on makes no sense.
    pub(crate) async fn keep_up(&mut self) -> Stop {
        loop {
            let failure = match self.once().await {
                Ok(failure) => failure,
                Err(stop) => return stop,
            };
            match failure.category() {
                Category::Authentication | Category::Configuration => return failure.into(),
                Category::Network | Category::Server | Category::Protocol | Category::Unknown => {
                    tracing::warn!(%failure, "dialling anew");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// From the name to a connection to its loss, which is what is returned.
    async fn once(&mut self) -> Result<Failure, Stop> {
        let found = async {
            let addresses = self.resolve().await;
            self.race(&addresses).await
        };
        let Attempt { node, peer, events } = tokio::select! {
            winner = found => winner?,
            stop = self.patience.lost() => return Err(stop),
        };
        self.current.send_replace(Some(peer.clone()));
        if let Some(old) = self.node.replace(node) {
            old.retire();
        }
        self.hold(&peer, events).await
    }

    async fn resolve(&self) -> Vec<SocketAddr> {
        let name = &self.remote.address;
        loop {
            match name.resolve().await {
                Ok(addresses) => return addresses,
                Err(error) => tracing::warn!(%name, %error, "the name does not resolve; retrying"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Dials the preferred address and, when it does not answer at once, the preferred one of the
    /// other family beside it. With one family there is nothing to wait for. This machine may lack
    /// one, which is no failure as long as there is the other.
    async fn race(&self, addresses: &[SocketAddr]) -> Result<Attempt, Stop> {
        let [preferred, ..] = addresses else {
            return Err(Stop::new(Exit::Unreachable, "the name has no address"));
        };
        let Some(other) = addresses.iter().find(|a| a.is_ipv4() != preferred.is_ipv4()) else {
            return self.dial(*preferred);
        };
        let Ok(first) = self.dial(*preferred) else { return self.dial(*other) };
        let ahead = tokio::time::timeout(HEAD_START, first.peer.connected()).await;
        if matches!(ahead, Ok(Ok(()))) {
            return Ok(first);
        }
        let Ok(second) = self.dial(*other) else { return Ok(first) };
        let first_wins = tokio::select! {
            result = first.peer.connected() => result.is_ok(),
            result = second.peer.connected() => result.is_err(),
        };
        let (winner, loser) = if first_wins { (first, second) } else { (second, first) };
        loser.node.retire();
        Ok(winner)
    }

    fn dial(&self, address: SocketAddr) -> Result<Attempt, Stop> {
        let node = node::start(node::local_for(address), self.core.clone())?;
        let events = node.handle.events();
        let name = self.remote.name.as_str();
        let peer = node.handle.dial(Dial::new(address, name)).map_err(|error| {
            Stop::usage(format!("[connector] name = \"{name}\", {address}: {error}; correct it"))
        })?;
        tracing::debug!(%address, "dialling");
        Ok(Attempt { node, peer, events })
    }

    /// Follows a peer until the core gives it up.
    async fn hold(&mut self, peer: &Peer, mut events: Events) -> Result<Failure, Stop> {
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { break };
                    if let Some(line) = lifecycle::line(&event) {
                        tracing::info!("{line}");
                    }
                    match peer.state() {
                        State::Failed { error, .. } => return Ok(error),
                        State::Connected { .. } => self.patience.on_state(true),
                        State::Disconnected
                        | State::Connecting { .. }
                        | State::Reconnecting { .. } => self.patience.on_state(false),
                    }
                }
                failure = peer.closed() => return Ok(failure),
                stop = self.patience.lost() => return Err(stop),
            }
        }
        match &mut self.node {
            Some(node) => Err(node.driver.ended().await),
            None => Err(Stop::new(Exit::Degraded, "the node is gone")),
        }
    }
}

/// One address being tried.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) node: Node,
    pub(crate) peer: Peer,
    events: Events,
}

/// A connection that nothing keeps up, and how long it took from dialling on.
///
/// # Errors
/// Why there is none, or none within `limit`.
pub(crate) async fn connect(
    remote: Remote,
    core: Config,
    limit: Duration,
) -> Result<(Attempt, Duration), Stop> {
    let name = remote.address.clone();
    let (link, _) = Link::new(remote, core, None);
    let connected = async {
        let addresses = name.resolve().await.map_err(|error| {
            let next = "check how it is written, and that this machine resolves names";
            Stop::new(Exit::Unreachable, format!("{name}: no address: {error}; {next}"))
        })?;
        let start = Instant::now();
        let attempt = link.race(&addresses).await?;
        attempt.peer.connected().await?;
        Ok((attempt, start.elapsed()))
    };
    tokio::time::timeout(limit, connected).await.unwrap_or_else(|_| {
        let next = "check that the connector runs and that UDP reaches it";
        let sentence = format!("{name}: no connection within {limit:?}; {next}");
        Err(Stop::new(Exit::Unreachable, sentence))
    })
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
    use crate::demo::authority::Authority;

    const SOON: Duration = Duration::from_secs(5);

    /// A connector that listens on `address`, and a link that believes it.
    fn pair(address: SocketAddr) -> (Node, Link) {
        let authority = Authority::new().unwrap();
        let config = |name, listening| {
            let tls = authority.device(name).unwrap();
            Config::builder(tls).listening(listening).build().unwrap()
        };
        let connector = node::start(address, config("connector", true)).unwrap();
        let remote = Remote { address: address.into(), name: "connector".into() };
        (connector, Link::new(remote, config("agent", false), None).0)
    }

    /// Two addresses of which one has nobody behind it.
    fn addresses() -> (SocketAddr, SocketAddr) {
        let v4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (v4, SocketAddr::new("::1".parse().unwrap(), v4.port()))
    }

    #[tokio::test]
    async fn the_other_family_wins_when_the_preferred_one_is_silent() {
        let (v4, v6) = addresses();
        let (_connector, link) = pair(v4);
        let winner = tokio::time::timeout(SOON, link.race(&[v6, v6, v4])).await.unwrap().unwrap();
        assert!(tokio::time::timeout(SOON, winner.peer.connected()).await.unwrap().is_ok());
        assert_eq!(winner.peer.remote(), Some(v4));
    }

    #[tokio::test]
    async fn the_preferred_family_wins_when_both_answer() {
        let (v4, v6) = addresses();
        let (_connector, link) = pair(v4);
        let winner = tokio::time::timeout(SOON, link.race(&[v4, v6])).await.unwrap().unwrap();
        assert_eq!(winner.peer.remote(), Some(v4));
    }

    #[tokio::test]
    async fn one_family_is_not_waited_for() {
        let (v4, _) = addresses();
        let (connector, link) = pair(v4);
        connector.driver.abort().await;
        assert!(tokio::time::timeout(SOON, link.race(&[v4])).await.unwrap().is_ok());
    }

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
