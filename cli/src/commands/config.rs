//! `adit config verify`: reads a configuration file with all the files that it names, without
//! running it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use crate::base::exit::ExitError;
use crate::base::output;
use crate::config::{AgentConfig, AgentTarget, ConnectorConfig};
use crate::homedir::Home;
use crate::identity::mesh::Mesh;
use crate::identity::source::CredentialSource;
use crate::roles::dialler;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read a connector's or an agent's file, with all that it names, and say what it means
    #[command(after_help = "\
Examples:
  adit config verify connector.toml
  adit config verify agent.toml --json")]
    Verify {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The meaning of a file.
#[derive(Debug, Serialize)]
struct ConfigReport {
    file: String,
    role: &'static str,
    /// The certificate that is used.
    identity: &'static str,
    /// What it does, one entry per line.
    does: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The first mistake in the file, or in one that it names.
pub(super) fn run(command: ConfigCommand, home: &Home) -> Result<(), ExitError> {
    match command {
        ConfigCommand::Verify { file, json } => verify(&file, json, home),
    }
}

fn verify(path: &Path, json: bool, home: &Home) -> Result<(), ExitError> {
    let meaning = if is_connectors(path) { connector(path, home)? } else { an_agent(path, home)? };
    if json {
        return output::json("adit.config/1", &meaning);
    }
    output::text_line(&format!("{}: a good {}'s file", meaning.file, meaning.role))?;
    output::text_line(&format!("  identity: {}", meaning.identity))?;
    meaning.does.iter().try_for_each(|line| output::text_line(&format!("  {line}")))
}

/// Returns true if a file looks like a connector's: it names where to listen or what to serve.
/// Reading it as one or the other shows the rest.
fn is_connectors(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let has = |key| table.contains_key(key);
    let is_agents = has("forward") || has("connector");
    (has("service") || has("listen")) && !is_agents
        || (!is_agents && text.contains("[[service]]") && !text.contains("[[forward]]"))
}

fn connector(path: &Path, home: &Home) -> Result<ConfigReport, ExitError> {
    let config = ConnectorConfig::load(path)?;
    let (identity, source) = match config.tls {
        Some(files) => ("the files in [tls]", Some(CredentialSource::Files(files))),
        None => ("this machine's own mesh", Mesh::open(home).map(CredentialSource::Mesh)),
    };
    // A mesh that does not exist yet is made when the connector starts.
    source.map(CredentialSource::check).transpose()?;
    let mut does = vec![format!("listens on {} (UDP)", config.listen)];
    let relays = config.relays.iter().flatten();
    does.extend(relays.map(|relay| format!("is registered at the relay {}", relay.at)));
    does.extend(config.services.iter().map(|service| {
        let who = match &service.allow {
            Some(allow) if allow.is_empty() => "nobody".to_owned(),
            Some(allow) => allow.iter().cloned().collect::<Vec<_>>().join(", "),
            None if identity.contains("mesh") => "devices invited to it".to_owned(),
            None => "every device of the CA".to_owned(),
        };
        format!("exposes {} as \"{}\" to {who}", service.backend, service.name)
    }));
    Ok(ConfigReport { file: path.display().to_string(), role: "connector", identity, does })
}

fn an_agent(path: &Path, home: &Home) -> Result<ConfigReport, ExitError> {
    let config = AgentConfig::load(path)?;
    let identity = match &config.target {
        AgentTarget::Given(..) => "the files in [tls]",
        AgentTarget::Known(_) => "this machine's certificate in the connector's mesh",
    };
    let (remote, source) = dialler::target(&config, Ok(home))?;
    source.check()?;
    let mut does: Vec<_> =
        remote.relays.iter().map(|r| format!("uses the relay {}", r.at)).collect();
    let addresses: Vec<_> = remote.addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        does.push(format!("reaches {} through a relay alone", remote.name));
    } else {
        does.push(format!("dials {} at {}", remote.name, addresses.join(", ")));
    }
    let forwards = config.forwards.iter();
    does.extend(forwards.map(|f| format!("offers \"{}\" on {} (TCP)", f.service, f.listen)));
    Ok(ConfigReport { file: path.display().to_string(), role: "agent", identity, does })
}
