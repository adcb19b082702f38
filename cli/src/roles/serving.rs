//! What a connector does for each peer: it serves its streams and answers its requests. It decides
//! neither the services nor the answers.

use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::drive::{Handle, Peer};
use adit_tokio::core::error::Code;

use super::requests;
use crate::base::tally::Tally;
use crate::forward::egress::access::ConnectedDevice;
use crate::forward::egress::{Services, serve_each, serve_streams};
use crate::identity::mesh::roster::Roster;

/// Time for the check of certificates to close the connection of a revoked device first: that close
/// has the reason.
const REASON_DELAY: Duration = Duration::from_millis(250);

/// Connections of devices, by title and event.
static SEEN: Tally = Tally::new(10);

/// Serves every peer until the node has shut down. Dropping it ends every connection.
pub(crate) async fn serve(handle: Handle, services: Arc<Services>, roster: Option<Arc<Roster>>) {
    serve_each(handle, |peer| serve_peer(peer, services.clone(), roster.clone())).await;
}

/// Serves the streams and answers the requests of one peer, until it is closed permanently.
async fn serve_peer(peer: Peer, services: Arc<Services>, roster: Option<Arc<Roster>>) {
    let device = ConnectedDevice::of(&peer);
    let title = roster.as_ref().and_then(|roster| roster.title(device.names()));
    let title = title.unwrap_or_else(|| device.to_string());
    if let Some(more) = SEEN.due(&title, "connected") {
        tracing::info!("{title} connected{}{more}", origin(&peer));
    }
    let revoked = roster.clone();
    let served = async {
        tokio::join!(serve_streams(&peer, services), requests::serve(&peer, &device, roster))
    };
    tokio::select! {
        _ = served => {}
        () = close_if_revoked(&peer, revoked, &device) => {}
    }
    let failure = peer.closed().await;
    let is_usual = matches!(failure.code(), Code::Closed | Code::ShuttingDown);
    match SEEN.due(&title, failure.code().as_str()) {
        None => {}
        Some(more) if is_usual => tracing::info!("{title} disconnected{more}"),
        Some(more) => tracing::info!("{title} disconnected: {failure}{more}"),
    }
}

/// Closes the connection of a device that is revoked, where its certificate is accepted still.
async fn close_if_revoked(peer: &Peer, roster: Option<Arc<Roster>>, device: &ConnectedDevice) {
    let Some(roster) = roster else { return std::future::pending().await };
    roster.revocation_of(device.names()).await;
    tokio::time::sleep(REASON_DELAY).await;
    peer.disconnect();
}

/// Returns where a peer is, in words. The address of one behind a relay is of this program's
/// making.
fn origin(peer: &Peer) -> String {
    match peer.snapshot() {
        Some(snapshot) if snapshot.path.is_some() => " through a relay".to_owned(),
        _ => peer.remote().map_or_else(String::new, |remote| format!(" from {remote}")),
    }
}
