//! Traffic through a lab, checked byte by byte, and its longest stalls.
//!
//! It decides which data is written and when, and which data the reader must therefore see. It
//! never decides whether a loss or a pause is a failure: tests do, by the figures here.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Lab;
use crate::event::Event;
use crate::id::{PeerId, StreamId};
use crate::node::StreamError;
use crate::testing::net::HostId;
use crate::testing::pair::pattern;

/// Bytes of a datagram's head: the flow's number and the datagram's.
pub const DATAGRAM_HEAD: usize = 12;

/// A transfer of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferId(usize);

/// A flow of datagrams of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramsId(usize);

/// One direction of a stream that carries a pattern.
#[derive(Debug)]
pub struct Transfer {
    number: u64,
    writer: (HostId, StreamId),
    reader: (HostId, StreamId),
    length: u64,
    written: u64,
    read: u64,
    has_finished: bool,
    began: Instant,
    progressed: Instant,
    ended: Option<Instant>,
    stall: Duration,
    broken: Option<StreamError>,
}

impl Transfer {
    /// Returns true if the reader has everything and the end.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.ended.is_some()
    }

    /// Returns why it will never be complete.
    #[must_use]
    pub const fn broken(&self) -> Option<&StreamError> {
        self.broken.as_ref()
    }

    /// Returns how many bytes were read and are correct.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// Returns the longest time in which the reader received no data, from the beginning to the end
    /// or to `now`.
    #[must_use]
    pub fn longest_stall(&self, now: Instant) -> Duration {
        let until = self.ended.unwrap_or(now);
        self.stall.max(until.saturating_duration_since(self.progressed))
    }

    /// Returns how long it took, once it is complete.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.ended.map(|at| at.saturating_duration_since(self.began))
    }

    fn advance(&mut self, lab: &mut Lab) {
        if self.is_complete() || self.broken.is_some() {
            return;
        }
        if let Err(error) = self.write(lab).and_then(|()| self.take(lab)) {
            self.broken = Some(error);
        }
    }

    fn write(&mut self, lab: &mut Lab) -> Result<(), StreamError> {
        let Some(node) = lab.running(self.writer.0) else { return Ok(()) };
        while self.written < self.length {
            let length = (self.length - self.written).min(64 << 10);
            let mut chunk = self.content(self.written, length);
            match node.stream(self.writer.1).write(&mut chunk) {
                Poll::Ready(taken) => self.written += taken? as u64,
                Poll::Pending => return Ok(()),
            }
        }
        if !self.has_finished {
            node.stream(self.writer.1).finish()?;
            self.has_finished = true;
        }
        Ok(())
    }

    fn take(&mut self, lab: &mut Lab) -> Result<(), StreamError> {
        let now = lab.now();
        let Some(node) = lab.running(self.reader.0) else { return Ok(()) };
        while let Poll::Ready(read) = node.stream(self.reader.1).read(64 << 10) {
            let Some(bytes) = read? else {
                assert_eq!(self.read, self.length, "the end came early");
                self.progress(now);
                self.ended = Some(now);
                return Ok(());
            };
            let expected = self.content(self.read, bytes.len() as u64);
            assert!(bytes == expected, "wrong bytes at {}", self.read);
            self.read += bytes.len() as u64;
            self.progress(now);
        }
        Ok(())
    }

    fn progress(&mut self, now: Instant) {
        self.stall = self.stall.max(now.saturating_duration_since(self.progressed));
        self.progressed = now;
    }

    /// Returns the content; other transfers have a different one.
    fn content(&self, offset: u64, length: u64) -> Bytes {
        pattern(offset + 1_013 * self.number, length)
    }
}

/// Numbered datagrams at a steady pace.
#[derive(Debug)]
pub struct Datagrams {
    number: u32,
    from: (HostId, PeerId),
    length: usize,
    every: Duration,
    next: Option<Instant>,
    arrived: BTreeSet<u64>,
    last_arrival: Option<Instant>,
    /// Given to the node and taken by it.
    pub sent: u64,
    /// Not taken: there was no connection, or no room.
    pub refused: u64,
    /// Arrived, each counted once.
    pub received: u64,
    /// Arrived once more.
    pub duplicated: u64,
    /// Arrived after one that had been sent later.
    pub reordered: u64,
    /// The longest time between two arrivals.
    pub longest_silence: Duration,
    /// The same since [`Lab::take_silence`], which may have been within it.
    silence: Duration,
}

impl Datagrams {
    /// Returns how many that were sent have not arrived.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.sent - self.received
    }

    fn send_due(&mut self, lab: &mut Lab) {
        while let Some(at) = self.next.filter(|&at| at <= lab.now()) {
            self.next = Some(at + self.every);
            let mut data = vec![0; self.length];
            data[..4].copy_from_slice(&self.number.to_be_bytes());
            data[4..DATAGRAM_HEAD].copy_from_slice(&self.sent.to_be_bytes());
            let node = lab.running(self.from.0);
            match node.map(|node| node.send_datagram(self.from.1, &data)) {
                Some(Ok(())) => self.sent += 1,
                Some(Err(_)) | None => self.refused += 1,
            }
        }
    }

    fn on_arrival(&mut self, number: u64, length: usize, now: Instant) {
        assert_eq!(length, self.length, "a datagram arrives whole");
        assert!(number < self.sent, "it was never sent");
        if let Some(before) = self.last_arrival.replace(now) {
            let silence = now.saturating_duration_since(before);
            self.longest_silence = self.longest_silence.max(silence);
            self.silence = self.silence.max(silence);
        }
        if self.arrived.last().is_some_and(|&last| number < last) {
            self.reordered += 1;
        }
        if self.arrived.insert(number) {
            self.received += 1;
        } else {
            self.duplicated += 1;
        }
    }
}

