//! The client of the control sockets of a home. It decides how long to wait for an answer and how
//! much of one to read.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::protocol::{self, ControlRequest, MAX_ANSWER};
use super::{ControlAnswer, socket};
use crate::base::exit::ExitError;

/// Sockets asked concurrently: fewer than the files that a process may have open on any system.
const AT_ONCE: usize = 64;

/// Asks every process that has a socket in the directory `run`.
///
/// # Errors
/// If the directory cannot be read.
pub(super) async fn ask_all(
    run: &Path,
    request: ControlRequest,
) -> Result<Vec<ControlAnswer>, ExitError> {
    let sockets = socket::list(run).map_err(|error| {
        ExitError::usage(format!(
            "{}: cannot be read: {error}; ask as the user who runs adit, or name that home with --home",
            run.display()
        ))
    })?;
    let mut heard = Vec::new();
    for some in sockets.chunks(AT_ONCE) {
        let mut asked = JoinSet::new();
        for path in some {
            asked.spawn(ask(path.clone(), request));
        }
        heard.extend(asked.join_all().await.into_iter().flatten());
    }
    heard.sort_by(|a, b| a.socket.cmp(&b.socket));
    Ok(heard)
}

/// Asks one process. Returns `None` if the process is gone.
async fn ask(path: PathBuf, request: ControlRequest) -> Option<ControlAnswer> {
    let socket = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let patience = request.patience();
    let answer = match timeout(patience, exchange(&path, request)).await {
        Ok(Ok(None)) => return None,
        Ok(Ok(Some(line))) => protocol::answer(&line),
        Ok(Err(error)) => Err(format!("it cannot be asked: {error}; ask as the user who runs it")),
        Err(_) => Err(format!("no answer within {patience:?}; look at its log, or restart it")),
    };
    Some(ControlAnswer { socket, answer })
}

async fn exchange(path: &Path, request: ControlRequest) -> std::io::Result<Option<Vec<u8>>> {
    let Some(mut stream) = socket::connect(path).await? else { return Ok(None) };
    // A process that turns a client away sends the reason and does not wait for the request.
    let _ = stream.write_all(&request.line()).await;
    let mut line = Vec::new();
    let read = BufReader::new(stream).take(MAX_ANSWER).read_until(b'\n', &mut line).await;
    let has_ended = line.is_empty() && !path.exists();
    match read {
        _ if has_ended => Ok(None),
        Err(error) if line.is_empty() => Err(error),
        Ok(_) | Err(_) => Ok(Some(line)),
    }
}
