//! Datagrams that wait for one byte stream, as records. It decides which are dropped when there are
//! too many: the oldest. It never waits and holds no time.

use std::collections::VecDeque;

use crate::datagram_framing::{self, HEADER_LEN};

/// Bytes handed to a stream in one burst: the most that one TLS record holds (RFC 8446 §5.1). What
/// was handed over cannot be dropped any more, so it is kept small.
const BURST: usize = 16 * 1024;

/// A bounded queue of records.
#[derive(Debug)]
pub(super) struct RecordQueue {
    limit: usize,
    /// Whole records, back to back.
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl RecordQueue {
    /// Returns an empty queue of at most `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, bytes: VecDeque::new(), dropped: 0 }
    }

    /// Adds each datagram of a batch, the last of which may be shorter. Returns whether any was
    /// taken.
    pub(super) fn push_batch(&mut self, batch: &[u8], segment_size: Option<usize>) -> bool {
        let size = segment_size.unwrap_or(batch.len()).max(1);
        let mut is_any = false;
        for datagram in batch.chunks(size) {
            is_any |= self.push(datagram);
        }
        is_any
    }

    fn push(&mut self, datagram: &[u8]) -> bool {
        let length = HEADER_LEN.saturating_add(datagram.len());
        while self.bytes.len().saturating_add(length) > self.limit {
            let Some(first) = self.first() else { break };
            self.bytes.drain(..first);
            self.dropped += 1;
        }
        if length > self.limit {
            self.dropped += 1;
            return false;
        }
        let Ok(header) = datagram_framing::header(datagram.len()) else { return false };
        self.bytes.extend(header);
        self.bytes.extend(datagram);
        true
    }

    /// Takes whole records for one burst, at least one if there is any.
    pub(super) fn take_burst(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(length) = self.first() {
            if !out.is_empty() && out.len() + length > BURST {
                break;
            }
            out.extend(self.bytes.drain(..length));
        }
        // A queue that was long once does not keep the memory.
        if out.is_empty() {
            self.bytes.shrink_to(BURST);
        }
        out
    }

    /// Returns whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns how many datagrams were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the length of the oldest record.
    fn first(&self) -> Option<usize> {
        let (high, low) = (*self.bytes.front()?, *self.bytes.get(1)?);
        Some(HEADER_LEN + usize::from(u16::from_be_bytes([high, low])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_becomes_records_and_its_last_may_be_shorter() {
        let mut queue = RecordQueue::new(100);
        assert!(queue.push_batch(b"aabbc", Some(2)));
        assert!(queue.push_batch(b"whole", None));
        assert_eq!(queue.take_burst(), b"\0\x02aa\0\x02bb\0\x01c\0\x05whole");
        assert!(queue.is_empty() && queue.take_burst().is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let mut queue = RecordQueue::new(12);
        for datagram in [b"1111", b"2222"] {
            queue.push_batch(datagram, None);
        }
        assert_eq!(queue.dropped(), 0, "exactly full");
        queue.push_batch(b"3", None);
        assert_eq!(queue.dropped(), 1);
        assert_eq!(queue.take_burst(), b"\0\x042222\0\x013");
    }

    #[test]
    fn what_can_never_fit_is_dropped_alone() {
        let mut queue = RecordQueue::new(12);
        assert!(!queue.push_batch(&[1; 11], None));
        assert_eq!(queue.dropped(), 1);
        queue.push_batch(&[1; 10], None);
        assert_eq!((queue.dropped(), queue.take_burst().len()), (1, 12));
        let mut roomy = RecordQueue::new(1 << 20);
        assert!(!roomy.push_batch(&[1; datagram_framing::MAX_LEN + 1], None));
        assert!(roomy.is_empty(), "nothing that is no record");
    }

    #[test]
    fn a_burst_is_bounded_and_whole() {
        let mut queue = RecordQueue::new(1 << 20);
        queue.push_batch(&[7; 40 * 1_200], Some(1_200));
        let mut lengths = Vec::new();
        while !queue.is_empty() {
            lengths.push(queue.take_burst().len());
        }
        assert_eq!(lengths, [13 * 1_202, 13 * 1_202, 13 * 1_202, 1_202]);
        queue.push_batch(&[7; 60_000], None);
        assert_eq!(queue.take_burst(), [&[0xea, 0x60][..], &[7; 60_000]].concat());
    }
}
