//! One byte stream with its TLS session: bytes in, datagrams out, and the reverse. It decides when
//! the stream is open and when it is dead; whose datagrams they are is decided elsewhere.
//!
//! ```text
//!  Connecting ──▶ Proxying ──▶ Handshaking ──▶ Open ──▶ Draining ──▶ Finished
//!         (client only)                        close()    the last record and close_notify are written
//! ```
//!
//! Every phase but Open ends at a fixed time; Open ends when the stream takes nothing for
//! [`STANDSTILL`], and at a listener also when the node authenticates nothing of it for a while.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use rustls::Connection;

use super::proxy::{ProxyFailure, ProxyHandshake};
use super::queue::RecordQueue;
use crate::datagram_framing::DatagramDecoder;

/// Plaintext read in one step: the most that one TLS record holds (RFC 8446 §5.1).
const CHUNK: usize = 16 * 1024;

/// How long a stream may take to take one burst: by then the connection inside has lost all that
/// was in the queue, and is near its end.
pub(super) const STANDSTILL: Duration = Duration::from_secs(30);

/// How long the other side may take to close a stream that this side has finished.
pub(super) const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// TCP is connecting.
    Connecting,
    /// A proxy was asked for a tunnel.
    Proxying,
    /// TLS is shaking hands.
    Handshaking,
    /// Records travel.
    Open,
    /// Nothing is added; what waits is written, then `close_notify`.
    Draining,
    /// All is written; the other side has yet to close.
    Finished,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the stream was closed")]
    Closed,
    #[error("the HTTP proxy {0}")]
    Proxy(#[from] ProxyFailure),
    #[error("TLS failed: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the handshake took too long")]
    TooSlow,
    #[error("the stream takes nothing any more")]
    Standstill,
    #[error("no authenticated packet came by it")]
    Disuse,
    #[error("it made room for others")]
    MadeRoom,
    #[error("{0}")]
    Failed(String),
}

/// When a stream of a client that is not known, or not heard any more, ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disuse {
    /// Without an authenticated packet since it opened.
    pub(super) first: Duration,
    /// After the last authenticated packet.
    pub(super) idle: Duration,
}

/// What is to be written to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamOutput {
    /// These bytes, or some of them.
    Bytes(Bytes),
    /// The end of this direction.
    Shutdown,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Session {
    tls: Connection,
    proxy: Option<ProxyHandshake>,
    decoder: DatagramDecoder,
    queue: RecordQueue,
    /// TLS bytes that the stream has yet to take.
    out: Bytes,
    phase: Phase,
    /// When the phase ends the stream.
    until: Option<Instant>,
    /// When the stream was first offered what is in `out`.
    burst: Option<Instant>,
    disuse: Option<Disuse>,
    /// When the node last authenticated what came by it, or the stream opened.
    last: Option<Instant>,
    is_used: bool,
    is_notified: bool,
}

impl Session {
    /// A stream that is still connecting, to a proxy where there is one; all before the first
    /// datagram has until then.
    pub(super) fn connecting(
        tls: Connection,
        proxy: Option<ProxyHandshake>,
        queue: usize,
        until: Instant,
    ) -> Self {
        Self { proxy, ..Self::new(tls, queue, until, Phase::Connecting, None) }
    }

    /// A stream that was accepted; TLS has until then.
    pub(super) fn accepted(tls: Connection, queue: usize, until: Instant, disuse: Disuse) -> Self {
        Self::new(tls, queue, until, Phase::Handshaking, Some(disuse))
    }

    fn new(
        mut tls: Connection,
        queue: usize,
        until: Instant,
        phase: Phase,
        disuse: Option<Disuse>,
    ) -> Self {
        // One burst is written at a time, and a burst may be one long record.
        tls.set_buffer_limit(None);
        Self {
            tls,
            proxy: None,
            decoder: DatagramDecoder::new(),
            queue: RecordQueue::new(queue),
            out: Bytes::new(),
            phase,
            until: Some(until),
            burst: None,
            disuse,
            last: None,
            is_used: false,
            is_notified: false,
        }
    }

