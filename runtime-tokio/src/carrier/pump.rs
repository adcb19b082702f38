//! One open stream: records in, records out, until either side ends or stands still. It decides when
//! a stream is dead; whom its datagrams are for is its caller's business.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::time::Duration;

use adit_core::datagram_framing::Decoder;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep_until, timeout};

use super::queue::Queue;

/// Bytes read at once: the most that one TLS record holds (RFC 8446 §5.1).
const CHUNK: usize = 16 * 1024;

/// How long a stream may take none of what it is given: by then the connection inside has lost all
/// that was in the queue, and is near its end.
const STANDSTILL: Duration = Duration::from_secs(30);

/// How long a stream that is not needed any more may take for what is left, a goodbye perhaps.
const FAREWELL: Duration = Duration::from_secs(2);

/// Carries until the stream ends, which is an error, or the queue does.
///
/// `sink` takes the datagrams of one read; while it waits, nothing is read, and TCP slows its sender
/// down. Once it says that nobody takes any, reading stops and the queue alone decides.
pub(super) async fn pump<S, F>(
    stream: S,
    queue: &Queue,
    sink: impl Fn(Vec<BytesMut>) -> F,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
    F: Future<Output = bool>,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = async {
        let (mut decoder, mut buffer) = (Decoder::new(), vec![0; CHUNK]);
        loop {
            let count = read.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the stream was closed"));
            }
            let (mut chunk, mut datagrams) = (&buffer[..count], Vec::new());
            while let Some(datagram) = decoder.poll_record(&mut chunk) {
                datagrams.push(datagram);
            }
            if !datagrams.is_empty() && !sink(datagrams).await {
                return std::future::pending().await;
            }
        }
    };
    let writing = async {
        let mut out = Vec::new();
        while poll_fn(|cx| queue.poll_take(cx, &mut out)).await {
            let written = async {
                write.write_all(&out).await?;
                write.flush().await
            };
            timeout(STANDSTILL, written).await.map_err(|_| standstill())??;
            out.clear();
        }
        timeout(FAREWELL, write.shutdown()).await.map_err(|_| standstill())?
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

/// Completes once nothing was put into a queue for `first` since it was made, or for `idle` since
/// the last time: the node has nothing to say to whoever is there.
pub(super) async fn disuse(queue: &Queue, first: Duration, idle: Duration) {
    loop {
        let (last, is_used) = queue.last();
        let end = last + if is_used { idle } else { first };
        sleep_until(end).await;
        if queue.last() == (last, is_used) {
            return;
        }
    }
}

fn standstill() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the stream takes nothing any more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn records_go_both_ways_until_the_other_side_closes() {
        let (near, mut far) = tokio::io::duplex(64);
        let (queue, found) = (Queue::new(1_000), Mutex::new(Vec::new()));
        queue.push_batch(b"to the other side", None);
        let sink = |datagrams: Vec<BytesMut>| {
            found.lock().unwrap().extend(datagrams);
            std::future::ready(true)
        };
        let other = async {
            let mut record = [0; 19];
            far.read_exact(&mut record).await.unwrap();
            assert_eq!(&record[2..], b"to the other side");
            far.write_all(b"\0\x04from\0\x02it\0\x09cut").await.unwrap();
            drop(far);
        };
        let (ended, ()) = tokio::join!(pump(near, &queue, sink), other);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(*found.lock().unwrap(), [&b"from"[..], b"it"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(8);
        let queue = Queue::new(1_000);
        queue.push_batch(&[1; 100], None);
        let ended = pump(near, &queue, |_| std::future::ready(true));
        let ended = timeout(STANDSTILL + SECOND, ended).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_finished_queue_ends_the_stream_behind_its_last_record() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let queue = Queue::new(1_000);
        queue.push_batch(b"bye", None);
        queue.finish();
        pump(near, &queue, |_| std::future::ready(true)).await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\0\x03bye");
    }

    #[tokio::test(start_paused = true)]
    async fn disuse_is_short_for_who_was_never_answered_and_longer_afterwards() {
        let (queue, start) = (Queue::new(1_000), tokio::time::Instant::now());
        disuse(&queue, SECOND, 60 * SECOND).await;
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.push_batch(b"an answer", None);
        disuse(&queue, SECOND, 60 * SECOND).await;
        assert_eq!(start.elapsed().as_secs(), 61);
    }
}
