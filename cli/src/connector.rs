//! The connector: one node that listens, and the services behind it, until asked to end. What it is
//! to serve is a plan, from a file here or from `adit expose`'s own arguments.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::config::Config;
use adit_tokio::core::drive::Handle;
use adit_tokio::core::path;
use serde_json::Map;
use tokio::sync::Mutex;

use crate::args::ConnectorArgs;
use crate::carriers::Sight;
use crate::config::{self, Heartbeat, HostPort, Limits, RelayAddress, Service};
use crate::control::{self, Control, Process};
use crate::forward::connector::{Services, serve};
use crate::homedir::Home;
use crate::homedir::lock::Lock;
use crate::identity::{Follower, Source, Who};
use crate::mesh::offer::Offer;
use crate::mesh::roster::Roster;
use crate::mesh::{Mesh, unix_now};
use crate::node::{self, Background, Node};
use crate::registration::Registration;
use crate::relays::Relays;
use crate::stop::{Exit, Stop};
use crate::{lifecycle, signals};

/// How often a connector looks whether its own certificate is due: it may have been exchanged, or the
/// clock been set.
const RENEWAL_LOOK: Duration = Duration::from_secs(1);

/// Pause after it could not be renewed.
const RENEWAL_AGAIN: Duration = Duration::from_secs(60);

/// What a connector is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What `adit status` calls it.
    pub(crate) role: &'static str,
    pub(crate) listen: SocketAddr,
    pub(crate) services: Vec<Service>,
    pub(crate) limits: Limits,
    pub(crate) heartbeat: Heartbeat,
    /// Where else devices reach it than at its own addresses.
    pub(crate) advertise: Vec<HostPort>,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) paths: path::PathConfig,
    /// Whether a gateway is asked to map the socket.
    pub(crate) port_mapping: bool,
    pub(crate) source: Source,
}

/// Runs what a file says until a signal.
///
/// # Errors
/// What is wrong with the configuration, the address or, later, the socket.
pub(crate) async fn run(arguments: &ConnectorArgs, home: Result<Home, Stop>) -> Result<(), Stop> {
    let path = &arguments.config;
    let config = config::Connector::load(path)?;
    let source = match config.tls {
        Some(files) => Source::Files(files),
        None => Source::Mesh(Mesh::open_or_create(home.as_ref().map_err(Stop::clone)?)?),
    };
    let relays = match (config.relays, &source) {
        (Some(relays), _) => relays,
        (None, Source::Mesh(mesh)) => mesh.relays(),
        (None, Source::Files(_) | Source::Member(_)) => Vec::new(),
    };
    let plan = Plan {
        role: "connector",
        listen: config.listen,
        services: config.services,
        limits: config.limits,
        heartbeat: config.heartbeat,
        advertise: config.advertise,
        relays,
        paths: path::PathConfig::default().direct(config.direct),
        port_mapping: config.port_mapping && config.direct && !arguments.no_port_mapping,
        source,
    };
    let running = start(plan, home.as_ref()).await.map_err(|stop| stop.within(path))?;
    running.until_asked_to_end().await
}

/// A connector at work.
pub(crate) struct Running {
    node: Node,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    identity: Arc<Exchange>,
    _tasks: [Background<()>; 4],
    _claim: Option<Lock>,
    _control: Option<Control>,
}

/// Starts what a plan says.
///
/// # Errors
/// What of the plan cannot work.
pub(crate) async fn start(plan: Plan, home: Result<&Home, &Stop>) -> Result<Running, Stop> {
    let (claim, roster) = match &plan.source {
        Source::Mesh(mesh) => {
            let claim = mesh.claim()?;
            mesh.keep_current()?;
            (Some(claim), Some(Arc::new(Roster::new(mesh.clone())?)))
        }
        Source::Files(_) | Source::Member(_) => (None, None),
    };
    let (follower, Who { tls, shown }) = Follower::start(plan.source)?;
    let registration = match plan.relays.is_empty() {
        true => None,
        false => Some(Registration::new(&shown, &plan.services)?),
    };
    let builder = Config::builder(tls)
        .listening(true)
        .device_id("connector")
        .path(plan.paths)
        .transport(node::transport(plan.limits));
    let core = node::build(builder, plan.heartbeat)?;
    let node = match plan.relays.is_empty() {
        true => node::start(plan.listen, core)?,
        false => node::start_with_relays(plan.listen, core)?,
    };
    let (listen, count) = (node.local, plan.services.len());
    let mut process = process(plan.role, &plan.services, node.sight());
    for relay in &plan.relays {
        process = process.relayed_by(&relay.at);
    }
    let offer = Offer::new(node.local, &plan.advertise, &plan.relays, &plan.services);
    let mut services = Services::new(plan.services, plan.limits);
    if let Some(roster) = &roster {
        roster.mesh().set_offer(&offer)?;
        services = services.of_mesh(roster.clone());
    }
    let identity = Arc::new(Exchange {
        handle: node.handle.clone(),
        follower: Mutex::new(follower),
        roster: roster.clone(),
        registration,
        relays: (!plan.relays.is_empty())
            .then(|| Relays::attach(&node, &plan.relays, shown, plan.port_mapping)),
    });
    identity.register();
    let tasks = [
        Background::spawn(lifecycle::log(node.handle.clone())),
        Background::spawn(serve(node.handle.clone(), Arc::new(services))),
        Background::spawn(follow(identity.clone())),
        Background::spawn(keep_current(roster)),
    ];
    let asked = identity.clone();
    let process = process.on_reload(move || {
        let asked = asked.clone();
        async move { Ok(Map::from_iter([("closed".to_owned(), asked.now().await.into())])) }
    });
    let ended = Box::pin(node::signals(signals::asked_to_end())?);
    let control = control::open(home, process).await;
    tracing::info!(%listen, services = count, "the connector is up");
    Ok(Running { node, ended, identity, _tasks: tasks, _claim: claim, _control: control })
}

