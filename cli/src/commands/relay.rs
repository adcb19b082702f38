//! `adit relay`: a relay from the command line or a file, and the line that clients are given.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::parse::{self, Advertised};
use crate::base::exit::ExitError;
use crate::base::output;
use crate::config::{self, DeviceKey, MeshKey};
use crate::homedir::Home;
use crate::net::interfaces;
use crate::roles::relay::{RelayPlan, TcpPort, start};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit relay                                    on a machine with a public address
  adit relay --advertise relay.example          with this name in its address
  adit relay --allow-mesh 5e0c7a12...           for the members of that mesh only
  adit relay -c relay.toml

The first machine takes the line that it prints:
  adit expose 3000 --relay relay.example:4433#KEY
The invite contains it for the other machine.

A relay.toml:
  listen = \"0.0.0.0:4433\"
  advertise = [\"relay.example:4433\"]
  allow_meshes = []           # keys as adit id show prints them; without any, every mesh
  allow_keys = []             # keys of single devices, whatever their mesh
  mbits_per_client = 100      # of forwarded traffic; by default 1000
  mbits_in_all = 500          # of all clients together; by default without a limit
  tcp_port = 8443             # for networks without UDP; by default 443, no_tcp = true for none

Stdout has the relay's address with its key, in one line.")]
pub(crate) struct RelayArgs {
    /// UDP address to listen on, as [IP:]PORT
    #[arg(long, value_name = "ADDR", default_value = "4433", value_parser = parse::listen)]
    pub(crate) listen: SocketAddr,

    /// Address for clients, as HOST[:PORT], instead of its own addresses; by default with the port
    /// that it listens on; may be repeated
    #[arg(long, value_name = "HOST", value_parser = parse::advertised)]
    pub(crate) advertise: Vec<Advertised>,

    /// Key of a mesh whose members may use it, as adit id show prints it; may be repeated. Without
    /// it, the members of every mesh may use it
    #[arg(long, value_name = "KEY")]
    pub(crate) allow_mesh: Vec<MeshKey>,

    /// Key of a device that may use it, whatever its mesh, as adit id show prints it; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) allow_key: Vec<DeviceKey>,

    /// Accept everyone, and do not warn of it at an address that is not public
    #[arg(long, conflicts_with_all = ["allow_mesh", "allow_key"])]
    pub(crate) open: bool,

    /// UDP port of its second socket, for address discovery; by default the next port
    #[arg(long, value_name = "PORT")]
    pub(crate) discovery_port: Option<u16>,

    /// TCP port for networks that block UDP; by default 443, if it is free
    #[arg(long, value_name = "PORT")]
    pub(crate) tcp_port: Option<u16>,

    /// Accept clients over UDP only
    #[arg(long, conflicts_with = "tcp_port")]
    pub(crate) no_tcp: bool,

    /// Megabits per second that it forwards for one client; by default 1000
    #[arg(long, value_name = "MBITS")]
    pub(crate) mbits_per_client: Option<NonZeroU32>,

    /// Megabits per second that it forwards for all clients together; by default without a limit
    #[arg(long, value_name = "MBITS")]
    pub(crate) mbits_in_all: Option<NonZeroU32>,

    /// A file with these settings
    #[arg(short, long, value_name = "FILE", conflicts_with_all =
        ["listen", "advertise", "allow_mesh", "allow_key", "open", "discovery_port", "tcp_port", "no_tcp",
         "mbits_per_client", "mbits_in_all"])]
    pub(crate) config: Option<PathBuf>,

    /// Print the relay's address as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong with the configuration, the address or, later, the socket.
pub(crate) async fn run(arguments: RelayArgs, home: &Home) -> Result<(), ExitError> {
    let json = arguments.json;
    let running = start(plan(arguments)?, home).await?;
    let announcement = running.announcement();
    if json {
        output::json("adit.relay/1", announcement)?;
    } else {
        output::message(
            "Use this line on the machine that exposes: adit expose 3000 --relay RELAY; Ctrl-C ends it.",
        );
        output::text_line(&announcement.relay.to_string())?;
    }
    running.until_asked_to_end().await
}

/// Returns the plan of the command line, or of the file that it names.
fn plan(arguments: RelayArgs) -> Result<RelayPlan, ExitError> {
    let port = arguments.listen.port();
    let Some(path) = arguments.config else {
        return Ok(RelayPlan {
            listen: interfaces::dual(arguments.listen),
            discovery_port: arguments.discovery_port,
            tcp_port: TcpPort::of(arguments.tcp_port, arguments.no_tcp),
            advertise: arguments.advertise.iter().map(|it| it.at(port)).collect(),
            meshes: arguments.allow_mesh.into_iter().map(|mesh| mesh.0).collect(),
            keys: arguments.allow_key.into_iter().map(|device| device.0).collect(),
            is_open: arguments.open,
            mbits_per_client: arguments.mbits_per_client,
            mbits_in_all: arguments.mbits_in_all,
        });
    };
    let config = config::RelayConfig::load(&path)?;
    Ok(RelayPlan {
        listen: interfaces::dual(config.listen),
        discovery_port: config.discovery_port,
        tcp_port: TcpPort::of(config.tcp_port, config.no_tcp),
        advertise: config.advertise,
        meshes: config.allow_meshes.into_iter().map(|MeshKey(key)| key).collect(),
        keys: config.allow_keys.into_iter().map(|DeviceKey(key)| key).collect(),
        is_open: config.open,
        mbits_per_client: config.mbits_per_client,
        mbits_in_all: config.mbits_in_all,
    })
}
