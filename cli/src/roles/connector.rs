//! The connector: one node that listens, and the services behind it, until a signal. A plan names
//! them, from a file or from `adit expose`'s own arguments.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::config::Config;
use adit_tokio::core::drive::Handle;
use adit_tokio::core::path;
use adit_tokio::core::tls::Tls;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::serving::serve;
use super::shutdown::shut_down;
use crate::address::{HostPort, RelayAddress, is_private};
use crate::base::exit::{Exit, ExitError};
use crate::base::patience::until_possible;
use crate::base::signals;
use crate::base::system::unix_now;
use crate::base::task::Background;
use crate::base::units;
use crate::config::{ForwardLimits, HeartbeatSettings, ServiceConfig};
use crate::control::{self, ControlSocket};
use crate::forward::egress::Services;
use crate::homedir::Home;
use crate::homedir::lock::Lock;
use crate::identity::credentials::Credentials;
use crate::identity::mesh::offer::ConnectorOffer;
use crate::identity::mesh::roster::Roster;
use crate::identity::source::{CredentialSource, CredentialWatcher, Look};
use crate::net::node::{self, NodeHandle, RunningNode};
use crate::net::port_mapping::{PortMappingState, PortMappingStatus};
use crate::net::registration::RelayRegistration;
use crate::net::relays::AttachedRelays;
use crate::net::{event_log, interfaces};
use crate::observe::process::Process;

/// Interval at which a connector checks whether its own certificate is due: it may have been
/// replaced, or the clock been set.
const RENEWAL_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client that asks for a reload waits for the disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the offer is compared with what the gateway maps.
const OFFER_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long an invite waits for the answer of the gateway.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause after a failed renewal.
const RENEWAL_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The plan of a connector.
#[derive(Debug)]
pub(crate) struct ConnectorPlan {
    /// Its name in `adit status`.
    pub(crate) role: &'static str,
    pub(crate) listen: SocketAddr,
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) limits: ForwardLimits,
    pub(crate) heartbeat: HeartbeatSettings,
    /// Addresses at which devices reach it, beside its own.
    pub(crate) advertise: Vec<HostPort>,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) paths: path::PathConfig,
    /// Whether a gateway is asked to map the socket.
    pub(crate) port_mapping: bool,
    pub(crate) source: CredentialSource,
}

/// A running connector.
pub(crate) struct RunningConnector {
    node: RunningNode,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    identity: Arc<CredentialRefresher>,
    _tasks: [Background<()>; 5],
    /// Tracks the addresses of this machine, where no relay needs that.
    _networks: Option<Background<()>>,
    /// What the gateway maps, if it is asked.
    mapping: Option<PortMappingStatus>,
    _claim: Option<Lock>,
    _control: Option<ControlSocket>,
}

