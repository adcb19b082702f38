//! Signals that end the program: SIGINT or SIGTERM once for a graceful end, twice for an immediate
//! one.

use std::future::Future;

use super::exit::ExitError;

/// Completes at the first SIGINT or SIGTERM after the call.
///
/// # Errors
/// If the system does not deliver signals to this process.
#[cfg(unix)]
pub(crate) fn asked_to_end() -> Result<impl Future<Output = ()>, ExitError> {
    use tokio::signal::unix::{SignalKind, signal};

    use crate::base::exit::Exit;

    let unreceivable = |error: std::io::Error| {
        ExitError::new(Exit::Degraded, format!("signals cannot be received: {error}"))
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unreceivable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unreceivable)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Completes at the first Ctrl-C.
///
/// # Errors
/// None on this system.
#[cfg(not(unix))]
pub(crate) fn asked_to_end() -> Result<impl Future<Output = ()>, ExitError> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
