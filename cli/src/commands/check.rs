//! `adit check`: measures what this network allows, before anything depends on it. Each relay is
//! resolved, dialled and asked for this machine's address, and where that shows a NAT the gateway
//! is asked to map a port for a moment. It registers no service and saves no file.

use std::collections::BTreeSet;

use crate::address::RelayTarget;
use crate::base::exit::ExitError;
use crate::base::output;
use crate::diagnose::network;
use crate::diagnose::report::{NetworkReport, RelayReport};
use crate::homedir::Home;
use crate::identity::mesh::Mesh;
use crate::identity::saved_service::SavedService;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit check                              the relays of this machine's services
  adit check relay.example:4433#KEY       another relay
  adit check relay.example --json

Exit codes:
  0 everything needed works   2 no relay is known and none was given
  3 the relay has another key   4 no relay can be reached
  5 a relay can be reached, and direct paths are unlikely")]
pub(crate) struct CheckArgs {
    /// The relay, as adit relay printed it; without #KEY it is not verified
    #[arg(value_name = "RELAY")]
    pub(crate) relay: Option<RelayTarget>,

    /// Do not ask the gateway of this network for a port mapping
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Checks and prints.
///
/// # Errors
/// What does not work, or that there is no known relay to ask.
pub(crate) async fn run(arguments: &CheckArgs, home: &Home) -> Result<(), ExitError> {
    let places = match &arguments.relay {
        Some(place) => vec![place.clone()],
        None => known(home),
    };
    if places.is_empty() {
        return Err(ExitError::usage(
            "no relay is known here, and the check needs one; name it: adit check \
             relay.example:4433#KEY, as adit relay printed it on a machine with a public address",
        ));
    }
    let mut relays: Vec<RelayReport> = Vec::new();
    for place in &places {
        relays.push(network::relay(place).await?);
    }
    let report = match NetworkReport::new(relays) {
        report if report.sees_nat() && !arguments.no_port_mapping => {
            report.with_port_mapping(network::gateway().await)
        }
        report => report,
    };
    if arguments.json {
        output::json("adit.check/1", &report)?;
    } else {
        output::text(&report.to_string())?;
    }
    report.verdict()
}

/// Returns the relays of this machine's own mesh, and of the services that are saved here, each
/// once.
fn known(home: &Home) -> Vec<RelayTarget> {
    let of_mesh = Mesh::open(home).map(|mesh| mesh.relays()).unwrap_or_default();
    let of_services = SavedService::names(home)
        .into_iter()
        .filter_map(|name| SavedService::load(home, &name).ok()?.remote().ok())
        .flat_map(|remote| remote.relays);
    let all: BTreeSet<_> = of_mesh.into_iter().chain(of_services).collect();
    all.into_iter().map(RelayTarget::from).collect()
}
