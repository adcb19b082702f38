//! What a connector does for each peer: it serves its streams and answers its requests. It decides
//! neither the services nor the answers.

use std::sync::Arc;

use adit_tokio::core::drive::{Handle, Peer};

use super::requests;
use crate::forward::egress::access::ConnectedDevice;
use crate::forward::egress::{Services, serve_each, serve_streams};
use crate::identity::mesh::roster::Roster;

/// Serves every peer until the node has shut down. Dropping it ends every connection.
pub(crate) async fn serve(handle: Handle, services: Arc<Services>, roster: Option<Arc<Roster>>) {
    serve_each(handle, |peer| serve_peer(peer, services.clone(), roster.clone())).await;
}

/// Serves the streams and answers the requests of one peer, until it is closed permanently.
async fn serve_peer(peer: Peer, services: Arc<Services>, roster: Option<Arc<Roster>>) {
    let device = ConnectedDevice::of(&peer);
    let remote = peer.remote().map_or_else(String::new, |remote| format!(" from {remote}"));
    tracing::info!("{}: {device} came{remote}", peer.id());
    tokio::join!(serve_streams(&peer, services), requests::serve(&peer, &device, roster));
}
