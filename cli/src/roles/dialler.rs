//! Whom a dialling role means, and with what settings it dials: the same for the agent and for the
//! commands that dial once. It dials nothing.

use adit_tokio::core::config::{Config, Transport};
use adit_tokio::core::path;

use crate::base::stop::Stop;
use crate::config::{self, Heartbeat, Limits, Remote, Target};
use crate::homedir::Home;
use crate::identity::known::Known;
use crate::identity::source::{Follower, Source};
use crate::identity::who::Who;
use crate::net::node;
use crate::net::race::Caller;

/// The connector that a file means, and who this machine is to it.
///
/// # Errors
/// When nothing is known of it.
pub(crate) fn target(
    config: &config::Agent,
    home: Result<&Home, &Stop>,
) -> Result<(Remote, Source), Stop> {
    let (remote, source) = match &config.target {
        Target::Given(remote, files) => (remote.clone(), Source::Files(files.clone())),
        Target::Known(name) => {
            let home = home.map_err(Stop::clone)?;
            let known = Known::load(home, name)?;
            (known.remote()?, Source::Member(known.membership(home)))
        }
    };
    let service = config.forwards.first().map(|forward| &forward.service);
    Ok((remote.by(&config.relays, service), source))
}

/// What the core is told of a plan's connection.
///
/// # Errors
/// What of it cannot work.
pub(crate) fn core(
    source: Source,
    paths: path::Config,
    limits: Limits,
    heartbeat: Heartbeat,
) -> Result<(Caller, Follower), Stop> {
    let (follower, Who { tls, shown }) = Follower::start(source)?;
    let transport = Transport { connect_timeout: node::ATTEMPT, ..node::transport(limits) };
    let builder = Config::builder(tls).device_id("agent").transport(transport).path(paths);
    Ok((Caller { core: node::build(builder, heartbeat)?, shown, maps: false }, follower))
}
