//! How commands talk to a running `adit` on this machine: over a Unix socket of its own in its
//! home's `run/`, one JSON object per line in each direction.
//!
//! | request | answer |
//! |---|---|
//! | `{"op":"status"}` | `{"ok":true,"role":…,"pid":…,"peers":[…],…}` |
//! | `{"op":"reload"}` | `{"ok":true,…}` with what the role did |
//! | anything else, or what failed | `{"ok":false,"error":"a sentence"}` |
//!
//! It decides who may ask, which is the user that runs the process and root, and how much. The
//! process itself supplies the answer ([`Controlled`]). No process needs its socket: if it cannot
//! have one, it logs that once and continues.

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

/// What a process answers over its socket.
pub(crate) trait Controlled: Send + Sync + 'static {
    /// Returns the role of the process, which is a part of the socket's name.
    fn role(&self) -> &'static str;

    /// Returns the status, as the JSON object that is sent.
    fn status(&self) -> impl Serialize;

    /// Applies the present contents of the process's files. Returns what the client is shown. It
    /// runs to its end even if the client leaves, and never twice concurrently.
    ///
    /// # Errors
    /// What went wrong, or that the process has no files to reload.
    fn reload(&self) -> impl Future<Output = Result<Map<String, Value>, ExitError>> + Send;
}

/// The socket of a running process, removed with this value.
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

/// Opens the socket of this process. If that fails, it logs a warning, and everything else works.
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
/// If the directory of sockets cannot be read.
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

/// Makes every process of a home apply the present contents of its files. A process that is not
/// reached polls its files itself.
pub(crate) async fn reload(home: &Home) -> Vec<ControlAnswer> {
    ask_all(home, ControlRequest::Reload).await.unwrap_or_default()
}
