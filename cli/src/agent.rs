//! `adit agent`: local ports that lead to the services of a connector, until asked to end.
//!
//! It never exits because the network is away, unless it was told how long to bear that. It does
//! when a certificate is refused: retrying cannot help then.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Category, Failure};
use adit_tokio::core::session::State;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::AgentArgs;
use crate::config::{self, Forward, Limits, Remote};
use crate::connector::shut_down;
use crate::forward::agent::{Gate, Tunnel, listen, serve};
use crate::stop::{Exit, Stop};
use crate::{identity, lifecycle, node, signals};

/// Pause before a name that did not resolve is asked for again, and before a connector that the
/// core gave up is dialled anew.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs until a signal, or until retrying cannot help.
///
/// # Errors
/// What is wrong with the configuration, the certificates or, when a limit was given, the network.
pub(crate) async fn run(arguments: &AgentArgs) -> Result<(), Stop> {
    let config = config::Agent::load(&arguments.config)?;
    let tls = identity::load(&config.tls)?;
    let builder = Config::builder(tls).device_id("agent").transport(node::transport(config.limits));
    let core = node::build(builder, config.heartbeat, &arguments.config)?;
    let ended = node::signals(signals::asked_to_end())?;

    let (current, tunnel) = watch::channel(None);
    let _ports = open_ports(&config.forwards, &tunnel, config.limits)?;
    let mut link = Link {
        remote: config.connector,
        core,
        current,
        give_up: Patience { limit: arguments.give_up_after, since: Some(Instant::now()) },
        node: None,
    };
    let stop = tokio::select! {
        stop = link.keep_up() => Some(stop),
        () = ended => None,
    };
    let Link { node, current, .. } = link;
    // Without its sender the ports accept no more.
    drop(current);
    match (stop, node) {
        (Some(stop), _) => Err(stop),
        (None, Some(node)) => shut_down(&node.handle).await,
        (None, None) => Ok(()),
    }
}

fn open_ports(forwards: &[Forward], tunnel: &Tunnel, limits: Limits) -> Result<JoinSet<()>, Stop> {
    let gate = Gate::new(limits);
    let mut ports = JoinSet::new();
    for forward in forwards {
        let listener = listen(forward.listen).map_err(|error| {
            Stop::usage(format!(
                "{}: cannot listen on this TCP address: {error}; choose another in [[forward]]",
                forward.listen
            ))
        })?;
        tracing::info!(listen = %forward.listen, service = %forward.service, "forwarding");
        ports.spawn(serve(listener, forward.service.clone(), tunnel.clone(), gate.clone()));
    }
    Ok(ports)
}

/// How long to bear being without a connection.
struct Patience {
    limit: Option<Duration>,
    since: Option<Instant>,
}

impl Patience {
    fn on_state(&mut self, connected: bool) {
        match connected {
            true => self.since = None,
            false => drop(self.since.get_or_insert_with(Instant::now)),
        }
    }

    /// Completes when it is too long.
    async fn lost(&self) -> Stop {
        match (self.limit, self.since) {
            (Some(limit), Some(since)) => {
                tokio::time::sleep_until(since + limit).await;
                Stop::new(
                    Exit::Unreachable,
                    format!(
                        "no connection for {limit:?}; check that the connector runs and that UDP reaches it"
                    ),
                )
            }
            (_, _) => std::future::pending().await,
        }
    }
}

/// The connection to the connector. The core reconnects; when it gives up, the name is resolved
/// and the connector is dialled anew, from a new socket.
struct Link {
    remote: Remote,
    core: Config,
    current: watch::Sender<Option<Peer>>,
    give_up: Patience,
    node: Option<node::Node>,
}

impl Link {
    /// Runs until going on makes no sense.
    async fn keep_up(&mut self) -> Stop {
        loop {
            let address = match self.resolve().await {
                Ok(address) => address,
                Err(stop) => return stop,
            };
            let failure = match self.dial(address).await {
                Ok(failure) => failure,
                Err(stop) => return stop,
            };
            match failure.category() {
                Category::Authentication | Category::Configuration => return failure.into(),
                Category::Network | Category::Server | Category::Protocol | Category::Unknown => {
                    tracing::warn!(%failure, "dialling anew");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn resolve(&self) -> Result<SocketAddr, Stop> {
        let name = &self.remote.address;
        let resolved = async {
            loop {
                match name.resolve().await {
                    Ok(addresses) => return addresses[0],
                    Err(error) => {
                        tracing::warn!(%name, %error, "the name does not resolve; retrying")
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            address = resolved => Ok(address),
            stop = self.give_up.lost() => Err(stop),
        }
    }

    /// Holds one dialled peer until the core gives it up, which is what is returned.
    async fn dial(&mut self, address: SocketAddr) -> Result<Failure, Stop> {
        let node = node::start(node::local_for(address), self.core.clone())?;
        let node::Node { handle, driver } = self.node.insert(node);
        let mut events = handle.events();
        let peer = handle.dial(Dial::new(address, self.remote.name.as_str())).map_err(|error| {
            Stop::usage(format!("[connector] {}: {error}; correct it", self.remote.name))
        })?;
        self.current.send_replace(Some(peer.clone()));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => {
                        if let Some(line) = lifecycle::line(&event) {
                            tracing::info!("{line}");
                        }
                        match peer.state() {
                            State::Failed { error, .. } => return Ok(error),
                            State::Connected { .. } => self.give_up.on_state(true),
                            State::Disconnected
                            | State::Connecting { .. }
                            | State::Reconnecting { .. } => self.give_up.on_state(false),
                        }
                    }
                    None => return Err(driver.ended().await),
                },
                failure = peer.closed() => return Ok(failure),
                stop = self.give_up.lost() => return Err(stop),
            }
        }
    }
}
