//! The commands of onboarding: expose, connect, identities and invites.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use adit_tokio::core::message::ServiceName;
use clap::Subcommand;

use crate::address::{Backend, HostPort, PORT, RelayAddress};
use crate::base::duration;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit expose 3000                         a web server on this machine; prints an invite
  adit expose 192.168.1.9:22 --name ssh    a service on another machine that this one reaches
  adit expose unix:/run/app.sock
  adit expose 3000 --advertise home.example:4433    what a router forwards to this machine
  adit expose 3000 --relay relay.example:4433#KEY   from behind any router; see adit relay

The invite goes to the other machine, where it is good once and for 15 minutes:
  adit connect adit1_...

Stdout is the invite, in one line; everything else is on stderr.")]
pub(crate) struct ExposeArgs {
    /// What to expose: a PORT of this machine, HOST:PORT, or unix:PATH
    #[arg(value_name = "TARGET")]
    pub(crate) target: Backend,

    /// What the service is called; made from its port if not given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<ServiceName>,

    /// UDP address to listen on, as [IP:]PORT
    #[arg(long, value_name = "ADDR", default_value = "4433", value_parser = listen)]
    pub(crate) listen: SocketAddr,

    /// Another address at which devices reach this one, as HOST[:PORT]; may stand several times
    #[arg(long, value_name = "HOST", value_parser = advertised)]
    pub(crate) advertise: Vec<HostPort>,

    /// A relay by which devices reach this machine behind any NAT, as adit relay printed it; may
    /// stand several times, and is remembered
    #[arg(long, value_name = "RELAY")]
    pub(crate) relay: Vec<RelayAddress>,

    /// Use no relay, and forget those that were remembered
    #[arg(long, conflicts_with = "relay")]
    pub(crate) no_relay: bool,

    /// Do not ask the gateway of this network to lead peers here (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// How long certificates are good that are issued from now on, like 365d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) certificate_life: Option<Duration>,

    /// Print no invite: those that were here before come back without one
    #[arg(long)]
    pub(crate) no_invite: bool,

    #[command(flatten)]
    pub(crate) invite: InviteOptions,

    /// Print the invite as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InviteOptions {
    /// The name that the invited device gets in its certificate, for allow lists
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,

    /// How long the invite is good
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse)]
    pub(crate) invite_for: Duration,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit connect adit1_...         follow an invite, and offer its service here
  adit connect web               again later, without one
  adit connect web --local 8080
  echo \"$INVITE\" | adit connect -
  adit connect --invite-file invite.txt     also: ADIT_INVITE=adit1_... adit connect

Stdout is the local address, in one line, once it can be used.")]
pub(crate) struct ConnectArgs {
    /// An invite, - to read one from standard input, or the name of a service that is known here
    #[arg(value_name = "INVITE|NAME", required_unless_present_any = ["invite_file", "invite"])]
    pub(crate) target: Option<String>,

    /// A file that holds the invite
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub(crate) invite_file: Option<PathBuf>,

    /// The invite, where it is not to stand in the command
    #[arg(long, env = "ADIT_INVITE", hide = true, hide_env_values = true)]
    pub(crate) invite: Option<String>,

    /// Where to offer the service, as [IP:]PORT; its own port if that is free, if not given
    #[arg(long, value_name = "ADDR", value_parser = local)]
    pub(crate) local: Option<SocketAddr>,

    /// Where the connector is now, as HOST:PORT; it is remembered
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub(crate) at: Option<HostPort>,

    /// Do not ask the gateway of this network to lead peers here (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Exit with code 4 when there was no connection for this long, like 30s or 5m;
    /// without it, retry for ever
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) give_up_after: Option<Duration>,

    /// Print the local address as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Show who this machine is, and which devices have certificates of its mesh
    #[command(after_help = "\
Examples:
  adit id show
  adit id show --json | jq '.devices[].id'")]
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give this machine a new key and certificate, while everything goes on
    #[command(after_help = "\
Examples:
  adit id rotate          the connector's own, on the machine that exposes
  adit id rotate web      this machine's as a device, on the one that connects")]
    Rotate {
        /// A service that is known here; without it, the identity of this machine's own mesh
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a device's certificates back: it loses access within a second, and for good
    #[command(after_help = "\
Examples:
  adit id revoke device-3f9a0c41d2b7
  adit id revoke laptop")]
    Revoke {
        /// The device: its id, its name, or what it calls itself
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make an invite to a service of the connector that runs here, or ran here last
    #[command(after_help = "\
Examples:
  adit invite new                    where there is one service
  adit invite new web --device laptop --invite-for 1h")]
    New {
        /// The service
        #[arg(value_name = "SERVICE")]
        service: Option<ServiceName>,
        #[command(flatten)]
        options: InviteOptions,
        /// Print the invite as JSON
        #[arg(long)]
        json: bool,
    },
    /// List invites and what became of them
    #[command(after_help = "\
Examples:
  adit invite list
  adit invite list --json")]
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back an invite that nobody has used
    #[command(after_help = "\
Examples:
  adit invite revoke 5e0c7a12       its first digits, as adit invite list shows them")]
    Revoke {
        /// The first digits of its id
        #[arg(value_name = "ID")]
        id: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Reads `[IP:]PORT`, where no IP means `ip`.
fn with_default(text: &str, ip: IpAddr) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    let parsed = match port.parse() {
        Ok(port) => Some(SocketAddr::new(ip, port)),
        Err(_) => text.parse().ok(),
    };
    parsed.ok_or_else(|| format!("\"{text}\" is no address; write it like 4433 or 192.0.2.7:4433"))
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    with_default(text, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn local(text: &str) -> Result<SocketAddr, String> {
    with_default(text, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let next = |error: String| format!("{error}; write it like home.example:{PORT}");
    HostPort::try_from(text.to_owned()).map_err(next)
}

pub(super) fn advertised(text: &str) -> Result<HostPort, String> {
    host_port(text).or_else(|error| {
        let is_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let with_port = if is_v6 { format!("[{text}]:{PORT}") } else { format!("{text}:{PORT}") };
        HostPort::try_from(with_port).map_err(|_| error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_alone_or_with_an_ip() {
        assert_eq!(listen("4433"), Ok("0.0.0.0:4433".parse().unwrap()));
        assert_eq!(listen(":5000"), Ok("0.0.0.0:5000".parse().unwrap()));
        assert_eq!(listen("[::]:5000"), Ok("[::]:5000".parse().unwrap()));
        assert_eq!(local("8080"), Ok("127.0.0.1:8080".parse().unwrap()));
        for wrong in ["", "x", "1.2.3.4", "65536", "::1"] {
            assert!(listen(wrong).unwrap_err().contains("write it like"), "{wrong}");
        }
    }

    #[test]
    fn what_is_advertised_has_the_usual_port_unless_told() {
        assert_eq!(advertised("home.example").unwrap().to_string(), "home.example:4433");
        assert_eq!(advertised("2001:db8::7").unwrap().to_string(), "[2001:db8::7]:4433");
        assert_eq!(advertised("192.0.2.7:9").unwrap().to_string(), "192.0.2.7:9");
        assert!(advertised("a b").unwrap_err().contains("write it like home.example:4433"));
    }
}
