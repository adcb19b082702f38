//! How commands talk to an `adit` that runs on this machine: over a Unix socket of its own in its
//! home's `run/`, one JSON object a line each way.
//!
//! | request | answer |
//! |---|---|
//! | `{"op":"status"}` | `{"ok":true,"role":…,"pid":…,"peers":[…],…}` |
//! | `{"op":"reload"}` | `{"ok":true,…}` with what the role says it did |
//! | anything else, or what failed | `{"ok":false,"error":"a sentence"}` |
//!
//! It decides who may ask, which is the user that runs the process and root, and how much. What is
//! told and done is the role's ([`Process`]). No process needs its socket: one that cannot have it
//! says so once and runs on.

mod process;
mod protocol;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod socket;

pub(crate) use self::process::Process;
use crate::home::Home;
use crate::stop::Stop;

/// The socket of a running process; it is gone with this value.
#[derive(Debug)]
pub(crate) struct Control {
    #[cfg(unix)]
    _open: server::Open,
}

/// Opens the socket of this process. Without one it is warned, and everything else works.
#[cfg(unix)]
pub(crate) async fn open(home: Result<&Home, &Stop>, process: Process) -> Option<Control> {
    let opened = match home {
        Ok(home) => server::open(&home.run(), process).await.map_err(|stop| stop.to_string()),
        Err(stop) => Err(stop.to_string()),
    };
    match opened {
        Ok(open) => Some(Control { _open: open }),
        Err(sentence) => {
            tracing::warn!("adit status will not show this process: {sentence}");
            None
        }
    }
}

/// This system has no such sockets.
#[cfg(not(unix))]
pub(crate) async fn open(_home: Result<&Home, &Stop>, process: Process) -> Option<Control> {
    drop(process);
    None
}
