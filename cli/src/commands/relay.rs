//! `adit relay`: a relay as the command line or a file has it, and the line that clients are given.

use super::RelayArgs;
use crate::base::output;
use crate::base::stop::Stop;
use crate::config::{self, MeshKey};
use crate::homedir::Home;
use crate::net::interfaces;
use crate::roles::relay::{Plan, Wanted, start};

/// Serves until a signal.
///
/// # Errors
/// What is wrong with the configuration, the address or, later, the socket.
pub(crate) async fn run(arguments: RelayArgs, home: &Home) -> Result<(), Stop> {
    let json = arguments.json;
    let running = start(plan(arguments)?, home).await?;
    let told = running.told();
    if json {
        output::json("adit.relay/1", told)?;
    } else {
        output::say(
            "Give this line to both sides: adit expose 3000 --relay RELAY; Ctrl-C ends it.",
        );
        output::text_line(&told.relay.to_string())?;
    }
    running.until_asked_to_end().await
}

/// What the command line says, or the file that it names.
fn plan(arguments: RelayArgs) -> Result<Plan, Stop> {
    let Some(path) = arguments.config else {
        return Ok(Plan {
            listen: interfaces::dual(arguments.listen),
            discovery_port: arguments.discovery_port,
            door: Wanted::of(arguments.tcp_port, arguments.no_tcp),
            advertise: arguments.advertise,
            meshes: arguments.allow_mesh.into_iter().map(|mesh| mesh.0).collect(),
            mbits_per_client: arguments.mbits_per_client,
        });
    };
    let config = config::Relay::load(&path)?;
    Ok(Plan {
        listen: interfaces::dual(config.listen),
        discovery_port: config.discovery_port,
        door: Wanted::of(config.tcp_port, config.no_tcp),
        advertise: config.advertise,
        meshes: config.allow_meshes.into_iter().map(|MeshKey(key)| key).collect(),
        mbits_per_client: config.mbits_per_client,
    })
}
