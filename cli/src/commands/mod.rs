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
mod id;
mod invite;
mod parse;
mod ping;
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

impl Command {
    /// Runs the command with the home that was found, or the reason why there is none.
    ///
    /// # Errors
    /// Why it cannot be done, as the sentence and the exit code of the program.
    pub(crate) async fn run(self, home: Result<Home, ExitError>) -> Result<(), ExitError> {
        match self {
            Self::Expose(arguments) => expose::run(arguments, &home?).await,
            Self::Connect(arguments) => connect::run(arguments, &home?).await,
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
