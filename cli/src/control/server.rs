//! The server of a process's control socket. It decides how many clients may ask concurrently, how
//! long they may take, and how much of the process's time goes into answers: whatever clients do,
//! the tunnel on the same thread does not wait for them.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Controlled;
use super::protocol::{self, ControlRequest, MAX_REQUEST};
use super::socket::{self, BoundSocket, SocketFile};
use crate::base::exit::ExitError;
use crate::base::task::Background;

/// Maximum number of clients. A person watches in a window or two, and scripts ask and leave.
const CLIENTS: usize = 16;

/// How long a client may take to send a request, the first and each later one, and to read an
/// answer. A client that watches asks every second.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a status, as a multiple of the time that it took: with 16,384 peers one takes a
/// tenth of a second, and the tunnel is to have nine tenths of the time.
const PAUSE_FACTOR: u32 = 9;

/// Pause after the system could not accept another client.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A socket, served as long as this lives.
#[derive(Debug)]
pub(super) struct ServedSocket {
    _place: SocketFile,
    _serving: Background<()>,
}

/// Opens the socket of a process in the directory `run`, which is created.
///
/// # Errors
/// A sentence about the obstacle.
pub(super) async fn open(run: &Path, process: impl Controlled) -> Result<ServedSocket, ExitError> {
    socket::sweep(run).await;
    let name = format!("{}-{}.sock", process.role(), std::process::id());
    let BoundSocket { listener, place, owner } = socket::bind(run, &name).await?;
    let handler = Arc::new(ControlHandler::new(process));
    let serving = Background::spawn(serve(listener, owner, handler, IDLE_TIMEOUT));
    Ok(ServedSocket { _place: place, _serving: serving })
}

async fn serve<P: Controlled>(
    listener: UnixListener,
    owner: u32,
    handler: Arc<ControlHandler<P>>,
    idle: Duration,
) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => match admit(&client, owner, clients.len()) {
                    Ok(()) => drop(clients.spawn(attend(client, handler.clone(), idle))),
                    Err(sentence) => turn_away(client, sentence),
                },
                Err(error) => {
                    tracing::debug!(%error, "a control client could not be accepted");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

fn admit(client: &UnixStream, owner: u32, clients: usize) -> Result<(), &'static str> {
    // The permissions keep other users out already, unless they were changed.
    let is_trusted = client.peer_cred().is_ok_and(|who| may_ask(who.uid(), owner));
    match (is_trusted, clients < CLIENTS) {
        (false, _) => Err("this process is another user's; ask as that user"),
        (true, false) => Err("too many ask already; try again in a few seconds"),
        (true, true) => Ok(()),
    }
}

/// Sends the reason and closes, without waiting: a new connection has room for a line.
fn turn_away(client: UnixStream, sentence: &str) {
    let _ = client.into_std().and_then(|mut client| client.write(&protocol::refused(sentence)));
}

const fn may_ask(user: u32, owner: u32) -> bool {
    const ROOT: u32 = 0;
    user == owner || user == ROOT
}

/// Answers one client until it leaves, takes too long or sends anything but a line.
async fn attend<P: Controlled>(
    mut client: UnixStream,
    handler: Arc<ControlHandler<P>>,
    idle: Duration,
) {
    let (read, mut write) = client.split();
    let mut read = BufReader::with_capacity(MAX_REQUEST, read);
    while let Ok(Ok(Some(line))) = timeout(idle, next_line(&mut read)).await {
        let is_whole = line.len() <= MAX_REQUEST;
        let answer = match is_whole {
            true => handler.answer(&line).await,
            false => protocol::refused("the request is too long; send at most 1,024 bytes"),
        };
        if !matches!(timeout(idle, write.write_all(&answer)).await, Ok(Ok(()))) || !is_whole {
            return;
        }
    }
}

/// Reads the next line, or the first bytes of one that is too long.
async fn next_line<R>(read: &mut BufReader<R>) -> io::Result<Option<Vec<u8>>>
where
    R: tokio::io::AsyncRead + Unpin,
{
    let mut line = Vec::new();
    let most = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    read.take(most + 1).read_until(b'\n', &mut line).await?;
    Ok(Some(line).filter(|line| !line.is_empty()))
}

/// Answers the requests of all clients, one of each kind at a time.
struct ControlHandler<P> {
    process: P,
    /// When the next status may be made.
    status: Mutex<Instant>,
    reload: Mutex<()>,
}

impl<P: Controlled> ControlHandler<P> {
    fn new(process: P) -> Self {
        Self { process, status: Mutex::new(Instant::now()), reload: Mutex::new(()) }
    }

    async fn answer(&self, line: &[u8]) -> Vec<u8> {
        match ControlRequest::parse(line) {
            Ok(ControlRequest::Status) => self.status().await,
            Ok(ControlRequest::Reload) => {
                let _turn = self.reload.lock().await;
                match self.process.reload().await {
                    Ok(done) => protocol::accepted(&done),
                    Err(stop) => protocol::refused(&stop.to_string()),
                }
            }
            Err(sentence) => protocol::refused(&sentence),
        }
    }

    async fn status(&self) -> Vec<u8> {
        let mut next = self.status.lock().await;
        sleep_until(*next).await;
        let began = Instant::now();
        let answer = protocol::accepted(&self.process.status());
        *next = Instant::now() + PAUSE_FACTOR * began.elapsed();
        answer
    }
}

#[cfg(test)]
mod tests;