    /// TCP is connected.
    pub(super) fn handle_connected(&mut self) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.phase = match &self.proxy {
            Some(proxy) => {
                self.out = proxy.request();
                Phase::Proxying
            }
            None => Phase::Handshaking,
        };
    }

    /// Takes bytes that were read, and appends the datagrams in them to `datagrams`. Returns
    /// whether the stream has opened by them.
    pub(super) fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        datagrams: &mut Vec<BytesMut>,
    ) -> Result<bool, Ended> {
        if let (Phase::Proxying, Some(proxy)) = (self.phase, &mut self.proxy) {
            let Some(count) = proxy.handle_bytes(bytes)? else { return Ok(false) };
            bytes = &bytes[count..];
            self.proxy = None;
            self.phase = Phase::Handshaking;
        }
        let mut buffer = [0; CHUNK];
        while !bytes.is_empty() {
            // Nothing is read behind a close_notify.
            if matches!(self.tls.read_tls(&mut bytes), Ok(0) | Err(_)) {
                return Err(Ended::Closed);
            }
            self.tls.process_new_packets()?;
            loop {
                match self.tls.reader().read(&mut buffer) {
                    Ok(0) => return Err(Ended::Closed),
                    Ok(count) => self.decode(&buffer[..count], datagrams),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return Err(Ended::Closed),
                }
            }
        }
        let is_opened = self.phase == Phase::Handshaking && !self.tls.is_handshaking();
        if is_opened {
            self.phase = Phase::Open;
            self.until = None;
            self.last = Some(now);
        }
        Ok(is_opened)
    }

    fn decode(&mut self, mut chunk: &[u8], datagrams: &mut Vec<BytesMut>) {
        while let Some(datagram) = self.decoder.poll_record(&mut chunk) {
            datagrams.push(datagram);
        }
    }

    /// Queues a batch of datagrams.
    pub(super) fn push_batch(&mut self, batch: &[u8], segment_size: Option<usize>) {
        match self.phase {
            Phase::Connecting | Phase::Proxying | Phase::Handshaking | Phase::Open => {
                self.queue.push_batch(batch, segment_size);
            }
            Phase::Draining | Phase::Finished => {}
        }
    }

    /// The node has authenticated what came by this stream.
    pub(super) const fn handle_authenticated(&mut self, now: Instant) {
        self.last = Some(now);
        self.is_used = true;
    }

    /// Ends the stream behind what is queued. Returns `false` for one that is not open: it has
    /// nothing to end, and is to be dropped.
    pub(super) fn close(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Proxying | Phase::Handshaking => false,
            Phase::Open => {
                self.phase = Phase::Draining;
                self.until = Some(now + STANDSTILL);
                true
            }
            Phase::Draining | Phase::Finished => true,
        }
    }

    /// Shortens what is left of the stream to [`CLOSING_TIMEOUT`].
    pub(super) fn shorten_closing(&mut self, now: Instant) {
        let end = now + CLOSING_TIMEOUT;
        self.until = Some(self.until.map_or(end, |until| until.min(end)));
    }

    /// Returns what is to be written now. The same is returned until it was written.
    pub(super) fn poll_output(&mut self, now: Instant) -> Result<Option<StreamOutput>, Ended> {
        if self.out.is_empty() {
            self.fill(now)?;
        }
        if !self.out.is_empty() {
            return Ok(Some(StreamOutput::Bytes(self.out.clone())));
        }
        Ok((self.phase == Phase::Draining).then_some(StreamOutput::Shutdown))
    }

    fn fill(&mut self, now: Instant) -> Result<(), Ended> {
        match self.phase {
            Phase::Connecting | Phase::Proxying | Phase::Finished => return Ok(()),
            Phase::Handshaking => {}
            Phase::Open | Phase::Draining => {
                if !self.tls.wants_write() {
                    let burst = self.queue.take_burst();
                    self.tls.writer().write_all(&burst).map_err(failed)?;
                }
                let is_last = self.phase == Phase::Draining && self.queue.is_empty();
                if is_last && !self.is_notified {
                    self.is_notified = true;
                    self.tls.send_close_notify();
                }
            }
        }
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).map_err(failed)?;
        }
        if !out.is_empty() {
            self.out = out.into();
            self.burst = Some(now);
        }
        Ok(())
    }

    /// The stream took so many bytes of what [`Session::poll_output`] returned.
    pub(super) fn handle_written(&mut self, count: usize) {
        self.out.advance(count.min(self.out.len()));
        if self.out.is_empty() {
            // The buffer may be as long as the longest record.
            self.out = Bytes::new();
            self.burst = None;
        }
    }

    /// This direction of the stream is shut down.
    pub(super) fn handle_shut_down(&mut self, now: Instant) {
        if self.phase == Phase::Draining {
            self.phase = Phase::Finished;
            let end = now + CLOSING_TIMEOUT;
            self.until = Some(self.until.map_or(end, |until| until.min(end)));
        }
    }

    /// Returns when [`Session::handle_timeout`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let standstill = self.burst.map(|at| at + STANDSTILL);
        [self.until, standstill, self.disused_at()].into_iter().flatten().min()
    }

    fn disused_at(&self) -> Option<Instant> {
        let disuse = self.disuse.filter(|_| self.phase == Phase::Open)?;
        self.last.map(|at| at + if self.is_used { disuse.idle } else { disuse.first })
    }

    /// Returns why the stream is over at `now`, if it is.
    pub(super) fn handle_timeout(&self, now: Instant) -> Option<Ended> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.burst.map(|at| at + STANDSTILL)) {
            return Some(Ended::Standstill);
        }
        if is_due(self.disused_at()) {
            return Some(Ended::Disuse);
        }
        is_due(self.until).then_some(match self.phase {
            Phase::Connecting | Phase::Proxying | Phase::Handshaking => Ended::TooSlow,
            Phase::Open | Phase::Draining => Ended::Standstill,
            Phase::Finished => Ended::Closed,
        })
    }

    /// Returns how many datagrams were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

fn failed(error: io::Error) -> Ended {
    Ended::Failed(error.to_string())
}

#[cfg(test)]
mod tests;
