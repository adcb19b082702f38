//! The two ends of a request: the answer as the requester reads it, and as the responder writes it.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::shared::Shared;
use crate::error::{Code, Failure, Misuse};
use crate::id::RequestId;
use crate::request::{Offer, Priority};

/// Most bytes that [`Response::collect`] gathers: 10 MiB.
const MAX_COLLECTED: usize = 10 << 20;

/// An answer as it arrives. Unfetched data holds the responder back. Dropping it cancels the
/// request.
pub struct Response {
    shared: Arc<Shared>,
    id: RequestId,
    first: Option<Bytes>,
    over: bool,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Response").field(&self.id).finish()
    }
}

impl Response {
    pub(super) async fn begin(shared: Arc<Shared>, id: RequestId) -> Result<Self, Failure> {
        let mut response = Self { shared, id, first: None, over: false };
        response.first = poll_fn(|cx| response.poll_node(cx)).await?;
        Ok(response)
    }

    /// Returns the next part of the answer; `None` is its end.
    ///
    /// # Errors
    /// The failure of the request; no further parts follow it.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Some(first)));
        }
        self.poll_node(cx)
    }

    /// Waits as [`Response::poll_next`] does.
    ///
    /// # Errors
    /// As [`Response::poll_next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns the whole answer.
    ///
    /// # Errors
    /// The failure of the request; [`Code::TooLarge`] above 10 MiB.
    pub async fn collect(mut self) -> Result<Bytes, Failure> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut all = BytesMut::from(&first[..]);
        let mut next = Some(second);
        while let Some(part) = next {
            if all.len() + part.len() > MAX_COLLECTED {
                return Err(Failure::new(Code::TooLarge, "the answer is over 10 MiB"));
            }
            all.extend_from_slice(&part);
            next = self.next().await?;
        }
        Ok(all.freeze())
    }

    fn poll_node(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if self.over {
            return Poll::Ready(Ok(None));
        }
        let mut inner = self.shared.lock();
        let polled = inner.node.response(self.id);
        inner.settle();
        match polled {
            Poll::Pending => {
                if let Some(failure) = &inner.over {
                    return Poll::Ready(Err(failure.clone()));
                }
                inner.wakers.wait_request(self.id, cx);
                Poll::Pending
            }
            Poll::Ready(result) => {
                self.over = !matches!(result, Ok(Some(_)));
                Poll::Ready(result)
            }
        }
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.wakers.forget_request(self.id);
        if !self.over {
            // UnknownRequest: it is over already.
            let _ = inner.node.cancel(self.id);
            inner.settle();
        }
    }
}

/// A request from a peer. Dropping it unanswered notifies the peer.
pub struct IncomingRequest {
    shared: Arc<Shared>,
    id: Option<RequestId>,
    offer: Offer,
}

impl fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingRequest")
            .field("bytes", &self.offer.body.len())
            .finish_non_exhaustive()
    }
}

impl IncomingRequest {
    pub(super) const fn new(shared: Arc<Shared>, id: RequestId, offer: Offer) -> Self {
        Self { shared, id: Some(id), offer }
    }

    /// Returns the content of the request.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.offer.body
    }

    /// Returns the requester's own id for it, for logs.
    #[must_use]
    pub fn correlation(&self) -> &str {
        &self.offer.correlation
    }

    /// Returns the urgency that the requester declares.
    #[must_use]
    pub const fn priority(&self) -> Priority {
        self.offer.priority
    }

    /// Returns how long the requester waits, measured from arrival.
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        self.offer.deadline
    }

    /// Answers it whole.
    ///
    /// # Errors
    /// [`Misuse::UnknownRequest`] when the peer has cancelled it, [`Misuse::OverLimit`] above 10
    /// MiB.
    pub fn respond(mut self, body: impl Into<Bytes>) -> Result<(), Misuse> {
        let id = self.id.take().ok_or(Misuse::UnknownRequest)?;
        let mut inner = self.shared.lock();
        let result = inner.node.respond(id, body.into());
        if result == Err(Misuse::OverLimit) {
            let failure = Failure::new(Code::TooLarge, "the answer is over 10 MiB");
            inner.node.fail(id, &failure)?;
        }
        inner.settle();
        result
    }

    /// Answers it with a failure.
    ///
    /// # Errors
    /// [`Misuse::UnknownRequest`] when the peer has cancelled it.
    pub fn fail(mut self, failure: &Failure) -> Result<(), Misuse> {
        let id = self.id.take().ok_or(Misuse::UnknownRequest)?;
        let mut inner = self.shared.lock();
        let result = inner.node.fail(id, failure);
        inner.settle();
        result
    }

    /// Answers it in parts.
    #[must_use]
    pub fn stream(mut self) -> Responder {
        Responder { shared: self.shared.clone(), id: self.id.take() }
    }
}

impl Drop for IncomingRequest {
    fn drop(&mut self) {
        abandon(&self.shared, self.id.take());
    }
}

/// An answer given in parts. Dropping it unfinished notifies the peer.
pub struct Responder {
    shared: Arc<Shared>,
    id: Option<RequestId>,
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Responder").field(&self.id).finish()
    }
}

impl Responder {
    /// Adds a part, waiting while the peer does not read.
    ///
    /// # Errors
    /// Why the peer does not take it: it cancelled the request, or is closed.
    pub async fn send(&mut self, body: impl Into<Bytes>) -> Result<(), Failure> {
        let body = body.into();
        poll_fn(|cx| self.poll_part(cx, &body, false)).await
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// As [`Responder::send`].
    pub async fn finish(mut self) -> Result<(), Failure> {
        let result = poll_fn(|cx| self.poll_part(cx, &Bytes::new(), true)).await;
        self.id = None;
        result
    }

    fn poll_part(
        &self,
        cx: &Context<'_>,
        body: &Bytes,
        is_final: bool,
    ) -> Poll<Result<(), Failure>> {
        let gone = || Failure::new(Code::Cancelled, "the requester gave the request up");
        let Some(id) = self.id else { return Poll::Ready(Err(gone())) };
        let mut inner = self.shared.lock();
        match inner.node.respond_chunk(id, body.clone(), is_final) {
            Poll::Ready(Ok(())) => {
                inner.settle();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(Misuse::OverLimit)) => {
                Poll::Ready(Err(Failure::new(Code::TooLarge, "a part is over 10 MiB")))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(gone())),
            Poll::Pending => {
                if let Some(failure) = &inner.over {
                    return Poll::Ready(Err(failure.clone()));
                }
                inner.wakers.wait_request(id, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        abandon(&self.shared, self.id.take());
    }
}

fn abandon(shared: &Shared, id: Option<RequestId>) {
    let Some(id) = id else { return };
    let mut inner = shared.lock();
    inner.wakers.forget_request(id);
    // UnknownRequest: the peer cancelled it first.
    let _ = inner.node.cancel(id);
    inner.settle();
}