/// What `adit status` is told.
fn process(role: &'static str, services: &[Service], sight: Sight) -> Process {
    let process = Process::new(role).seeing(move || Some(sight.look()));
    services
        .iter()
        .fold(process, |process, service| process.exposing(&service.name, &service.backend))
}

impl Running {
    /// What exchanges its identity when it is told to, instead of when it looks.
    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        self.identity.clone()
    }

    /// Works until a signal.
    ///
    /// # Errors
    /// When the socket fails.
    pub(crate) async fn until_asked_to_end(mut self) -> Result<(), Stop> {
        tokio::select! {
            stop = self.node.driver.ended() => Err(stop),
            () = self.ended => shut_down(&self.node.handle, self.identity.relays.as_ref()).await,
        }
    }
}

/// The identity of a running connector, and its files.
#[derive(Debug)]
pub(crate) struct Exchange {
    handle: Handle,
    follower: Mutex<Follower>,
    roster: Option<Arc<Roster>>,
    /// What its relays are told, if it has any.
    registration: Option<Registration>,
    relays: Option<Relays>,
}

impl Exchange {
    /// Has the relays know what changed, if anything did.
    fn register(&self) {
        if let Some(registration) = &self.registration {
            registration.tell(&self.handle, self.roster.as_deref(), unix_now());
        }
    }

    /// Looks at the files now, and puts in force what they say; gives how many connections ended
    /// by it.
    pub(crate) async fn now(&self) -> usize {
        let who = self.follower.lock().await.poll();
        if let Some(roster) = &self.roster {
            roster.refresh();
        }
        // An invite that has expired leaves no file changed.
        self.register();
        let Some(Who { tls, shown }) = who else { return 0 };
        if let Some(relays) = &self.relays {
            relays.show(shown);
        }
        let before = self.handle.snapshot().peers.len();
        match self.handle.set_tls(tls) {
            Ok(()) => {
                let ended = before.saturating_sub(self.handle.snapshot().peers.len());
                tracing::info!(ended, "the identity and the list of devices were exchanged");
                ended
            }
            Err(error) => {
                tracing::warn!("the identity is not exchanged: {error}");
                0
            }
        }
    }
}

async fn follow(identity: Arc<Exchange>) {
    loop {
        tokio::time::sleep(crate::identity::LOOK).await;
        identity.now().await;
    }
}

/// Renews the connector's own certificate before it ends.
async fn keep_current(roster: Option<Arc<Roster>>) {
    let Some(roster) = roster else { return };
    loop {
        let mesh = roster.mesh().clone();
        let mut wait = RENEWAL_AGAIN;
        match tokio::task::spawn_blocking(move || mesh.keep_current()).await {
            Ok(Ok(())) => wait = RENEWAL_LOOK,
            Ok(Err(stop)) => tracing::warn!("this machine's certificate is not renewed: {stop}"),
            Err(error) => tracing::warn!(%error, "this machine's certificate is not renewed"),
        }
        tokio::time::sleep(wait).await;
    }
}

/// Lets what is under way finish within the core's drain time; a second signal cuts it short.
///
/// # Errors
/// When a second signal did cut it short.
pub(crate) async fn shut_down(handle: &Handle, relays: Option<&Relays>) -> Result<(), Stop> {
    tracing::info!("ending: connections under way may finish; a second signal ends them now");
    let again = node::signals(signals::asked_to_end())?;
    handle.shutdown();
    let released = async {
        if let Some(relays) = relays {
            relays.release().await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(handle.closed(), released) } => Ok(()),
        () = again => Err(Stop::new(Exit::Degraded, "ended by a second signal; connections were cut")),
    }
}
