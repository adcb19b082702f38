//! The connector's side: each stream that a peer opens to a service becomes a connection to that
//! service, when the peer's verified name is allowed to use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::drive::{Handle, Incoming, Peer};
use adit_tokio::core::error::{Code, Failure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::socket::Socket;
use super::{connect, copy};
use crate::config::{Backend, Limits, Service};

/// The services of a connector, and how much it takes on.
#[derive(Debug)]
pub(crate) struct Services {
    by_name: BTreeMap<String, Service>,
    slots: Arc<Semaphore>,
    half_open: Duration,
}

impl Services {
    pub(crate) fn new(services: Vec<Service>, limits: Limits) -> Self {
        Self {
            by_name: services.into_iter().map(|s| (s.name.as_str().to_owned(), s)).collect(),
            slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            half_open: limits.half_open,
        }
    }

    /// Where the service is, for a device whose verified certificate has these names.
    fn authorise(&self, service: &str, device: &[String]) -> Result<&Backend, Failure> {
        let Some(found) = self.by_name.get(service) else {
            return Err(Failure::new(Code::NoSuchService, format!("no service \"{service}\"")));
        };
        match &found.allow {
            Some(allow) if !device.iter().any(|name| allow.contains(name)) => {
                let device = device.first().map_or("a device without a name", String::as_str);
                let why = format!("{device} may not use \"{service}\"");
                Err(Failure::new(Code::Forbidden, why))
            }
            Some(_) | None => Ok(&found.backend),
        }
    }
}

/// Serves every peer until the node has shut down. Dropping it ends every connection.
pub(crate) async fn serve(handle: Handle, services: Arc<Services>) {
    serve_each(handle, |peer| serve_peer(peer, services.clone())).await;
}

/// Has every peer that connects served by a task of its own, until the node has shut down and
/// all of them have ended. Dropping it ends every task.
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

/// Serves the streams and refuses the requests of one peer, until it is closed for good.
async fn serve_peer(peer: Peer, services: Arc<Services>) {
    let names = match peer.names() {
        names if names.is_empty() => "a device without a name".to_owned(),
        names => names.join(", "),
    };
    let remote = peer.remote().map_or_else(String::new, |remote| format!(" from {remote}"));
    tracing::info!("{}: {names} came{remote}", peer.id());
    tokio::join!(serve_streams(&peer, services), refuse_requests(&peer));
}

/// Serves the streams of one peer, until it is closed for good.
pub(crate) async fn serve_streams(peer: &Peer, services: Arc<Services>) {
    // An accepted peer is one connection, with one certificate.
    let device: Arc<[String]> = peer.names().into();
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

async fn refuse_requests(peer: &Peer) {
    let failure = Failure::new(Code::NoSuchService, "this connector answers no requests");
    while let Some(request) = peer.accept_request().await {
        // A requester that has given up meanwhile needs no answer.
        let _ = request.fail(&failure);
    }
}

async fn serve_stream(incoming: Incoming, device: Arc<[String]>, services: Arc<Services>) {
    let service = incoming.service().as_str().to_owned();
    let backend = match services.authorise(&service, &device) {
        Ok(backend) => backend,
        Err(failure) => return refuse(incoming, &failure),
    };
    let Ok(_slot) = services.slots.clone().try_acquire_owned() else {
        let failure = Failure::new(Code::Overloaded, "the connector is at its connection limit");
        return refuse(incoming, &failure);
    };
    let half_open = services.half_open;
    match backend {
        Backend::Tcp(address) => {
            carry(incoming, connect::tcp(address).await, &device, half_open).await;
        }
        #[cfg(unix)]
        Backend::Unix(path) => {
            carry(incoming, connect::unix(path).await, &device, half_open).await;
        }
    }
}

async fn carry<S: Socket>(
    incoming: Incoming,
    connected: Result<S, Failure>,
    device: &[String],
    half_open: Duration,
) {
    let socket = match connected {
        Ok(socket) => socket,
        Err(failure) => return refuse(incoming, &failure),
    };
    let service = incoming.service().clone();
    let (send, recv) = incoming.accept().split();
    let (totals, result) = copy::both_ways(socket, send, recv, half_open).await;
    tracing::debug!(%service, ?device, ?totals, ?result, "a connection ended");
}

fn refuse(incoming: Incoming, failure: &Failure) {
    tracing::info!(service = incoming.service().as_str(), %failure, "refused a connection");
    incoming.refuse(failure);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, allow: Option<&[&str]>) -> Service {
        Service {
            name: name.parse().unwrap(),
            backend: "80".parse().unwrap(),
            allow: allow.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        }
    }

    fn code(services: &Services, name: &str, device: Option<&str>) -> Option<Code> {
        let device: Vec<_> = device.into_iter().map(str::to_owned).collect();
        services.authorise(name, &device).err().map(|failure| failure.code())
    }

    #[test]
    fn a_service_is_open_to_all_devices_to_some_or_to_none() {
        let services = Services::new(
            vec![
                service("all", None),
                service("some", Some(&["laptop", "desk"])),
                service("none", Some(&[])),
            ],
            Limits::default(),
        );
        assert_eq!(code(&services, "all", Some("laptop")), None);
        assert_eq!(code(&services, "all", None), None);
        assert_eq!(code(&services, "some", Some("laptop")), None);
        assert_eq!(code(&services, "some", Some("lapto")), Some(Code::Forbidden));
        assert_eq!(code(&services, "some", None), Some(Code::Forbidden));
        assert_eq!(code(&services, "none", Some("laptop")), Some(Code::Forbidden));
        assert_eq!(code(&services, "other", Some("laptop")), Some(Code::NoSuchService));
    }
}
