//! How commands talk to an `adit` that runs on this machine: over a Unix socket of its own in its
//! home's `run/`, one JSON object a line each way.
//!
//! | request | answer |
//! |---|---|
//! | `{"op":"status"}` | `{"ok":true,"role":…,"pid":…,"peers":[…],…}` |
//! | `{"op":"reload"}` | `{"ok":true,…}` with what the role did |
//! | anything else, or what failed | `{"ok":false,"error":"a sentence"}` |
//!
//! It decides who may ask, which is the user that runs the process and root, and how much. What is
//! answered is the process's own ([`Controlled`]). No process needs its socket: one that cannot have it
//! logs that once and runs on.

#[cfg(unix)]
mod client;
mod protocol;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod socket;

use std::future::Future;

use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use self::protocol::ControlRequest;
use crate::base::exit::ExitError;
use crate::homedir::Home;

/// What a process answers with when it is asked over its socket.
pub(crate) trait Controlled: Send + Sync + 'static {
    /// Returns the role of the process, which is a part of the socket's name.
    fn role(&self) -> &'static str;

    /// Returns the status, as the JSON object that is sent.
    fn status(&self) -> impl Serialize;

    /// Puts in force what the files of the process say now, and returns what the asker gets to know of
    /// it. It runs to its end even if the asker leaves, and never twice at a time.
    ///
    /// # Errors
    /// What went wrong, or that there is nothing to reload.
    fn reload(&self) -> impl Future<Output = Result<Map<String, Value>, ExitError>> + Send;
}

/// The socket of a running process; it is gone with this value.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    #[cfg(unix)]
    _open: server::ServedSocket,
}

/// The answer of a process.
#[derive(Debug)]
pub(crate) struct ControlAnswer {
    /// The name of its socket.
    pub(crate) socket: String,
    /// The answer without its `ok`, or a sentence about why there is none.
    pub(crate) answer: Result<Map<String, Value>, String>,
}

/// Opens the socket of this process. Without one it is warned, and everything else works.
#[cfg(unix)]
pub(crate) async fn open(
    home: Result<&Home, &ExitError>,
    process: impl Controlled,
) -> Option<ControlSocket> {
    let opened = match home {
        Ok(home) => server::open(&home.run(), process).await.map_err(|stop| stop.to_string()),
        Err(stop) => Err(stop.to_string()),
    };
    match opened {
        Ok(open) => Some(ControlSocket { _open: open }),
        Err(sentence) => {
            tracing::warn!("adit status will not show this process: {sentence}");
            None
        }
    }
}

/// This system has no such sockets.
#[cfg(not(unix))]
pub(crate) async fn open(
    _home: Result<&Home, &ExitError>,
    process: impl Controlled,
) -> Option<ControlSocket> {
    drop(process);
    None
}

/// Asks every process of a home, all concurrently. Sockets that killed processes left are removed.
///
/// # Errors
/// When it cannot be seen what runs.
#[cfg(unix)]
pub(crate) async fn ask_all(
    home: &Home,
    request: ControlRequest,
) -> Result<Vec<ControlAnswer>, ExitError> {
    client::ask_all(&home.run(), request).await
}

/// This system has no such sockets.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub(crate) async fn ask_all(
    _home: &Home,
    _request: ControlRequest,
) -> Result<Vec<ControlAnswer>, ExitError> {
    Err(ExitError::usage("a running adit can be asked on Unix alone; look at its log instead"))
}

/// Has every process of a home put in force what its files say now; returns how many did. One that
/// does not hear it looks by itself.
pub(crate) async fn reload(home: &Home) -> usize {
    let heard = ask_all(home, ControlRequest::Reload).await.unwrap_or_default();
    heard.iter().filter(|heard| heard.answer.is_ok()).count()
}