/// Starts a connector as planned.
///
/// # Errors
/// Which part of the plan cannot work.
pub(crate) async fn start(
    plan: ConnectorPlan,
    home: Result<&Home, &ExitError>,
) -> Result<RunningConnector, ExitError> {
    let claim = match &plan.source {
        CredentialSource::Mesh(mesh) => {
            let claim = mesh.claim()?;
            until_possible(|| mesh.keep_current()).await?;
            Some(claim)
        }
        CredentialSource::Files(_) | CredentialSource::Member(_) => None,
    };
    let limits = plan.limits.within_descriptors();
    let (watcher, Credentials { tls, relay_identity }) = CredentialWatcher::start(plan.source)?;
    let roster = watcher.roster();
    let registration = match plan.relays.is_empty() {
        true => None,
        false => Some(RelayRegistration::new(&relay_identity, &plan.services)?),
    };
    let builder = Config::builder(tls)
        .listening(true)
        .device_id("connector")
        .path(plan.paths)
        .transport(node::transport(limits))
        .limits(node::limits(plan.limits));
    let core = node::build(builder, plan.heartbeat)?;
    let node = match plan.relays.is_empty() {
        true => until_possible(|| node::start(plan.listen, core.clone())).await?,
        false => until_possible(|| node::start_with_relays(plan.listen, core.clone())).await?,
    };
    let (listen, count) = (node.local, plan.services.len());
    let mut process = process(plan.role, &plan.services, node.to_handle(), roster.clone());
    for relay in &plan.relays {
        process = process.relayed_by(&relay.at);
    }
    let own = interfaces::of_socket(node.local);
    let offer = ConnectorOffer::new(&own, &plan.advertise, &plan.relays, &plan.services);
    let mut services = Services::new(plan.services, limits);
    if let Some(roster) = &roster {
        roster.mesh().set_offer(&offer)?;
        services = services.of_mesh(roster.clone());
    }
    let identity = Arc::new(CredentialRefresher {
        handle: node.handle.clone(),
        watcher: Mutex::new(watcher),
        roster: roster.clone(),
        registration,
        relays: (!plan.relays.is_empty() || plan.port_mapping).then(|| {
            AttachedRelays::attach(&node, &plan.relays, relay_identity, plan.port_mapping)
        }),
    });
    identity.register();
    let tasks = [
        Background::spawn(event_log::log(node.handle.clone())),
        Background::spawn(serve(node.handle.clone(), Arc::new(services), roster.clone())),
        Background::spawn(poll_credentials(identity.clone())),
        Background::spawn(keep_current(roster.clone())),
        Background::spawn(keep_offer(node.port_mapping.clone(), roster.clone(), offer)),
    ];
    let networks = identity.relays.is_none().then(|| {
        interfaces::track(node.handle.clone(), node.local, tokio::sync::watch::channel(()).0)
    });
    let mapping = plan.port_mapping.then(|| node.port_mapping.clone());
    let asked = identity.clone();
    let process = process.on_reload(move || {
        let asked = asked.clone();
        async move { asked.refresh_in_time().await.map(Refreshed::into_answer) }
    });
    let ended = Box::pin(signals::asked_to_end()?);
    let control = control::open(home, process).await;
    tracing::info!("the connector is up on UDP {listen}, with {}", units::count(count, "service"));
    Ok(RunningConnector {
        node,
        ended,
        identity,
        _tasks: tasks,
        _networks: networks,
        mapping,
        _claim: claim,
        _control: control,
    })
}

/// Returns what `adit status` shows of it.
fn process(
    role: &'static str,
    services: &[ServiceConfig],
    node: NodeHandle,
    roster: Option<Arc<Roster>>,
) -> Process {
    let process = Process::new(role).with_snapshots(move || Some(node.snapshot()));
    let process = match roster {
        Some(roster) => {
            process.with_titles(move |peer| roster.title(&peer.credential.as_ref()?.names))
        }
        None => process,
    };
    services
        .iter()
        .fold(process, |process, service| process.exposing(&service.name, &service.backend))
}

impl RunningConnector {
    /// Returns the object that replaces its credentials on request, instead of at the next poll.
    pub(crate) fn credential_refresher(&self) -> Arc<CredentialRefresher> {
        self.identity.clone()
    }

    /// Waits until the gateway has answered, for a moment at most. Returns the outside address that
    /// leads here, which is in the offer from then on.
    pub(crate) async fn mapped(&self) -> Option<SocketAddr> {
        let mapping = self.mapping.as_ref()?;
        let known = async {
            while mapping.get() == PortMappingState::NotAsked {
                tokio::time::sleep(OFFER_POLL_INTERVAL / 4).await;
            }
        };
        let _ = tokio::time::timeout(GATEWAY_TIMEOUT, known).await;
        let outside = outside(&mapping.get())?;
        tokio::time::sleep(OFFER_POLL_INTERVAL).await;
        Some(outside)
    }

    /// Runs until a signal.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) async fn until_asked_to_end(mut self) -> Result<(), ExitError> {
        tokio::select! {
            stop = self.node.driver.ended() => Err(stop),
            () = self.ended => shut_down(&self.node.handle, self.identity.relays.as_ref()).await,
        }
    }
}

/// The identity of a running connector, and its files.
#[derive(Debug)]
pub(crate) struct CredentialRefresher {
    handle: Handle,
    watcher: Mutex<CredentialWatcher>,
    roster: Option<Arc<Roster>>,
    /// Its registration at its relays, if it has any.
    registration: Option<RelayRegistration>,
    relays: Option<AttachedRelays>,
}

impl CredentialRefresher {
    /// Updates the registration at the relays, if it changed.
    fn register(&self) {
        if let Some(registration) = &self.registration {
            registration.advertise(&self.handle, self.roster.as_deref(), unix_now());
        }
    }

