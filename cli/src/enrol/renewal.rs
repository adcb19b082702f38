//! A device's certificate, renewed before it expires over the existing connection. It decides when;
//! the connector decides whether.

use std::time::Duration;

use crate::base::exit::{Exit, ExitError};
use crate::base::system::unix_now;
use crate::enrol;
use crate::identity::member::Membership;
use crate::net::link::Tunnel;

/// Longest and shortest time between two checks of the certificate.
const POLL_INTERVAL: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(1));

/// Keeps a membership current, if there is one, for the life of the tunnel.
pub(crate) async fn keep_current(membership: Option<Membership>, mut tunnel: Tunnel) {
    let Some(membership) = membership else { return };
    loop {
        let described = membership.clone();
        let described = tokio::task::spawn_blocking(move || described.describe());
        let described = described.await.unwrap_or_else(|error| {
            Err(ExitError::new(Exit::Degraded, format!("a look ended: {error}")))
        });
        let (due, end) = match described {
            Ok(said) => (said.due(), said.not_after),
            Err(stop) => {
                tracing::warn!("this machine's certificate cannot be read: {stop}");
                return;
            }
        };
        let now = unix_now();
        if now < due {
            let wait = Duration::from_secs(due - now).clamp(POLL_INTERVAL.1, POLL_INTERVAL.0);
            tokio::time::sleep(wait).await;
            continue;
        }
        let peer = tunnel.peer();
        let renewed = match peer {
            Some(peer) if peer.connected().await.is_ok() => {
                enrol::agent::renew(&peer, &membership, false).await
            }
            Some(_) | None => match tunnel.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match renewed {
            Ok(()) => {
                tracing::info!("this machine has a new certificate");
                tokio::time::sleep(POLL_INTERVAL.1).await;
            }
            Err(stop) => {
                tracing::warn!("this machine's certificate was not renewed: {stop}");
                // Ten more tries in what is left, and no more than one an hour.
                let wait = Duration::from_secs(end.saturating_sub(now) / 10);
                tokio::time::sleep(wait.clamp(POLL_INTERVAL.1, POLL_INTERVAL.0)).await;
            }
        }
    }
}
