//! The connector's side: each stream that a peer opens to a service becomes a connection to that
//! service, when the peer's verified name is allowed to use it.

pub(crate) mod access;
pub(crate) mod builtin;
mod lookup;
mod tcp;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::drive::{Handle, IncomingStream, Peer};
use adit_tokio::core::error::{Code, Failure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::access::ConnectedDevice;
use self::builtin::Builtin;
use self::lookup::Lookups;
use super::copy;
use super::origin::Origins;
use super::socket::StreamSocket;
use crate::address::Backend;
use crate::base::tally::Tally;
use crate::config::{ForwardLimits, ServiceConfig};
use crate::identity::mesh::roster::Roster;

/// Refused connections, by device and cause.
static REFUSED: Tally = Tally::new(1);

/// The services of a connector, and its limits.
#[derive(Debug)]
pub(crate) struct Services {
    by_name: BTreeMap<String, ServiceConfig>,
    slots: Arc<Semaphore>,
    half_open: Duration,
    lookups: Lookups,
    origins: Origins,
    /// The devices' permissions, where a service has no list of its own.
    roster: Option<Arc<Roster>>,
}

impl Services {
    pub(crate) fn new(services: Vec<ServiceConfig>, limits: ForwardLimits) -> Self {
        Self {
            by_name: services.into_iter().map(|s| (s.name.as_str().to_owned(), s)).collect(),
            slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            half_open: limits.half_open,
            lookups: Lookups::default(),
            origins: Origins::default(),
            roster: None,
        }
    }

    /// Returns the same as the services of a mesh: those without a list of their own are for the
    /// devices that were invited to them.
    pub(crate) fn of_mesh(mut self, roster: Arc<Roster>) -> Self {
        self.roster = Some(roster);
        self
    }

    /// Returns what is behind a service's name, for a device that may use it.
    fn authorise(
        &self,
        service: &str,
        device: &ConnectedDevice,
    ) -> Result<AuthorisedService<'_>, Failure> {
        device.as_member(&format!("\"{service}\""))?;
        if let (Some(roster), Some(id)) = (&self.roster, device.id())
            && !roster.is_active(id)
        {
            return Err(Failure::new(Code::Forbidden, "this device was revoked"));
        }
        if let Some(builtin) = Builtin::named(service) {
            return Ok(AuthorisedService::Builtin(builtin));
        }
        let allowed = self.by_name.get(service).map(|found| (self.may_use(found, device), found));
        match allowed {
            Some((true, found)) => Ok(AuthorisedService::Backend(&found.backend)),
            // A device that may use every service learns nothing by this.
            None if self.by_name.values().all(|found| self.may_use(found, device)) => {
                Err(Failure::new(Code::NoSuchService, format!("no service \"{service}\"")))
            }
            Some((false, _)) | None => {
                let first = device.names().first();
                let device = first.map_or("a device without a name", String::as_str);
                Err(Failure::new(Code::Forbidden, format!("{device} may not use \"{service}\"")))
            }
        }
    }

    fn may_use(&self, service: &ServiceConfig, device: &ConnectedDevice) -> bool {
        match (&service.allow, &self.roster) {
            (Some(allow), roster) => {
                // A name that an invite gave after the certificate is in force without a new one.
                let given = roster.as_ref().zip(device.id()).and_then(|(it, id)| it.name(id));
                device.names().iter().chain(&given).any(|name| allow.contains(name))
                    && (roster.is_none() || device.id().is_some())
            }
            (None, Some(roster)) => {
                device.id().is_some_and(|id| roster.grants(id, service.name.as_str()))
            }
            (None, None) => true,
        }
    }
}

/// What is behind a service's name.
#[derive(Debug)]
enum AuthorisedService<'a> {
    Builtin(Builtin),
    Backend(&'a Backend),
}

/// Serves every peer that connects with a task of its own, until the node has shut down and all of
/// them have ended. Dropping it ends every task.
pub(crate) async fn serve_each<F>(handle: Handle, serve: impl Fn(Peer) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut peers = JoinSet::new();
    loop {
        tokio::select! {
            peer = handle.accept() => match peer {
                Some(peer) => drop(peers.spawn(serve(peer))),
                None => break,
            },
            Some(_) = peers.join_next() => {}
        }
    }
    while peers.join_next().await.is_some() {}
}

/// Serves the streams of one peer, until it is closed permanently.
pub(crate) async fn serve_streams(peer: &Peer, services: Arc<Services>) {
    // An accepted peer is one connection, with one certificate.
    let device = Arc::new(ConnectedDevice::of(peer));
    let mut flows = JoinSet::new();
    loop {
        tokio::select! {
            incoming = peer.accept_stream() => match incoming {
                Some(incoming) => {
                    flows.spawn(serve_stream(incoming, device.clone(), services.clone()));
                }
                None => break,
            },
            Some(_) = flows.join_next() => {}
        }
    }
    while flows.join_next().await.is_some() {}
}

