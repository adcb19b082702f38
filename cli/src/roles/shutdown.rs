//! The graceful end of a role. It decides what may finish, and that a second signal cuts it short.

use std::time::Duration;

use adit_tokio::core::drive::Handle;
use adit_tokio::core::lifecycle::StateView;

use crate::base::exit::{Exit, ExitError};
use crate::base::signals;
use crate::net::relays::AttachedRelays;

/// How long the end waits for the system to take the notices to the peers.
const LAST_NOTICE: Duration = Duration::from_millis(500);

/// Lets open streams finish within the core's drain time; a second signal cuts it short.
///
/// # Errors
/// If a second signal cut it short.
pub(crate) async fn shut_down(
    handle: &Handle,
    relays: Option<&AttachedRelays>,
) -> Result<(), ExitError> {
    tracing::info!("shutting down: open connections may finish; a second signal closes them now");
    let again = signals::interrupted()?;
    handle.shutdown();
    let released = async {
        if let Some(relays) = relays {
            relays.release().await;
        }
    };
    let peers = handle.snapshot().peers;
    let closed = async {
        match peers.iter().any(|peer| matches!(peer.state, StateView::Connected { .. })) {
            true => handle.closed().await,
            // An attempt to connect has nothing to finish, and no answer to wait for.
            false => drop(tokio::time::timeout(LAST_NOTICE, handle.closed()).await),
        }
    };
    tokio::select! {
        _ = async { tokio::join!(closed, released) } => Ok(()),
        () = again => {
            handle.shutdown_now();
            let _ = tokio::time::timeout(LAST_NOTICE, handle.closed()).await;
            Err(ExitError::new(Exit::Degraded, "ended by a second signal; connections were cut"))
        }
    }
}
