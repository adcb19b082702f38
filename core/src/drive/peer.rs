//! One peer's handle: wait for it, open and accept streams, requests and datagrams.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::requests::{IncomingRequest, Response};
use super::shared::{Inner, Shared};
use super::stream::Stream;
use super::wakers::Interest;
use crate::error::{Code, Failure, Misuse};
use crate::id::{PeerId, RequestId, StreamId};
use crate::lifecycle::State;
use crate::message::ServiceName;
use crate::node::PeerSnapshot;
use crate::request::Request;
use crate::tls::Credential;

/// A handle to one peer; clones refer to the same peer. It stays valid across reconnects. Dropping
/// it does not disconnect.
pub struct Peer {
    shared: Arc<Shared>,
    id: PeerId,
}

impl Clone for Peer {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.id)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.id).finish()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        let is_gone = inner.node.state(self.id).is_none();
        let Some(offers) = inner.offers.get_mut(&self.id) else { return };
        offers.handles -= 1;
        if offers.handles == 0 && is_gone {
            inner.offers.remove(&self.id);
        }
    }
}

impl Peer {
    pub(super) fn new(shared: Arc<Shared>, id: PeerId) -> Self {
        shared.lock().offers.entry(id).or_default().handles += 1;
        Self { shared, id }
    }

