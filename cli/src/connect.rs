//! `adit connect`: follows an invite, or remembers one that was followed, and offers the service on a
//! local port. The tunnel itself is the agent's.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};

use adit_tokio::core::path;
use tokio::net::TcpListener;

use crate::agent::{self, Plan};
use crate::args::ConnectArgs;
use crate::config::{Heartbeat, Limits};
use crate::enrol;
use crate::homedir::Home;
use crate::identity::Source;
use crate::invite::Invite;
use crate::known::{Known, Membership};
use crate::mesh::unix_now;
use crate::output;
use crate::stop::{Exit, Stop};

/// Longest invite read from a file or from standard input.
const MAX_INVITE: u64 = 64 * 1024;

/// Offers the service until a signal, or until retrying cannot help.
///
/// # Errors
/// Why it cannot.
pub(crate) async fn run(arguments: ConnectArgs, home: &Home) -> Result<(), Stop> {
    let (name, port) = match wanted(&arguments)? {
        Wanted::Invite(mut invite) => {
            if let Some(at) = &arguments.at {
                invite.addresses.insert(0, at.clone());
            }
            let name = enrol::agent::follow(home, &invite, arguments.give_up_after).await?;
            output::say(format_args!("Enrolled; from now on: adit connect {name}"));
            (name, invite.port)
        }
        Wanted::Known(name) => (name, None),
    };
    let mut known = Known::load(home, &name)?;
    let before = known.clone();
    let _claim = Known::claim(home, &name)?;
    if let Some(at) = &arguments.at {
        known.prefer(at);
    }
    let listener = open(arguments.local, known.local, port)?;
    let local = listener.local_addr().map_err(|error| Stop::usage(error.to_string()))?;
    known.local = Some(local);
    if known != before
        && let Err(error) = known.save(home, &name)
    {
        tracing::warn!("the local port is not remembered: {error}");
    }
    if arguments.json {
        let told = serde_json::json!({ "name": name, "service": known.service, "local": local });
        output::json("adit.connect/1", &told)?;
    } else {
        output::say(format_args!("\"{name}\" is offered here; Ctrl-C ends it."));
        output::text_line(&local.to_string())?;
    }
    let membership = known.membership(home);
    let plan = Plan {
        role: "connect",
        remote: known.remote()?,
        source: Source::Member(membership.clone()),
        ports: vec![(listener, known.service)],
        paths: path::PathConfig::default(),
        limits: Limits::default(),
        heartbeat: Heartbeat::default(),
        give_up_after: arguments.give_up_after,
        port_mapping: !arguments.no_port_mapping,
    };
    agent::work(plan, Ok(home)).await.map_err(|stop| explain(stop, &membership))
}

/// What the person wants to connect to.
enum Wanted {
    Invite(Invite),
    Known(String),
}

fn wanted(arguments: &ConnectArgs) -> Result<Wanted, Stop> {
    match (&arguments.target, &arguments.invite_file, &arguments.invite) {
        (Some(dash), ..) if dash == "-" => {
            read(std::io::stdin(), "standard input").and_then(|text| Invite::parse(&text))
        }
        (Some(word), ..) if Invite::is_meant_by(word) => Invite::parse(word),
        (Some(name), ..) => return Ok(Wanted::Known(name.trim().to_owned())),
        (None, Some(path), _) => {
            let what = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| {
                Stop::usage(format!("{what}: the invite cannot be read: {error}; check the path"))
            })?;
            read(file, &what).and_then(|text| Invite::parse(&text))
        }
        (None, None, Some(text)) => Invite::parse(text),
        (None, None, None) => Err(Stop::usage("say what to connect to: an invite, or a name")),
    }
    .map(Wanted::Invite)
}

fn read(from: impl std::io::Read, what: &str) -> Result<String, Stop> {
    let mut text = String::new();
    from.take(MAX_INVITE).read_to_string(&mut text).map_err(|error| {
        Stop::usage(format!("{what}: the invite cannot be read: {error}; it is one line of text"))
    })?;
    Ok(text)
}

/// The port that was asked for; or the one it had last, or its own, if that is free; or any.
fn open(
    asked: Option<SocketAddr>,
    last: Option<SocketAddr>,
    own: Option<u16>,
) -> Result<TcpListener, Stop> {
    if let Some(asked) = asked {
        return agent::open(asked, "choose another with --local");
    }
    let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let usual = last.into_iter().chain(own.filter(|port| *port >= 1_024).map(on_loopback));
    for address in usual {
        if let Ok(listener) = agent::open(address, "") {
            return Ok(listener);
        }
    }
    agent::open(on_loopback(0), "end a program that holds ports")
}

/// What a refused certificate means here, and what to do about it.
fn explain(stop: Stop, membership: &Membership) -> Stop {
    if stop.exit() != Exit::Authentication {
        return stop;
    }
    let now = unix_now();
    match membership.describe() {
        Ok(own) if now > own.not_after => Stop::new(
            Exit::Authentication,
            format!(
                "this machine's certificate ended on {}, by its clock, which says {}; set the clock if it \
                 is wrong, or ask for a new invite: adit invite new",
                output::date(own.not_after),
                output::date(now)
            ),
        ),
        Ok(own) if now < own.not_before => Stop::new(
            Exit::Authentication,
            format!(
                "this machine's certificate begins on {}, and its clock says {}; set the clock",
                output::date(own.not_before),
                output::date(now)
            ),
        ),
        Ok(_) | Err(_) if stop.is_about_clock() => stop,
        Ok(_) | Err(_) => {
            stop.or_next("if this device was revoked, ask for a new invite: adit invite new")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_gives_way_unless_it_was_asked_for() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let other = open(None, Some(address), Some(address.port())).unwrap();
        assert_ne!(other.local_addr().unwrap(), address);
        let said = open(Some(address), None, None).unwrap_err().to_string();
        assert!(said.ends_with("choose another with --local"), "{said}");
    }
}
