//! One relay of a client: its machine, its stream, and what waits for it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::fallback::{Action, Carrier, Heard, State, Trial};
use adit_core::rng::Rng;
use adit_core::transmit::{Datagram, Transmit};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::pump::pump;
use super::super::queue::Queue;
use super::super::relays::{Target, View};
use super::super::tls;
use super::{News, What};

/// Bytes that wait for the stream at most: 100 ms of 20 Mbit/s. More would be delay, not throughput.
const QUEUE: usize = 256 * 1024;

/// How long opening a stream may take, TLS included.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Datagrams that are kept for a stream that may follow: a handshake's first flight, or the last
/// probes of a connection, whose next would come seconds later.
const KEPT: usize = 4;

/// Trials whose answers count: those of the last seconds.
const TRIALS: usize = 4;

/// The longest datagram that TCP carries, unless UDP has carried longer ones. The discovery of the
/// path's limit would find none in TCP, and the way back to UDP would swallow what it then sends.
/// An Ethernet of 1,500 bytes, less the headers of IPv6 and UDP.
const USUAL: usize = 1_452;

/// One relay.
#[derive(Debug)]
pub(super) struct Relay {
    target: Target,
    carrier: Carrier,
    rng: Rng,
    sender: mpsc::Sender<News>,
    stream: Option<Stream>,
    opened: u64,
    trials: VecDeque<Trial>,
    kept: VecDeque<Vec<u8>>,
    longest: usize,
    /// Of streams that are gone, and of no stream.
    dropped: u64,
    shown: Option<(State, u64, u64)>,
    since: Instant,
}

/// A stream, being opened or open.
#[derive(Debug)]
struct Stream {
    /// Tells its news from those of another, also of an earlier time of this relay.
    number: u64,
    queue: Arc<Queue>,
    task: JoinHandle<()>,
    is_up: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // One that is open still takes what is left, a goodbye perhaps.
        self.queue.finish();
        if !self.is_up {
            self.task.abort();
        }
    }
}

impl Relay {
    pub(super) fn new(
        target: Target,
        mut rng: Rng,
        sender: mpsc::Sender<News>,
        now: Instant,
    ) -> Self {
        Self {
            target,
            carrier: Carrier::new(Rng::new(rng.seed(), "backoff")),
            rng,
            sender,
            stream: None,
            opened: 0,
            trials: VecDeque::new(),
            kept: VecDeque::new(),
            longest: USUAL,
            dropped: 0,
            shown: None,
            since: now,
        }
    }

    /// The address that the node knows it by.
    pub(super) const fn address(&self) -> SocketAddr {
        self.target.relay
    }

    /// What is told of its door holds for the next stream.
    pub(super) fn retarget(&mut self, target: Target) {
        self.target = target;
    }

    pub(super) const fn is_by_tcp(&self) -> bool {
        self.carrier.is_by_tcp()
    }

    /// UDP did not take a datagram; says whether there is hope that TCP will, so that the node need
    /// not know.
    pub(super) fn on_refused(&mut self, now: Instant) -> bool {
        let action = self.carrier.handle_refused(now);
        self.act(action, now);
        match self.carrier.state() {
            State::Opening | State::Opened | State::Tcp => true,
            State::Udp | State::Leaving | State::Waiting => false,
        }
    }

    /// A batch is on its way by UDP, or goes from here by TCP. Gives the question that is to be sent
    /// along.
    pub(super) fn on_sent(
        &mut self,
        transmit: &Transmit,
        payload: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let longest = transmit.segment_size.unwrap_or(payload.len());
        if !self.is_by_tcp() {
            self.longest = self.longest.max(longest);
        }
        match &self.stream {
            Some(stream) if self.carrier.is_by_tcp() && longest <= self.longest => {
                stream.queue.push_batch(payload, transmit.segment_size);
            }
            Some(_) | None if self.carrier.is_by_tcp() => self.dropped += 1,
            Some(_) | None if self.carrier.is_doubtful(now) => self.keep(payload, longest),
            Some(_) | None => self.kept.clear(),
        }
        if !self.carrier.handle_sent(now) {
            return None;
        }
        let mut ids = [0; 16];
        self.rng.fill(&mut ids);
        let trial = Trial::new(ids);
        self.trials.truncate(TRIALS - 1);
        self.trials.push_front(trial);
        Some(trial.question())
    }

    fn keep(&mut self, payload: &[u8], segment_size: usize) {
        for datagram in payload.chunks(segment_size.max(1)) {
            self.kept.truncate(KEPT - 1);
            self.kept.push_front(datagram.to_vec());
        }
    }