    /// Returns its id in this node.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// Returns its lifecycle state; disconnected once it is closed.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.lock().node.state(self.id).cloned().unwrap_or(State::Disconnected)
    }

    /// Returns all its statistics; `None` once it is closed.
    #[must_use]
    pub fn snapshot(&self) -> Option<PeerSnapshot> {
        self.shared.lock().node.peer_snapshot_at(self.id, self.shared.clock.now())
    }

    /// Returns its present address; `None` once it is closed.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.snapshot().map(|s| s.remote)
    }

    /// Returns the identity that its verified certificate proved; `None` until it was connected
    /// once, and once it is closed.
    #[must_use]
    pub fn credential(&self) -> Option<Credential> {
        self.snapshot().and_then(|s| s.credential)
    }

    /// Records that it has another certificate
    /// ([`Node::renew_credential`](crate::node::Node::renew_credential)), as PEM.
    ///
    /// # Errors
    /// The reason why that is not this peer's certificate.
    pub fn renew_credential(&self, pem: &[u8]) -> Result<(), Failure> {
        let wrong =
            |error: crate::tls::TlsError| Failure::new(Code::Misconfigured, error.to_string());
        let chain = crate::tls::certificates(pem).map_err(wrong)?;
        let mut inner = self.shared.lock();
        inner.node.renew_credential(self.id, chain, self.shared.clock.now())?;
        inner.settle();
        Ok(())
    }

    /// Returns the DNS names of its verified certificate.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.credential().map(|c| c.names).unwrap_or_default()
    }

    /// Waits until it is connected.
    ///
    /// # Errors
    /// The reason why it never will be: it failed, or was closed.
    pub async fn connected(&self) -> Result<(), Failure> {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            let verdict = match inner.node.state(self.id) {
                Some(State::Connected { .. }) => Some(Ok(())),
                Some(State::Failed { error, .. }) => Some(Err(error.clone())),
                Some(
                    State::Disconnected | State::Connecting { .. } | State::Reconnecting { .. },
                ) => None,
                None => Some(Err(closed_because(&inner, self.id))),
            };
            self.or_wait(&mut inner, verdict, Interest::State, cx)
        })
        .await
    }

    /// Waits until it is closed permanently, and returns the reason.
    pub async fn closed(&self) -> Failure {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            let verdict =
                inner.node.state(self.id).is_none().then(|| closed_because(&inner, self.id));
            self.or_wait(&mut inner, verdict, Interest::State, cx)
        })
        .await
    }

    /// Opens a stream to one of its services, and waits while the peer allows no more streams. The
    /// stream can be written to immediately, before the peer has accepted it.
    ///
    /// # Errors
    /// The reason why there is no stream: not connected, leaving, or closed.
    pub async fn open(&self, service: ServiceName) -> Result<Stream, Failure> {
        self.open_from(service, None).await
    }

    /// Opens a stream as [`Peer::open`] does, with a mark of what is forwarded, at most 128 bytes.
    ///
    /// # Errors
    /// As [`Peer::open`].
    pub async fn open_from(
        &self,
        service: ServiceName,
        origin: Option<String>,
    ) -> Result<Stream, Failure> {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            let opened = inner.node.open_from(self.id, service.clone(), origin.clone());
            let verdict = match opened {
                Ok(None) => None,
                Ok(Some(id)) => {
                    inner.settle();
                    Some(Ok(id))
                }
                Err(misuse) => {
                    // The peer may be dialled sooner because of it.
                    inner.wake_driver();
                    Some(Err(self.why(&inner, misuse)))
                }
            };
            self.or_wait(&mut inner, verdict, Interest::Open, cx)
        })
        .await
        .map(|id| Stream::new(self.shared.clone(), id))
    }

    /// Returns the next stream that the peer opened; `None` once it is closed.
    pub async fn accept_stream(&self) -> Option<IncomingStream> {
        let offer = poll_fn(|cx| {
            let mut inner = self.shared.lock();
            let verdict = match inner.offers.get_mut(&self.id) {
                Some(offers) if offers.closed.is_none() => offers.streams.pop_front().map(Some),
                Some(_) | None => Some(None),
            };
            self.or_wait(&mut inner, verdict, Interest::Stream, cx)
        })
        .await?;
        Some(IncomingStream { shared: self.shared.clone(), id: Some(offer.0), service: offer.1 })
    }

    /// Makes a request and waits until the first part of its answer has arrived. Without a
    /// connection it waits for one, within its deadline.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub async fn request(&self, request: Request) -> Result<Response, Failure> {
        let id = self.start_request(request)?;
        Response::begin(self.shared.clone(), id).await
    }

    fn start_request(&self, request: Request) -> Result<RequestId, Failure> {
        let mut inner = self.shared.lock();
        let now = self.shared.clock.now();
        let id = inner.node.request(self.id, request, now).map_err(|m| self.why(&inner, m))?;
        inner.settle();
        Ok(id)
    }

    /// Returns the next request the peer made; `None` once it is closed.
    pub async fn accept_request(&self) -> Option<IncomingRequest> {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            loop {
                let next = match inner.offers.get_mut(&self.id) {
                    Some(offers) if offers.closed.is_none() => offers.requests.pop_front(),
                    Some(_) | None => return Poll::Ready(None),
                };
                let Some(id) = next else { break };
                // The peer may have cancelled it meanwhile.
                if let Some(offer) = inner.node.offer(id) {
                    return Poll::Ready(Some(IncomingRequest::new(self.shared.clone(), id, offer)));
                }
            }
            inner.wakers.wait_peer(self.id, Interest::Request, cx);
            Poll::Pending
        })
        .await
    }

    /// Sends a datagram: it arrives once, or not at all.
    ///
    /// # Errors
    /// [`Misuse`] as in [`Node::send_datagram`](crate::node::Node::send_datagram).
    pub fn send_datagram(&self, data: &[u8]) -> Result<(), Misuse> {
        let mut inner = self.shared.lock();
        inner.node.send_datagram(self.id, data)?;
        inner.wake_driver();
        Ok(())
    }

    /// Returns the next datagram that it sent; `None` once it is closed.
    pub async fn recv_datagram(&self) -> Option<Bytes> {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            let verdict = match inner.node.recv_datagram(self.id) {
                Some(data) => Some(Some(data)),
                None if inner.node.state(self.id).is_none() => Some(None),
                None => None,
            };
            self.or_wait(&mut inner, verdict, Interest::Datagram, cx)
        })
        .await
    }

    /// Returns the size of the largest datagram that the path carries now; `None` without a
    /// connection.
    #[must_use]
    pub fn max_datagram(&self) -> Option<usize> {
        self.shared.lock().node.max_datagram(self.id)
    }

    /// Brings the next attempt to connect forward, since a caller waits for it
    /// ([`Node::dial_now`](crate::node::Node::dial_now)).
    pub fn dial_now(&self) {
        let mut inner = self.shared.lock();
        inner.node.dial_now(self.id, self.shared.clock.now());
        inner.wake_driver();
    }

    /// Dials a failed peer again.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] unless it had failed.
    pub fn reconnect(&self) -> Result<(), Misuse> {
        let mut inner = self.shared.lock();
        inner.node.reconnect(self.id, self.shared.clock.now())?;
        inner.settle();
        Ok(())
    }

    /// Closes it permanently; a second close has no effect.
    pub fn disconnect(&self) {
        let mut inner = self.shared.lock();
        // UnknownPeer: it is closed already, which was the intent.
        let _ = inner.node.disconnect(self.id, self.shared.clock.now());
        inner.settle();
    }

    fn or_wait<T>(
        &self,
        inner: &mut Inner,
        verdict: Option<T>,
        interest: Interest,
        cx: &Context<'_>,
    ) -> Poll<T>
    where
        T: OrOver,
    {
        if let Some(verdict) = verdict {
            return Poll::Ready(verdict);
        }
        if let Some(failure) = &inner.over {
            return Poll::Ready(T::over(failure));
        }
        inner.wakers.wait_peer(self.id, interest, cx);
        Poll::Pending
    }

    fn why(&self, inner: &Inner, misuse: Misuse) -> Failure {
        match misuse {
            Misuse::UnknownPeer => closed_because(inner, self.id),
            Misuse::ShuttingDown => Failure::new(Code::ShuttingDown, misuse.to_string()),
            Misuse::OverLimit => {
                Failure::new(Code::QueueFull, "the request queue is full, or the body is too large")
            }
            Misuse::NotConnected
            | Misuse::WrongState
            | Misuse::UnknownStream
            | Misuse::UnknownRequest
            | Misuse::NotListening
            | Misuse::UnusableIdentity
            | Misuse::NotDialling
            | Misuse::InvalidName
            | Misuse::InvalidAddress => {
                let last = inner.node.peer_snapshot(self.id).and_then(|s| s.last_failure);
                last.unwrap_or_else(|| Failure::new(Code::Unreachable, misuse.to_string()))
            }
        }
    }
}

