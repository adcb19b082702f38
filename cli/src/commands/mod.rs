//! The command line: one file for each command, with its arguments and what it does. It contains no
//! secret: the configuration file names keys by path.

mod agent;
mod bench;
mod check;
mod config;
mod connect;
mod connector;
mod demo;
mod expose;
mod forget;
mod id;
mod invite;
mod parse;
mod ping;
mod reach;
mod relay;
mod status;
mod target;
mod why;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

use self::agent::AgentArgs;
use self::bench::BenchArgs;
use self::check::CheckArgs;
use self::config::ConfigCommand;
use self::connect::ConnectArgs;
use self::connector::ConnectorArgs;
use self::demo::DemoArgs;
use self::expose::ExposeArgs;
use self::forget::ForgetArgs;
use self::id::IdCommand;
use self::invite::InviteCommand;
use self::ping::PingArgs;
use self::relay::RelayArgs;
use self::status::StatusArgs;
use self::why::WhyArgs;
use crate::base::exit::ExitError;
use crate::homedir::Home;

const EXAMPLES: &str = "\
Examples:
  adit demo                        see it work, on this machine only
  adit expose 3000                 expose a service, and print an invite to it
  adit connect adit1_...           redeem the invite, on the other machine
  adit relay                       run a relay for machines behind NAT
  adit connector -c connector.toml expose the services in the file
  adit agent -c agent.toml         forward local ports to them
  adit status                      show running processes and their connections
  adit check                       show what this network allows

Exit codes:
  0 success   2 usage or configuration   3 authentication (do not retry)
  4 unreachable (retry later)   5 degraded";

/// A self-healing, mutually authenticated QUIC tunnel.
#[derive(Debug, Parser)]
#[command(name = "adit", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Log more on stderr: -v for state changes, -vv for packets (RUST_LOG overrides)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,

    /// Directory of identities and of sockets of running processes; by default ~/.adit
    #[arg(long, value_name = "DIR", env = "ADIT_HOME", hide_env_values = true, global = true)]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Expose a service of this machine to devices that you invite
    Expose(ExposeArgs),
    /// Redeem an invite, or use a saved service, and forward a local port to it
    Connect(ConnectArgs),
    /// Remove a saved service from this machine
    Forget(ForgetArgs),
    /// Show, rotate and revoke the identities of this machine and of its devices
    #[command(subcommand, after_help = "Example:\n  adit id show")]
    Id(IdCommand),
    /// Create, list and revoke invites to the services of this machine
    #[command(subcommand, after_help = "Example:\n  adit invite new")]
    Invite(InviteCommand),
    /// Check a configuration file without running it
    #[command(subcommand, after_help = "Example:\n  adit config verify connector.toml")]
    Config(ConfigCommand),
    /// Run a tunnel on this machine: transfers, requests, and recovery from failures
    Demo(DemoArgs),
    /// Expose the services in a file to the devices that may use them
    Connector(ConnectorArgs),
    /// Forward local TCP ports to the services of a connector
    Agent(AgentArgs),
    /// Measure round-trip time to a connector
    Ping(PingArgs),
    /// Measure throughput, latency and new streams to a connector
    Bench(BenchArgs),
    /// Run a relay for machines behind NAT
    Relay(RelayArgs),
    /// Show running processes, their connections, and what is wrong
    Status(StatusArgs),
    /// Show the path to a peer, the paths that were tried, and why this one is used
    Why(WhyArgs),
    /// Show what this network allows: names, UDP to a relay, direct paths
    Check(CheckArgs),
}

impl Command {
    /// Runs the command with the home that was found, or the reason why there is none.
    ///
    /// # Errors
    /// Why it cannot be done, as the sentence and the exit code of the program.
    pub(crate) async fn run(self, home: Result<Home, ExitError>) -> Result<(), ExitError> {
        // These read sockets alone, and root may ask for any user.
        let reads_sockets = matches!(self, Self::Status(_) | Self::Why(_));
        let home = if reads_sockets { home } else { home.and_then(Home::checked) };
        match self {
            Self::Expose(arguments) => expose::run(arguments, &home?).await,
            Self::Connect(arguments) => connect::run(arguments, &home?).await,
            Self::Forget(arguments) => forget::run(&arguments, &home?),
            Self::Id(command) => id::run(command, &home?).await,
            Self::Invite(command) => invite::run(command, &home?).await,
            Self::Config(command) => config::run(command, &home?),
            Self::Demo(arguments) => demo::run(&arguments).await,
            Self::Connector(arguments) => connector::run(&arguments, home).await,
            Self::Agent(arguments) => agent::run(&arguments, home).await,
            Self::Ping(arguments) => ping::run(&arguments, home).await,
            Self::Bench(arguments) => bench::run(&arguments, home).await,
            Self::Relay(arguments) => relay::run(arguments, &home?).await,
            Self::Status(arguments) => status::run(&arguments, &home?).await,
            Self::Why(arguments) => why::run(&arguments, &home?).await,
            Self::Check(arguments) => check::run(&arguments, &home?).await,
        }
    }
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