    /// Reads the files now and uses their contents.
    pub(crate) async fn refresh(&self) -> Refreshed {
        let mut watcher = self.watcher.lock().await;
        let Look { credentials, mut failure, mut list } = watcher.look().await;
        let mut closed = 0;
        if let Some(Credentials { tls, relay_identity }) = credentials {
            if let Some(relays) = &self.relays {
                relays.set_identity(relay_identity);
            }
            match self.replace(tls) {
                Ok(ended) => closed = ended,
                Err(stop) => {
                    watcher.forget();
                    tracing::warn!("{stop}");
                    (failure, list) = (Some(stop), None);
                }
            }
        }
        if let Some(roster) = &self.roster {
            roster.on_applied();
        }
        // An invite that has expired leaves no file changed.
        self.register();
        Refreshed { closed, list, failure }
    }

    /// Does the same for a client that waits.
    ///
    /// # Errors
    /// That the disk does not answer.
    async fn refresh_in_time(&self) -> Result<Refreshed, ExitError> {
        tokio::time::timeout(DISK_TIMEOUT, self.refresh()).await.map_err(|_| {
            let sentence =
                format!("its files were not read within {DISK_TIMEOUT:?}; check the disk");
            ExitError::new(Exit::Degraded, sentence)
        })
    }

    /// Replaces identity and trust. Returns how many connections this closed.
    fn replace(&self, tls: Tls) -> Result<usize, ExitError> {
        let before = self.handle.snapshot().peers.len();
        self.handle.set_tls(tls).map_err(|error| {
            let sentence = format!("the new certificate cannot be used: {error}; replace it");
            ExitError::new(Exit::Degraded, sentence)
        })?;
        let ended = before.saturating_sub(self.handle.snapshot().peers.len());
        match ended {
            0 => tracing::debug!("the certificate and the list of devices were replaced"),
            _ => tracing::info!(
                "closed {}: the device may no longer connect",
                units::count(ended, "connection")
            ),
        }
        Ok(ended)
    }
}

/// What a look at the files did.
#[derive(Debug)]
pub(crate) struct Refreshed {
    /// Connections that were closed.
    closed: usize,
    /// The number of the revocation list of the mesh, if the present one is in force.
    list: Option<u64>,
    /// Why the present state of a file is not in use, if there is one.
    failure: Option<ExitError>,
}

impl Refreshed {
    /// Returns an error if the present state of a file is not in use.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn complete(self) -> Result<(), ExitError> {
        self.failure.map_or(Ok(()), Err)
    }

    fn into_answer(self) -> Map<String, Value> {
        let closed = ("closed".to_owned(), self.closed.into());
        let list = self.list.map(|list| ("revocation_list".to_owned(), list.into()));
        let failure = self.failure.map(|stop| ("failure".to_owned(), stop.to_string().into()));
        std::iter::once(closed).chain(list).chain(failure).collect()
    }
}

async fn poll_credentials(identity: Arc<CredentialRefresher>) {
    loop {
        tokio::time::sleep(crate::identity::source::POLL_INTERVAL).await;
        // What cannot be used is logged by the look, and read again at the next.
        drop(identity.refresh().await);
    }
}

/// Returns the address at which a gateway maps the connector, if other networks reach it: a gateway
/// behind another NAT maps a private one.
fn outside(state: &PortMappingState) -> Option<SocketAddr> {
    state.external().filter(|external| !is_private(external.ip()))
}

/// Keeps the address that the gateway maps in the offer, before the connector's own.
async fn keep_offer(
    mapping: PortMappingStatus,
    roster: Option<Arc<Roster>>,
    offer: ConnectorOffer,
) {
    let Some(roster) = roster else { return };
    let mut offered = None;
    loop {
        let outside = outside(&mapping.get());
        if outside != offered {
            match roster.mesh().set_offer(&offer.clone().at_first(outside)) {
                Ok(()) => offered = outside,
                Err(stop) => tracing::warn!("invites lack the outside address: {stop}"),
            }
        }
        tokio::time::sleep(OFFER_POLL_INTERVAL).await;
    }
}

/// Renews the connector's own certificate before it ends.
async fn keep_current(roster: Option<Arc<Roster>>) {
    let Some(roster) = roster else { return };
    loop {
        let mesh = roster.mesh().clone();
        let mut wait = RENEWAL_RETRY_DELAY;
        match tokio::task::spawn_blocking(move || mesh.keep_current()).await {
            Ok(Ok(())) => wait = RENEWAL_POLL_INTERVAL,
            Ok(Err(stop)) => tracing::warn!("this machine's certificate was not renewed: {stop}"),
            Err(error) => tracing::warn!("this machine's certificate was not renewed: {error}"),
        }
        tokio::time::sleep(wait).await;
    }
}
