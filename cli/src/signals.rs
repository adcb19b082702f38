//! How the program is asked to end: SIGINT or SIGTERM once for a graceful end, twice for an
//! immediate one.

use std::future::Future;
use std::io;

/// Completes at the first SIGINT or SIGTERM after the call.
///
/// # Errors
/// What the system said when it would not deliver signals to this process.
#[cfg(unix)]
pub(crate) fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
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
pub(crate) fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
