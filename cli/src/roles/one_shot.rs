//! A connection to a connector for a command that connects once: dialled within a time limit, and
//! closed cleanly. It never dials a second time.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::path;
use serde::Serialize;

use super::dialler;
use crate::base::exit::{Exit, ExitError};
use crate::base::units::millis;
use crate::config::{self, ForwardLimits, HeartbeatSettings, RemoteConnector};
use crate::homedir::Home;
use crate::identity::saved_service::SavedService;
use crate::identity::source::CredentialSource;
use crate::net::dialer::{DialAttempt, Dialer};
use crate::net::link::reach;
use crate::net::names::NameResolver;
use crate::net::node::RunningNode;
use crate::net::relays::AttachedRelays;

/// How long a close may take. A connector that misses it detects the end by its heartbeat.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connector to dial, and the credentials.
#[derive(Debug)]
pub(crate) struct DialSettings {
    pub(crate) remote: RemoteConnector,
    pub(crate) dialer: Dialer,
}

impl DialSettings {
    /// Returns the settings for the connector that an agent's file names, with the file's identity.
    ///
    /// # Errors
    /// What is wrong with the file or its certificates.
    pub(crate) fn from_file(
        path: &Path,
        home: Result<&Home, &ExitError>,
    ) -> Result<Self, ExitError> {
        let config = config::AgentConfig::load(path)?;
        let (remote, source) = dialler::target(&config, home)?;
        let core = dialler::core(source, config.paths, config.limits, config.heartbeat);
        let (dialer, _) = core.map_err(|stop| stop.within(path))?;
        Ok(Self { remote, dialer })
    }

    /// Returns the settings for the connector of a saved service.
    ///
    /// # Errors
    /// That it is unknown, or what is wrong with the certificate for it.
    pub(crate) fn known(name: &str, home: &Home) -> Result<Self, ExitError> {
        let known = SavedService::load(home, name)?;
        let source = CredentialSource::Member(known.membership(home));
        let (dialer, _) = dialler::core(
            source,
            path::PathConfig::default(),
            ForwardLimits::default(),
            HeartbeatSettings::default(),
        )?;
        Ok(Self { remote: known.remote()?, dialer })
    }

    /// Dials.
    ///
    /// # Errors
    /// Why there is no connection, or none within `limit`.
    pub(crate) async fn connect(self, limit: Duration) -> Result<OneShotConnection, ExitError> {
        let (name, title) = (self.remote.name.clone(), self.remote.title().to_owned());
        check_names(&self.remote).await?;
        let attempt = reach(&self.remote, &self.dialer, limit).await?;
        let connected = attempt.since.elapsed();
        // Behind a relay the node chooses the address, and it changes.
        let address = attempt.peer.remote().filter(|_| attempt.relays.is_none());
        let reached = Reached { connector: name, title, address, connected };
        let DialAttempt { node, relays, peer, .. } = attempt;
        Ok(OneShotConnection { peer, reached, node, _relays: relays })
    }
}

/// Fails early for a name that does not resolve, such as one with a typing error.
async fn check_names(remote: &RemoteConnector) -> Result<(), ExitError> {
    let mut wrong = None;
    let names = NameResolver::new();
    let relays = remote.relays.iter().map(|relay| relay.at.clone().into());
    for name in remote.addresses.iter().cloned().chain(relays) {
        match names.resolve_one(&name).await {
            Ok(_) => return Ok(()),
            Err(error) => wrong = Some(format!("{name}: no address: {error}")),
        }
    }
    let next = "check how it is written, and that this machine resolves names";
    let wrong = wrong.unwrap_or_else(|| "the connector has no address".to_owned());
    Err(ExitError::new(Exit::Unreachable, format!("{wrong}; {next}")))
}

/// An established connection.
#[derive(Debug)]
pub(crate) struct OneShotConnection {
    pub(crate) peer: Peer,
    pub(crate) reached: Reached,
    node: RunningNode,
    _relays: Option<AttachedRelays>,
}

impl OneShotConnection {
    /// Closes the connection.
    pub(crate) async fn leave(self) {
        self.node.handle.shutdown();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.node.handle.closed()).await;
    }
}

/// Which connector was reached, at which address, and how soon after it was dialled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reached {
    connector: String,
    /// What people call it.
    #[serde(skip)]
    title: String,
    address: Option<SocketAddr>,
    #[serde(rename = "connected_ms", serialize_with = "as_millis")]
    connected: Duration,
}

fn as_millis<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(millis(*time))
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connected to {}", self.title)?;
        if let Some(address) = self.address {
            write!(f, " ({address})")?;
        }
        write!(f, " in {:.1} ms", millis(self.connected))
    }
}

#[cfg(test)]
impl Reached {
    /// For tests of texts.
    pub(crate) fn example() -> Self {
        let address = Some(([192, 0, 2, 7], 4433).into());
        let name = "connector".to_owned();
        let connected = Duration::from_micros(3250);
        Self { title: name.clone(), connector: name, address, connected }
    }
}
