//! What a connector does for each peer: it serves its streams and answers its requests. It decides
//! neither the services nor the answers.

use std::sync::Arc;

use adit_tokio::core::drive::{Handle, Peer};
use adit_tokio::core::error::Code;

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
    let title = roster.as_ref().and_then(|roster| roster.title(device.names()));
    let title = title.unwrap_or_else(|| device.to_string());
    tracing::info!("{title} connected{}", origin(&peer));
    tokio::join!(serve_streams(&peer, services), requests::serve(&peer, &device, roster));
    let failure = peer.closed().await;
    if matches!(failure.code(), Code::Closed | Code::ShuttingDown) {
        tracing::info!("{title} disconnected");
    } else {
        tracing::info!("{title} disconnected: {failure}");
    }
}

/// Returns where a peer is, in words. The address of one behind a relay is of this program's
/// making.
fn origin(peer: &Peer) -> String {
    match peer.snapshot() {
        Some(snapshot) if snapshot.path.is_some() => " through a relay".to_owned(),
        _ => peer.remote().map_or_else(String::new, |remote| format!(" from {remote}")),
    }
}