async fn serve_stream(
    incoming: IncomingStream,
    device: Arc<ConnectedDevice>,
    services: Arc<Services>,
) {
    let found = match services.authorise(incoming.service().as_str(), &device) {
        Ok(found) => found,
        Err(failure) => return refuse(incoming, &failure, &device),
    };
    if incoming.origin().is_some_and(|origin| services.origins.contains(&origin)) {
        let sentence = "the service is a local port of adit that leads back to it; start the \
                        service first, or connect with another --local port";
        return refuse(incoming, &Failure::new(Code::Misconfigured, sentence), &device);
    }
    let Ok(_slot) = services.slots.clone().try_acquire_owned() else {
        let failure = Failure::new(Code::Overloaded, "the connector is at its connection limit");
        return refuse(incoming, &failure, &device);
    };
    let half_open = services.half_open;
    match found {
        AuthorisedService::Builtin(builtin) => {
            let (send, recv) = incoming.accept().split();
            let result = builtin.serve(send, recv).await;
            tracing::debug!(?builtin, %device, ?result, "a stream ended");
        }
        AuthorisedService::Backend(Backend::Tcp(address)) => {
            let connected = tcp::tcp(address, &services.lookups, &services.origins).await;
            let (socket, _origin) = connected.map_or_else(
                |failure| (Err(failure), None),
                |(socket, origin)| (Ok(socket), origin),
            );
            carry(incoming, socket, &device, half_open).await;
        }
        #[cfg(unix)]
        AuthorisedService::Backend(Backend::Unix(path)) => {
            carry(incoming, tcp::unix(path).await, &device, half_open).await;
        }
    }
}

async fn carry<S: StreamSocket>(
    incoming: IncomingStream,
    connected: Result<S, Failure>,
    device: &ConnectedDevice,
    half_open: Duration,
) {
    let socket = match connected {
        Ok(socket) => socket,
        Err(failure) => return refuse(incoming, &failure, device),
    };
    let service = incoming.service().clone();
    let (send, recv) = incoming.accept().split();
    let (totals, result) = copy::both_ways(socket, send, recv, half_open).await;
    tracing::debug!(%service, %device, ?totals, ?result, "a connection ended");
}

fn refuse(incoming: IncomingStream, failure: &Failure, device: &ConnectedDevice) {
    let service = incoming.service();
    let cause = format!("{service} {}", failure.code().as_str());
    if let Some(more) = REFUSED.due(&device.to_string(), &cause) {
        tracing::info!("refused a connection to \"{service}\": {failure}{more}");
    }
    incoming.refuse(&for_peer(failure));
}

/// Returns the failure that a peer receives: without addresses behind the connector, and without
/// the system's errors.
fn for_peer(failure: &Failure) -> Failure {
    if failure.code() != Code::BackendUnavailable {
        return failure.clone();
    }
    let sentence = "the connector cannot reach the service; its log has the reason";
    Failure::new(Code::BackendUnavailable, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, allow: Option<&[&str]>) -> ServiceConfig {
        ServiceConfig {
            name: name.parse().unwrap(),
            backend: "80".parse().unwrap(),
            allow: allow.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        }
    }

    fn code(services: &Services, name: &str, device: &[&str]) -> Option<Code> {
        services
            .authorise(name, &ConnectedDevice::member(device))
            .err()
            .map(|failure| failure.code())
    }

    fn three() -> Services {
        let services = vec![
            service("all", None),
            service("some", Some(&["laptop", "desk"])),
            service("none", Some(&[])),
        ];
        Services::new(services, ForwardLimits::default())
    }

    #[test]
    fn a_service_is_open_to_all_devices_to_some_or_to_none() {
        let services = three();
        assert_eq!(code(&services, "all", &["laptop"]), None);
        assert_eq!(code(&services, "all", &[]), None);
        assert_eq!(code(&services, "some", &["laptop"]), None);
        assert_eq!(code(&services, "some", &["lapto"]), Some(Code::Forbidden));
        assert_eq!(code(&services, "some", &[]), Some(Code::Forbidden));
        assert_eq!(code(&services, "none", &["laptop"]), Some(Code::Forbidden));
    }

    #[test]
    fn a_refusal_does_not_show_which_services_there_are() {
        let services = three();
        let said = |services: &Services, name| {
            let refused = services.authorise(name, &ConnectedDevice::member(&["laptop"]));
            refused.unwrap_err().to_string().replace(name, "it")
        };
        assert_eq!(said(&services, "none"), said(&services, "other"));
        let open = Services::new(vec![service("all", None)], ForwardLimits::default());
        assert_eq!(code(&open, "other", &["laptop"]), Some(Code::NoSuchService));
    }

    #[test]
    fn what_a_peer_receives_has_no_inner_address() {
        let inner = Failure::new(Code::BackendUnavailable, "10.0.0.7:80: Connection refused");
        assert!(!for_peer(&inner).to_string().contains("10.0.0.7"));
        assert_eq!(for_peer(&inner).code(), inner.code());
    }

    #[test]
    fn the_built_in_services_are_open_to_every_member() {
        let services = three();
        for name in ["adit.echo", "adit.source", "adit.sink"] {
            assert_eq!(code(&services, name, &[]), None);
        }
        assert_eq!(code(&services, "adit.other", &["laptop"]), Some(Code::Forbidden));
    }

    #[test]
    fn a_guest_may_use_no_service_and_learns_of_none() {
        let services = three();
        for name in ["all", "other", "adit.echo"] {
            let failure = services.authorise(name, &ConnectedDevice::guest()).unwrap_err();
            assert_eq!(failure.code(), Code::Forbidden, "{name}");
        }
    }
}
