//! The connector to dial for a command that connects once: `adit ping`, `adit bench`.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::duration;
use crate::base::exit::ExitError;
use crate::homedir::Home;
use crate::roles::one_shot::DialSettings;

/// Which connector, and how long it may take to reach it.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// A saved service, whose connector is measured
    #[arg(value_name = "PEER", required_unless_present = "config")]
    peer: Option<String>,

    /// An agent's configuration file, with the connector and the device's certificate
    #[arg(short, long, value_name = "FILE", conflicts_with = "peer")]
    config: Option<PathBuf>,

    /// Give up after this long without a connection
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

impl TargetArgs {
    /// Returns the connector to dial, and how.
    ///
    /// # Errors
    /// What is wrong with the file, or that the peer is unknown.
    pub(crate) fn target(&self, home: Result<Home, ExitError>) -> Result<DialSettings, ExitError> {
        match (&self.config, &self.peer) {
            (Some(path), _) => DialSettings::from_file(path, home.as_ref()),
            (None, Some(peer)) => DialSettings::known(peer, &home?),
            (None, None) => Err(ExitError::usage(
                "the connector is missing: name a saved service, or use -c agent.toml",
            )),
        }
    }
}