    /// A batch came by UDP; says whether it is for the node.
    pub(super) fn on_heard_by_udp(&mut self, batch: &Datagram, now: Instant) -> bool {
        let size = match batch.segment_size {
            0 => batch.payload.len(),
            size => size,
        };
        let (mut answers, mut others) = (0_usize, 0_usize);
        for datagram in batch.payload.chunks(size.max(1)) {
            match self.trials.iter().any(|trial| trial.is_answered_by(datagram)) {
                true => answers += 1,
                false => others += 1,
            }
        }
        if answers > 0 {
            self.trials.clear();
            self.on_heard(Heard::Trial, now);
        }
        if others > 0 {
            self.on_heard(Heard::Udp, now);
        }
        others > 0
    }

    pub(super) fn on_heard_by_tcp(&mut self, stream: u64, now: Instant) {
        if self.stream.as_ref().is_some_and(|it| it.number == stream) {
            self.on_heard(Heard::Tcp, now);
        }
    }

    fn on_heard(&mut self, heard: Heard, now: Instant) {
        let action = self.carrier.handle_heard(heard, now);
        self.act(action, now);
    }

    pub(super) fn on_up(&mut self, number: u64, now: Instant) {
        let Some(stream) = self.stream.as_mut().filter(|it| it.number == number) else { return };
        stream.is_up = true;
        for datagram in self.kept.drain(..).rev() {
            stream.queue.push_batch(&datagram, None);
        }
        tracing::info!(relay = %self.target.relay, tcp = %self.target.tcp, "reached by TCP");
        let action = self.carrier.handle_up(now);
        self.act(action, now);
    }

    pub(super) fn on_down(&mut self, number: u64, error: &io::Error, now: Instant) {
        if self.stream.as_ref().is_none_or(|it| it.number != number) {
            return;
        }
        tracing::info!(relay = %self.target.relay, tcp = %self.target.tcp, %error, "no TCP stream");
        self.close();
        self.carrier.handle_down(now);
    }

    pub(super) fn pass_time(&mut self, now: Instant) {
        while self.deadline().is_some_and(|at| at <= now) {
            let action = self.carrier.handle_timeout(now);
            self.act(action, now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.carrier.deadline()
    }

    pub(super) fn has_earlier_deadline(&self, armed: Option<Instant>) -> bool {
        self.deadline().is_some_and(|at| armed.is_none_or(|armed| at < armed))
    }

    /// How it is reached, if that has changed since the last time.
    pub(super) fn take_view(&mut self) -> Option<View> {
        let dropped = self.dropped + self.stream.as_ref().map_or(0, |it| it.queue.dropped());
        let shown = (self.carrier.state(), self.opened, dropped);
        (self.shown.replace(shown) != Some(shown)).then(|| {
            let (state, opened, dropped) = shown;
            View { state, since: self.since, opened, dropped }
        })
    }

    fn act(&mut self, action: Option<Action>, now: Instant) {
        if self.shown.is_none_or(|(state, ..)| state != self.carrier.state()) {
            self.since = now;
        }
        match action {
            Some(Action::Open) => self.open(),
            Some(Action::Close) => self.close(),
            None => {}
        }
    }

    fn open(&mut self) {
        self.close();
        self.opened += 1;
        tracing::info!(relay = %self.target.relay, tcp = %self.target.tcp, "no answer by UDP: trying TCP");
        let queue = Arc::new(Queue::new(QUEUE));
        let (target, sender, number) = (self.target.clone(), self.sender.clone(), self.rng.u64());
        let task = tokio::spawn(serve(target, queue.clone(), sender, number));
        self.stream = Some(Stream { number, queue, task, is_up: false });
    }

    fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.dropped += stream.queue.dropped();
        }
    }
}

/// The life of one stream.
async fn serve(target: Target, queue: Arc<Queue>, sender: mpsc::Sender<News>, stream: u64) {
    let relay = super::canonical(target.relay);
    let tell = async |what| sender.send(News { relay, stream, what }).await.is_ok();
    let opened = tokio::time::timeout(OPEN_WITHIN, open(&target)).await;
    let ended = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(open) => {
            if !tell(What::Up).await {
                return;
            }
            pump(open, &queue, |datagrams| tell(What::Datagrams(datagrams))).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tell(What::Down(error)).await;
    }
}

async fn open(target: &Target) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(target.tcp).await?;
    // Each record is a packet that somebody waits for.
    tcp.set_nodelay(true)?;
    let name = tls::server_name(&target.name, target.tcp.ip());
    tls::connector(target.pin)?.connect(name, tcp).await
}
