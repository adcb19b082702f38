//! The connector that a command has something to ask of, once: dialled within a time limit, and
//! left with a goodbye. It never dials a second time.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use adit_tokio::core::config::Config;
use adit_tokio::core::drive::Peer;
use serde::Serialize;

use crate::config::{self, Remote};
use crate::link::{self, Attempt};
use crate::node::Node;
use crate::samples::millis;
use crate::stop::Stop;
use crate::{identity, node};

/// How long a goodbye may take. A connector that misses it learns of the end by silence.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whom to dial, and as whom.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) remote: Remote,
    pub(crate) core: Config,
}

impl Target {
    /// The connector that an agent's file names, for the device that it names.
    ///
    /// # Errors
    /// What is wrong with the file or its certificates.
    pub(crate) fn from_file(path: &Path) -> Result<Self, Stop> {
        let config = config::Agent::load(path)?;
        let tls = identity::load(&config.tls)?;
        let builder =
            Config::builder(tls).device_id("agent").transport(node::transport(config.limits));
        let core = node::build(builder, config.heartbeat, path)?;
        Ok(Self { remote: config.connector, core })
    }

    /// Dials.
    ///
    /// # Errors
    /// Why there is no connection, or none within `limit`.
    pub(crate) async fn connect(self, limit: Duration) -> Result<Connection, Stop> {
        let name = self.remote.name.clone();
        let (Attempt { node, peer, .. }, took) =
            link::connect(self.remote, self.core, limit).await?;
        let reached = Reached { connector: name, address: peer.remote(), connected: took };
        Ok(Connection { peer, reached, node })
    }
}

/// A connection that was made.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) reached: Reached,
    node: Node,
}

impl Connection {
    /// Says goodbye.
    pub(crate) async fn leave(self) {
        self.node.handle.shutdown();
        let _ = tokio::time::timeout(GOODBYE, self.node.handle.closed()).await;
    }
}

/// Who was reached, where, and how soon after dialling.
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
