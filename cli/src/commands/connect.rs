//! `adit connect`: redeems an invite, or uses a saved service, and offers the service on a local
//! port. The tunnel itself is the agent's.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use adit_tokio::core::path;
use tokio::net::TcpListener;

use super::{parse, reach};
use crate::address::HostPort;
use crate::base::exit::{Exit, ExitError};
use crate::base::patience::until_possible;
use crate::base::system::unix_now;
use crate::base::{duration, output};
use crate::config::{ForwardLimits, HeartbeatSettings, RemoteConnector};
use crate::homedir::Home;
use crate::identity::invite::Invite;
use crate::identity::member::Membership;
use crate::identity::saved_service::SavedService;
use crate::identity::source::CredentialSource;
use crate::roles::agent::{self, AgentPlan};
use crate::{enrol, forward};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit connect adit1_...         redeem an invite, and forward a local port to its service
  adit connect web               the same later, without an invite
  adit connect web --local 8080
  echo \"$INVITE\" | adit connect -
  adit connect --invite-file invite.txt     also: ADIT_INVITE=adit1_... adit connect

Stdout has the local address, in one line, as soon as the port is open. A connection to it waits
for the tunnel, for 10 s.")]
pub(crate) struct ConnectArgs {
    /// An invite, - to read one from standard input, or the name of a saved service
    #[arg(value_name = "INVITE|NAME", required_unless_present_any = ["invite_file", "invite"])]
    pub(crate) target: Option<String>,

    /// A file that contains the invite
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub(crate) invite_file: Option<PathBuf>,

    /// The invite, where it is not to stand in the command
    #[arg(long, env = "ADIT_INVITE", hide = true, hide_env_values = true)]
    pub(crate) invite: Option<String>,

    /// Local address, as [IP:]PORT; by default the port of the service, if it is free
    #[arg(long, value_name = "ADDR", value_parser = parse::local)]
    pub(crate) local: Option<SocketAddr>,

    /// New address of the connector, as HOST:PORT; it is saved
    #[arg(long, value_name = "HOST:PORT", value_parser = parse::host_port)]
    pub(crate) at: Option<HostPort>,

    /// Do not ask the gateway of this network for a port mapping (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub(crate) no_port_mapping: bool,

    /// Exit with code 4 after this long without a connection, like 30s or 5m; without it, retry
    /// indefinitely
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) give_up_after: Option<Duration>,

    /// Print the local address as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How long a command waits for a connection until it says what can be checked.
const HINT_AFTER: Duration = agent::HINT_AFTER;

/// Longest invite read from a file or from standard input.
const MAX_INVITE: u64 = 64 * 1024;

/// Offers the service until a signal, or until retrying cannot help.
///
/// # Errors
/// Why it cannot.
pub(crate) async fn run(arguments: ConnectArgs, home: &Home) -> Result<(), ExitError> {
    let wanted = wanted(&arguments)?;
    let is_saved = matches!(wanted, InviteOrName::Known(_));
    let (name, port) = match wanted {
        InviteOrName::Invite(mut invite) => {
            if let Some(at) = &arguments.at {
                invite.addresses.insert(0, at.clone());
            }
            let remote = enrol::agent::remote(&invite);
            output::message(reach::dialled(&remote));
            let redeemed = enrol::agent::redeem(home, &invite, arguments.give_up_after);
            let name = with_hint(redeemed, &remote).await?;
            output::message(format_args!("Enrolled; from now on: adit connect {name}"));
            (name, invite.port)
        }
        InviteOrName::Known(name) => (name, None),
    };
    let mut known = SavedService::load(home, &name)?;
    let before = known.clone();
    let _claim = SavedService::claim(home, &name)?;
    if let Some(at) = &arguments.at {
        known.prefer(at);
    }
    let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let own = port.filter(|port| *port >= 1_024).map(on_loopback);
    let usual = known.usual.or(own);
    let listener =
        until_possible(|| open(arguments.local, usual.into_iter().chain(known.local))).await?;
    let local = listener.local_addr().map_err(|error| ExitError::usage(error.to_string()))?;
    if let Some(usual) = usual.filter(|usual| arguments.local.is_none() && *usual != local) {
        output::message(format_args!(
            "{usual} is in use by another program; using {local} this time. Another port: --local"
        ));
    }
    known.usual = arguments.local.map(|_| local).or(usual);
    known.local = Some(local);
    if known != before
        && let Err(error) = known.save(home, &name)
    {
        tracing::warn!("the local port could not be saved: {error}");
    }
    if arguments.json {
        let printed = serde_json::json!({ "name": name, "service": known.service, "local": local });
        output::json("adit.connect/1", &printed)?;
    } else {
        output::message(format_args!("Forwarding this address to \"{name}\"; Ctrl-C ends it."));
        output::text_line(&local.to_string())?;
    }
    let membership = known.membership(home);
    let remote = known.remote()?;
    if is_saved {
        output::message(reach::dialled(&remote));
    }
    let plan = AgentPlan {
        role: "connect",
        hint: Some(reach::hint(&remote)),
        remote,
        source: CredentialSource::Member(membership.clone()),
        ports: vec![(listener, known.service)],
        paths: path::PathConfig::default(),
        limits: ForwardLimits::default(),
        heartbeat: HeartbeatSettings::default(),
        give_up_after: arguments.give_up_after,
        port_mapping: !arguments.no_port_mapping,
    };
    agent::work(plan, Ok(home)).await.map_err(|stop| explain(stop, &membership))
}

