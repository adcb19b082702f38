//! What waits for one stream, between a node that never waits and a stream that may: records, the
//! oldest of which go when there are too many. It decides that alone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use adit_core::datagram_framing::{self, HEADER_LEN};
use tokio::time::Instant;

/// Bytes handed to a stream at once: the most that one TLS record holds (RFC 8446 §5.1). What has
/// been handed over cannot be dropped any more, so that it is not a lot.
const BURST: usize = 16 * 1024;

/// Records on their way into one stream.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Whole records, back to back.
    bytes: VecDeque<u8>,
    dropped: u64,
    /// When the last record came in, or the queue was made.
    last: Instant,
    /// There was a record at all.
    is_used: bool,
    is_finished: bool,
    waker: Option<Waker>,
}

impl Queue {
    /// An empty one of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let inner = Inner {
            bytes: VecDeque::new(),
            dropped: 0,
            last: Instant::now(),
            is_used: false,
            is_finished: false,
            waker: None,
        };
        Self { limit, inner: Mutex::new(inner) }
    }

    /// Adds each datagram of a batch, the last of which may be shorter.
    pub(super) fn push_batch(&self, batch: &[u8], segment_size: Option<usize>) {
        let size = segment_size.unwrap_or(batch.len()).max(1);
        let mut inner = self.lock();
        for datagram in batch.chunks(size) {
            inner.push(datagram, self.limit);
        }
        inner.wake();
    }

    /// Nothing more comes; the stream ends once it has taken what is there.
    pub(super) fn finish(&self) {
        let mut inner = self.lock();
        inner.is_finished = true;
        inner.wake();
    }

    /// How many datagrams were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// When the last record came in, if any did.
    pub(super) fn last(&self) -> (Instant, bool) {
        let inner = self.lock();
        (inner.last, inner.is_used)
    }

    /// Moves some records to `out`; `false` once there will be none.
    pub(super) fn poll_take(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Poll<bool> {
        let mut inner = self.lock();
        while let Some(length) = inner.first() {
            if !out.is_empty() && out.len() + length > BURST {
                break;
            }
            out.extend(inner.bytes.drain(..length));
        }
        if !out.is_empty() {
            return Poll::Ready(true);
        }
        // A queue that was long once does not stay so.
        inner.bytes.shrink_to(BURST);
        if inner.is_finished {
            return Poll::Ready(false);
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, datagram: &[u8], limit: usize) {
        let length = HEADER_LEN + datagram.len();
        while self.bytes.len() + length > limit {
            let Some(first) = self.first() else { break };
            self.bytes.drain(..first);
            self.dropped += 1;
        }
        let mut header = [0; HEADER_LEN];
        if length > limit || self.is_finished {
            self.dropped += 1;
        } else if datagram_framing::header(datagram.len()).map(|it| header = it).is_ok() {
            self.bytes.extend(header);
            self.bytes.extend(datagram);
            self.last = Instant::now();
            self.is_used = true;
        }
    }

    /// Bytes of the oldest record.
    fn first(&self) -> Option<usize> {
        let (high, low) = (*self.bytes.front()?, *self.bytes.get(1)?);
        Some(HEADER_LEN + usize::from(u16::from_be_bytes([high, low])))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &Queue) -> Poll<(bool, Vec<u8>)> {
        let mut out = Vec::new();
        let taken = queue.poll_take(&Context::from_waker(Waker::noop()), &mut out);
        taken.map(|is_more| (is_more, out))
    }

    #[tokio::test]
    async fn a_batch_becomes_records_and_its_last_may_be_shorter() {
        let queue = Queue::new(100);
        queue.push_batch(b"aabbc", Some(2));
        queue.push_batch(b"whole", None);
        let wire = b"\0\x02aa\0\x02bb\0\x01c\0\x05whole";
        assert_eq!(take(&queue), Poll::Ready((true, wire.to_vec())));
        assert!(take(&queue).is_pending());
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest_and_counts_it() {
        let queue = Queue::new(12);
        for datagram in [b"1111", b"2222"] {
            queue.push_batch(datagram, None);
        }
        assert_eq!(queue.dropped(), 0, "exactly full");
        queue.push_batch(b"3", None);
        assert_eq!(queue.dropped(), 1);
        assert_eq!(take(&queue), Poll::Ready((true, b"\0\x042222\0\x013".to_vec())));
    }

    #[tokio::test]
    async fn what_can_never_fit_is_dropped_alone() {
        let queue = Queue::new(12);
        queue.push_batch(&[1; 11], None);
        assert_eq!(queue.dropped(), 1);
        queue.push_batch(&[1; 10], None);
        assert_eq!((queue.dropped(), take(&queue).is_ready()), (1, true));
        let roomy = Queue::new(1 << 20);
        roomy.push_batch(&[1; datagram_framing::MAX_LEN + 1], None);
        assert!(take(&roomy).is_pending(), "nothing that is no record");
    }

    #[tokio::test]
    async fn a_burst_is_bounded_and_whole() {
        let queue = Queue::new(1 << 20);
        queue.push_batch(&[7; 40 * 1_200], Some(1_200));
        let mut lengths = Vec::new();
        while let Poll::Ready((true, out)) = take(&queue) {
            lengths.push(out.len());
        }
        assert_eq!(lengths, [13 * 1_202, 13 * 1_202, 13 * 1_202, 1_202]);
        queue.push_batch(&[7; 60_000], None);
        assert_eq!(take(&queue), Poll::Ready((true, [&[0xea, 0x60][..], &[7; 60_000]].concat())));
    }

    #[tokio::test]
    async fn a_finished_queue_gives_what_it_has_and_takes_no_more() {
        let queue = Queue::new(100);
        queue.push_batch(b"last", None);
        queue.finish();
        queue.push_batch(b"late", None);
        assert_eq!(take(&queue), Poll::Ready((true, b"\0\x04last".to_vec())));
        assert_eq!(take(&queue), Poll::Ready((false, Vec::new())));
    }
}
