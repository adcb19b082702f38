//! The connector that a dialling role names, and the settings to dial it with: the same for the
//! agent and for the commands that connect once. It never dials.

use adit_tokio::core::config::Config;
use adit_tokio::core::path;

use crate::base::exit::ExitError;
use crate::config::{self, AgentTarget, ForwardLimits, HeartbeatSettings, RemoteConnector};
use crate::homedir::Home;
use crate::identity::credentials::Credentials;
use crate::identity::saved_service::SavedService;
use crate::identity::source::{CredentialSource, CredentialWatcher};
use crate::net::dialer::{Dialer, FailureLog, one_of_several};
use crate::net::node;

/// Returns the connector that a file names, and this machine's identity towards it.
///
/// # Errors
/// If it is unknown.
pub(crate) fn target(
    config: &config::AgentConfig,
    home: Result<&Home, &ExitError>,
) -> Result<(RemoteConnector, CredentialSource), ExitError> {
    let (remote, source) = match &config.target {
        AgentTarget::Given(remote, files) => {
            (remote.clone(), CredentialSource::Files(files.clone()))
        }
        AgentTarget::Known(name) => {
            let home = home.map_err(ExitError::clone)?;
            let known = SavedService::load(home, name)?;
            (known.remote()?, CredentialSource::Member(known.membership(home)))
        }
    };
    let service = config.forwards.first().map(|forward| &forward.service);
    Ok((remote.by(&config.relays, service), source))
}

/// Returns the settings for the core, and the watcher of the credentials.
///
/// # Errors
/// Which setting cannot work.
pub(crate) fn core(
    source: CredentialSource,
    paths: path::PathConfig,
    limits: ForwardLimits,
    heartbeat: HeartbeatSettings,
) -> Result<(Dialer, CredentialWatcher), ExitError> {
    let (watcher, Credentials { tls, relay_identity }) = CredentialWatcher::start(source)?;
    let transport = node::transport(limits).connect_timeout(node::CONNECT_TIMEOUT);
    let builder = Config::builder(tls).device_id("agent").transport(transport).path(paths);
    let core = node::build(builder, heartbeat)?;
    // When its attempts have failed, the names are resolved again and all addresses are tried.
    let retry = one_of_several();
    let failures = FailureLog::default();
    Ok((Dialer { core, relay_identity, port_mapping: false, retry, failures }, watcher))
}