/// Prints a hint if an enrolment has no result after [`HINT_AFTER`].
async fn with_hint(
    redeemed: impl Future<Output = Result<String, ExitError>>,
    remote: &RemoteConnector,
) -> Result<String, ExitError> {
    tokio::pin!(redeemed);
    tokio::select! {
        result = &mut redeemed => return result,
        () = tokio::time::sleep(HINT_AFTER) => {}
    }
    output::message(format_args!("{}; retrying", reach::hint(remote)));
    redeemed.await
}

/// The argument of the command.
enum InviteOrName {
    Invite(Invite),
    Known(String),
}

fn wanted(arguments: &ConnectArgs) -> Result<InviteOrName, ExitError> {
    match (&arguments.target, &arguments.invite_file, &arguments.invite) {
        (Some(dash), ..) if dash == "-" => {
            read(std::io::stdin(), "standard input").and_then(|text| Invite::parse(&text))
        }
        (Some(word), ..) if Invite::is_meant_by(word) => Invite::parse(word),
        (Some(name), ..) => return Ok(InviteOrName::Known(name.trim().to_owned())),
        (None, Some(path), _) => {
            let what = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| {
                ExitError::usage(format!(
                    "{what}: the invite cannot be read: {error}; check the path"
                ))
            })?;
            read(file, &what).and_then(|text| Invite::parse(&text))
        }
        (None, None, Some(text)) => Invite::parse(text),
        (None, None, None) => {
            Err(ExitError::usage("the invite or the name of a saved service is missing"))
        }
    }
    .map(InviteOrName::Invite)
}

fn read(from: impl std::io::Read, what: &str) -> Result<String, ExitError> {
    let mut text = String::new();
    from.take(MAX_INVITE).read_to_string(&mut text).map_err(|error| {
        ExitError::usage(format!(
            "{what}: the invite cannot be read: {error}; it is one line of text"
        ))
    })?;
    Ok(text)
}

/// Opens the port that was requested; or the first of `usual` that is free; or any.
fn open(
    asked: Option<SocketAddr>,
    usual: impl Iterator<Item = SocketAddr>,
) -> Result<TcpListener, ExitError> {
    if let Some(asked) = asked {
        return forward::ingress::tcp::open(asked, "choose another with --local");
    }
    for address in usual {
        if let Ok(listener) = forward::ingress::tcp::open(address, "") {
            return Ok(listener);
        }
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    forward::ingress::tcp::open(any, "end a program that holds ports")
}

/// Returns the error for a rejected certificate, with its next step.
fn explain(stop: ExitError, membership: &Membership) -> ExitError {
    if stop.exit() != Exit::Authentication {
        return stop;
    }
    let conflict = membership.describe().ok().and_then(|own| own.clock_conflict(unix_now()));
    match conflict {
        Some(conflict) => ExitError::new(
            Exit::Authentication,
            format!(
                "{conflict}; set the clock if it is wrong, or ask for a new invite: adit invite new"
            ),
        ),
        None if stop.is_about_clock() => stop,
        None => stop.or_next("if this device was revoked, ask for a new invite: adit invite new"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_gives_way_unless_it_was_asked_for() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let other = open(None, [address, address].into_iter()).unwrap();
        assert_ne!(other.local_addr().unwrap(), address);
        let said = open(Some(address), std::iter::empty()).unwrap_err().to_string();
        assert!(said.ends_with("choose another with --local"), "{said}");
    }
}
