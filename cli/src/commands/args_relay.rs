//! The commands about relays and networks: relay, check, why.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::parse::{advertised, listen};
use crate::address::{HostPort, RelayPlace};
use crate::config::MeshKey;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit relay                                    on a machine with a public address
  adit relay --advertise relay.example          what clients are told to call it
  adit relay --allow-mesh 5e0c7a12...           for the members of that mesh alone
  adit relay -c relay.toml

Both sides are told the line that it prints:
  adit expose 3000 --relay relay.example:4433#KEY
The invite carries it to the other side.

A relay.toml:
  listen = \"0.0.0.0:4433\"
  advertise = [\"relay.example:4433\"]
  allow_meshes = []           # keys as adit id show prints them; without any, every mesh
  mbits_per_client = 100      # of what is passed on; 1000 without it
  tcp_port = 8443             # for networks without UDP; 443 without it, no_tcp = true for none

Stdout is the relay's address with its key, in one line.")]
pub(crate) struct RelayArgs {
    /// UDP address to listen on, as [IP:]PORT
    #[arg(long, value_name = "ADDR", default_value = "4433", value_parser = listen)]
    pub(crate) listen: SocketAddr,

    /// Where clients reach it, as HOST[:PORT], if not at its own addresses; may stand several times
    #[arg(long, value_name = "HOST", value_parser = advertised)]
    pub(crate) advertise: Vec<HostPort>,

    /// A mesh whose members may use it, by its key as adit id show prints it; may stand several
    /// times. Without it, the members of every mesh may
    #[arg(long, value_name = "KEY")]
    pub(crate) allow_mesh: Vec<MeshKey>,

    /// The UDP port of its second socket, for address discovery; by default the next one
    #[arg(long, value_name = "PORT")]
    pub(crate) discovery_port: Option<u16>,

    /// The TCP port for networks that let no UDP through; by default 443, where that can be had
    #[arg(long, value_name = "PORT")]
    pub(crate) tcp_port: Option<u16>,

    /// Take clients by UDP alone
    #[arg(long, conflicts_with = "tcp_port")]
    pub(crate) no_tcp: bool,

    /// Megabits a second that one client may have passed on; 1000 by default
    #[arg(long, value_name = "MBITS")]
    pub(crate) mbits_per_client: Option<NonZeroU32>,

    /// A file that says all this instead
    #[arg(short, long, value_name = "FILE", conflicts_with_all =
        ["listen", "advertise", "allow_mesh", "discovery_port", "tcp_port", "no_tcp", "mbits_per_client"])]
    pub(crate) config: Option<PathBuf>,

    /// Print the relay's address as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit why                      every peer behind a relay, of every adit that runs here
  adit why web                  the connector of a service that is known here
  adit why device-3f9a0c41d2b7 --json

Exit codes:
  0 there is a path   4 nothing runs here, or there is no such peer   5 a peer has no path")]
pub(crate) struct WhyArgs {
    /// A peer by its name, or a service that is known here; without it, all
    #[arg(value_name = "PEER")]
    pub(crate) peer: Option<String>,

    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit check                              the relays that are known here
  adit check relay.example:4433#KEY       one that is not known yet
  adit check relay.example --json

Exit codes:
  0 all that is needed works   2 no relay is known and none was given
  3 it is not the relay whose key was given   4 no relay can be reached
  5 a relay can be reached, and direct paths are unlikely")]
pub(crate) struct CheckArgs {
    /// The relay, as adit relay printed it; its place alone tells less
    #[arg(value_name = "RELAY")]
    pub(crate) relay: Option<RelayPlace>,

    /// Do not ask the gateway of this network whether it maps ports
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