/// All loads of a lab.
#[derive(Debug, Default)]
pub(super) struct Loads {
    transfers: Vec<Transfer>,
    datagrams: Vec<Datagrams>,
    /// How much of each host's log was looked at.
    looked_at: BTreeMap<HostId, usize>,
}

impl Loads {
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.datagrams.iter().filter_map(|flow| flow.next).min()
    }

    pub(super) fn advance(&mut self, lab: &mut Lab) {
        self.transfers.iter_mut().for_each(|transfer| transfer.advance(lab));
        self.datagrams.iter_mut().for_each(|flow| flow.send_due(lab));
        if !self.datagrams.is_empty() {
            lab.hosts().for_each(|host| self.fetch(host, lab));
        }
    }

    /// Fetches the data that a host's node reports as received.
    fn fetch(&mut self, host: HostId, lab: &mut Lab) {
        let looked_at = self.looked_at.entry(host).or_default();
        let news = &lab.log(host)[*looked_at..];
        *looked_at += news.len();
        let peers: BTreeSet<PeerId> = news
            .iter()
            .filter_map(|(_, event)| {
                let Event::DatagramReceived { peer } = event else { return None };
                Some(*peer)
            })
            .collect();
        let now = lab.now();
        for peer in peers {
            let Some(node) = lab.running(host) else { return };
            while let Some(data) = node.recv_datagram(peer) {
                let (flow, number) = data[..DATAGRAM_HEAD].split_at(4);
                let flow = u32::from_be_bytes(flow.try_into().expect("four bytes"));
                let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
                self.datagrams[flow as usize].on_arrival(number, data.len(), now);
            }
        }
    }
}

impl Lab {
    /// Opens a stream from `from` to `to`, which is its peer, and lets `from` write `length` bytes.
    ///
    /// # Panics
    /// If no stream can be opened within a minute; and later, as soon as a byte is wrong.
    pub fn start_upload(&mut self, from: (HostId, PeerId), to: HostId, length: u64) -> TransferId {
        let (ours, theirs) = self.open(from, to);
        self.add_transfer((from.0, ours), (to, theirs), length)
    }

    /// Returns the same with `to` writing.
    ///
    /// # Panics
    /// As [`Lab::start_upload`].
    pub fn start_download(
        &mut self,
        from: (HostId, PeerId),
        to: HostId,
        length: u64,
    ) -> TransferId {
        let (ours, theirs) = self.open(from, to);
        self.add_transfer((to, theirs), (from.0, ours), length)
    }

    fn add_transfer(
        &mut self,
        writer: (HostId, StreamId),
        reader: (HostId, StreamId),
        length: u64,
    ) -> TransferId {
        let id = TransferId(self.loads.transfers.len());
        self.loads.transfers.push(Transfer {
            number: id.0 as u64,
            writer,
            reader,
            length,
            written: 0,
            read: 0,
            has_finished: false,
            began: self.now,
            progressed: self.now,
            ended: None,
            stall: Duration::ZERO,
            broken: None,
        });
        id
    }

    /// Returns the progress of a transfer.
    #[must_use]
    pub fn transfer(&self, id: TransferId) -> &Transfer {
        &self.loads.transfers[id.0]
    }

    /// Lets a host send `per_second` datagrams of `length` bytes a second to a peer, from now on.
    ///
    /// # Panics
    /// If the length is below [`DATAGRAM_HEAD`] or the rate is zero.
    pub fn start_datagrams(
        &mut self,
        from: (HostId, PeerId),
        per_second: u32,
        length: usize,
    ) -> DatagramsId {
        assert!(length >= DATAGRAM_HEAD, "a datagram has a head");
        let id = DatagramsId(self.loads.datagrams.len());
        self.loads.datagrams.push(Datagrams {
            number: id.0 as u32,
            from,
            length,
            every: Duration::from_secs(1) / per_second,
            next: Some(self.now),
            arrived: BTreeSet::new(),
            last_arrival: None,
            sent: 0,
            refused: 0,
            received: 0,
            duplicated: 0,
            reordered: 0,
            longest_silence: Duration::ZERO,
            silence: Duration::ZERO,
        });
        id
    }

    /// Returns the longest time without an arrival that ended since the last call, or has not
    /// ended.
    pub fn take_silence(&mut self, id: DatagramsId) -> Duration {
        let flow = &mut self.loads.datagrams[id.0];
        let lasting = flow.last_arrival.map(|last| self.now.saturating_duration_since(last));
        std::mem::take(&mut flow.silence).max(lasting.unwrap_or_default())
    }

    /// Ends a flow of datagrams; those in transit still arrive.
    pub fn stop_datagrams(&mut self, id: DatagramsId) {
        self.loads.datagrams[id.0].next = None;
    }

    /// Returns the progress of a flow of datagrams.
    #[must_use]
    pub fn datagrams(&self, id: DatagramsId) -> &Datagrams {
        &self.loads.datagrams[id.0]
    }
}
