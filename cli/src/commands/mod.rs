//! The command line. It holds no secret: keys are named by path in the configuration file.

pub(crate) mod agent;
mod args_relay;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod connector;
pub(crate) mod demo;
pub(crate) mod expose;
pub(crate) mod id;
pub(crate) mod invite;
mod parse;
pub(crate) mod ping;
pub(crate) mod relay;
pub(crate) mod status;
mod target;
pub(crate) mod why;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};

pub(crate) use self::args_relay::{CheckArgs, RelayArgs, WhyArgs};
pub(crate) use self::parse::{ConnectArgs, ExposeArgs, IdCommand, InviteCommand, InviteOptions};
pub(crate) use self::target::{BenchArgs, PingArgs};
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  adit demo                        see it work, on this machine alone
  adit expose 3000                 expose a service, and print an invite to it
  adit connect adit1_...           on the other machine: follow the invite
  adit relay                       on a public machine: bring the two together through any NAT
  adit connector -c connector.toml expose the services named in the file
  adit agent -c agent.toml         reach them from local ports
  adit status                      what runs here, and how its connections are
  adit check                       what this network allows

Exit codes:
  0 all went well   2 usage or configuration   3 authentication (do not retry)
  4 unreachable (retry later)   5 degraded";

/// A self-healing, mutually authenticated QUIC tunnel.
#[derive(Debug, Parser)]
#[command(name = "adit", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more on stderr: -v for state changes, -vv for packets (RUST_LOG overrides)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,

    /// Where identities and running processes are found; by default .adit in your own directory
    #[arg(long, value_name = "DIR", env = "ADIT_HOME", hide_env_values = true, global = true)]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Expose a service of this machine to devices that you invite
    Expose(ExposeArgs),
    /// Follow an invite, and offer its service on a local port; afterwards by its name
    Connect(ConnectArgs),
    /// Who this machine is, and who its devices are: show, rotate, revoke
    #[command(subcommand, after_help = "Example:\n  adit id show")]
    Id(IdCommand),
    /// Invites to the services of this machine: new, list, revoke
    #[command(subcommand, after_help = "Example:\n  adit invite new")]
    Invite(InviteCommand),
    /// Check a configuration file without running it
    #[command(subcommand, after_help = "Example:\n  adit config verify connector.toml")]
    Config(ConfigCommand),
    /// Show a tunnel at work on this machine: transfers, requests, and recovery from failures
    Demo(DemoArgs),
    /// Expose private TCP services to the devices that may use them
    Connector(ConnectorArgs),
    /// Offer the services of a connector on local TCP ports
    Agent(AgentArgs),
    /// Ask a connector for signs of life, and how long they take
    Ping(PingArgs),
    /// Measure the tunnel to a connector: throughput, latency, new streams
    Bench(BenchArgs),
    /// Bring machines together that have no public address, on one that has
    Relay(RelayArgs),
    /// Show what runs on this machine: who is connected, how well, and what is wrong
    Status(StatusArgs),
    /// Show by which path a peer is reached, what was tried, and why it is this one
    Why(WhyArgs),
    /// Show what this network allows: names, UDP to a relay, direct paths
    Check(CheckArgs),
}

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

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit demo           a table of what was shown, in some ten seconds
  adit demo --keep    leave the tunnel up afterwards and print its URL
  adit demo --json    the same as a JSON report on stdout")]
pub(crate) struct DemoArgs {
    /// Leave the tunnel up afterwards and print the URL of its local end
    #[arg(long)]
    pub(crate) keep: bool,

    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  adit connector -c connector.toml

A connector.toml:
  listen = \"0.0.0.0:4433\"

  [tls]
  ca = \"ca.pem\"
  certificate = \"connector.pem\"
  key = \"connector.key\"

  [[service]]
  name = \"web\"
  tcp = \"127.0.0.1:8080\"    # or unix = \"/run/app.sock\"
  allow = [\"laptop\"]        # names from device certificates; without it, every device")]
pub(crate) struct ConnectorArgs {
    /// The configuration file; paths in it are relative to it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Do not ask the gateway of this network to lead peers here (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  adit agent -c agent.toml

An agent.toml:
  [tls]
  ca = \"ca.pem\"
  certificate = \"laptop.pem\"
  key = \"laptop.key\"

  [connector]
  address = \"connector.example:4433\"
  name = \"connector\"        # the name in the connector's certificate

  [[forward]]
  listen = \"127.0.0.1:9000\"
  service = \"web\"")]
pub(crate) struct AgentArgs {
    /// The configuration file; paths in it are relative to it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Do not ask the gateway of this network to lead peers here (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Exit with code 4 when there was no connection for this long, like 30s or 5m;
    /// without it, retry for ever
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) give_up_after: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit status                   every adit that runs here, and its connections
  adit status --watch           the same, again every second, until Ctrl-C
  adit status --json | jq '.processes[].peers[].state'

Exit codes:
  0 all are connected   4 nothing runs here   5 a connection is missing")]
pub(crate) struct StatusArgs {
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,

    /// Print it as one line of JSON, with --watch one every second
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn verbosity_is_accepted_after_the_command() {
        let args = Args::try_parse_from(["adit", "demo", "-vv", "--json"]).unwrap();
        assert_eq!(args.verbose, 2);
        assert!(matches!(args.command, Command::Demo(DemoArgs { keep: false, json: true })));
    }

    #[test]
    fn a_connector_needs_its_file() {
        let error = Args::try_parse_from(["adit", "connector"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