/// The result of a wait when the driver has ended.
trait OrOver {
    fn over(failure: &Failure) -> Self;
}

impl<T> OrOver for Option<T> {
    fn over(_: &Failure) -> Self {
        None
    }
}

impl<T> OrOver for Result<T, Failure> {
    fn over(failure: &Failure) -> Self {
        Err(failure.clone())
    }
}

impl OrOver for Failure {
    fn over(failure: &Failure) -> Self {
        failure.clone()
    }
}

fn closed_because(inner: &Inner, id: PeerId) -> Failure {
    let closed = inner.offers.get(&id).and_then(|o| o.closed.clone());
    closed.unwrap_or_else(|| Failure::new(Code::Closed, "the peer is closed"))
}

/// A stream the peer opened, not accepted yet. Dropping it refuses it.
pub struct IncomingStream {
    shared: Arc<Shared>,
    id: Option<StreamId>,
    service: ServiceName,
}

impl fmt::Debug for IncomingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream").field("service", &self.service).finish_non_exhaustive()
    }
}

impl IncomingStream {
    /// Returns the service the peer asked for.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Returns the mark that the opener gave it.
    #[must_use]
    pub fn origin(&self) -> Option<String> {
        self.shared.lock().node.stream(self.id?).origin().map(str::to_owned)
    }

    /// Accepts it.
    #[must_use]
    pub fn accept(mut self) -> Stream {
        // Taken once: `accept`, `refuse` and `drop` exclude each other.
        let id = self.id.take().expect("an offer that was not answered yet");
        let mut inner = self.shared.lock();
        // UnknownStream: it no longer exists, and the stream reports that to its reader.
        let _ = inner.node.accept_stream(id);
        inner.settle();
        drop(inner);
        Stream::new(self.shared.clone(), id)
    }

    /// Refuses it, and sends the peer a reason.
    pub fn refuse(mut self, failure: &Failure) {
        self.answer_no(failure);
    }

    fn answer_no(&mut self, failure: &Failure) {
        let Some(id) = self.id.take() else { return };
        let mut inner = self.shared.lock();
        // UnknownStream: it no longer exists.
        let _ = inner.node.refuse_stream(id, failure);
        inner.settle();
    }
}

impl Drop for IncomingStream {
    fn drop(&mut self) {
        self.answer_no(&Failure::new(Code::Cancelled, "nobody accepted the stream"));
    }
}
