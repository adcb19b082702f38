//! The connector that a command has something to ask of, once: dialled within a time limit, and
//! left with a goodbye. It never dials a second time.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::path;
use serde::Serialize;

use crate::agent;
use crate::config::{self, Heartbeat, Limits, Remote};
use crate::homedir::Home;
use crate::identity::Source;
use crate::known::Known;
use crate::link::reach;
use crate::names::Names;
use crate::node::Node;
use crate::race::{Attempt, Caller};
use crate::relays::Relays;
use crate::samples::millis;
use crate::stop::{Exit, Stop};

/// How long a goodbye may take. A connector that misses it learns of the end by silence.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whom to dial, and as whom.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) remote: Remote,
    pub(crate) caller: Caller,
}

impl Target {
    /// The connector that an agent's file means, for the device that it names.
    ///
    /// # Errors
    /// What is wrong with the file or its certificates.
    pub(crate) fn from_file(path: &Path, home: Result<&Home, &Stop>) -> Result<Self, Stop> {
        let config = config::Agent::load(path)?;
        let (remote, source) = agent::target(&config, home)?;
        let core = agent::core(source, config.paths, config.limits, config.heartbeat);
        let (caller, _) = core.map_err(|stop| stop.within(path))?;
        Ok(Self { remote, caller })
    }

    /// The connector of a service that is known here.
    ///
    /// # Errors
    /// That it is not, or what is wrong with the certificate for it.
    pub(crate) fn known(name: &str, home: &Home) -> Result<Self, Stop> {
        let known = Known::load(home, name)?;
        let source = Source::Member(known.membership(home));
        let (caller, _) = agent::core(
            source,
            path::PathConfig::default(),
            Limits::default(),
            Heartbeat::default(),
        )?;
        Ok(Self { remote: known.remote()?, caller })
    }

    /// Dials.
    ///
    /// # Errors
    /// Why there is no connection, or none within `limit`.
    pub(crate) async fn connect(self, limit: Duration) -> Result<Connection, Stop> {
        let name = self.remote.name.clone();
        check_names(&self.remote).await?;
        let attempt = reach(&self.remote, &self.caller, limit).await?;
        let connected = attempt.since.elapsed();
        // Behind a relay the address is the node's own affair, and it changes.
        let address = attempt.peer.remote().filter(|_| attempt.relays.is_none());
        let reached = Reached { connector: name, address, connected };
        let Attempt { node, relays, peer, .. } = attempt;
        Ok(Connection { peer, reached, node, _relays: relays })
    }
}

/// Whoever waits for an answer need not wait for a name that is written wrong.
async fn check_names(remote: &Remote) -> Result<(), Stop> {
    let mut wrong = None;
    let names = Names::new();
    let relays = remote.relays.iter().map(|relay| relay.at.clone().into());
    for name in remote.addresses.iter().cloned().chain(relays) {
        match names.resolve_one(&name).await {
            Ok(_) => return Ok(()),
            Err(error) => wrong = Some(format!("{name}: no address: {error}")),
        }
    }
    let next = "check how it is written, and that this machine resolves names";
    let wrong = wrong.unwrap_or_else(|| "the connector has no address".to_owned());
    Err(Stop::new(Exit::Unreachable, format!("{wrong}; {next}")))
}

/// A connection that was made.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) reached: Reached,
    node: Node,
    _relays: Option<Relays>,
}

impl Connection {
    /// Says goodbye.
    pub(crate) async fn leave(self) {
        self.node.handle.shutdown();
        let _ = tokio::time::timeout(GOODBYE, self.node.handle.closed()).await;
    }
}

/// Who was reached, where, and how soon after this address was dialled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reached {
    connector: String,
    address: Option<SocketAddr>,
    #[serde(rename = "connected_ms", serialize_with = "as_millis")]
    connected: Duration,
}

fn as_millis<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(millis(*time))
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connected to {}", self.connector)?;
        if let Some(address) = self.address {
            write!(f, " ({address})")?;
        }
        write!(f, " in {:.1} ms", millis(self.connected))
    }
}

#[cfg(test)]
impl Reached {
    /// For tests of what is said.
    pub(crate) fn example() -> Self {
        let address = Some(([192, 0, 2, 7], 4433).into());
        Self { connector: "connector".into(), address, connected: Duration::from_micros(3250) }
    }
}
