//! Real TCP on loopback against a stream made of two bounded queues.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

#[cfg(unix)]
mod unix;

const TEST_LIMIT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);
const ROOM: usize = 64 * 1024;

/// One direction of a stream that holds at most [`ROOM`] bytes.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    passed: usize,
    ended: bool,
    failure: Option<StreamError>,
    reset: Option<Code>,
    stopped: Option<Code>,
    wakers: Vec<Waker>,
}

impl Queue {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        let result = change(&mut state);
        state.wakers.drain(..).for_each(Waker::wake);
        result
    }

    /// Sends bytes as the far end of the stream would.
    async fn give(&mut self, bytes: impl Into<Bytes>) {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_give(cx, &mut bytes)).await.unwrap();
        }
    }

    /// Reads everything until the end, as the far end of the stream would.
    async fn take_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = poll_fn(|cx| self.poll_take(cx, usize::MAX)).await.unwrap() {
            all.extend_from_slice(&piece);
        }
        all
    }
}

impl ByteSink for Queue {
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        let mut state = self.0.lock().unwrap();
        let count = chunk.len().min(ROOM - state.bytes);
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if count == 0 {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.bytes += count;
        state.passed += count;
        state.pieces.push_back(chunk.split_to(count));
        state.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) -> Result<(), StreamError> {
        self.with(|state| state.ended = true);
        Ok(())
    }

    fn reset(&mut self, code: Code) {
        self.with(|state| state.reset = Some(code));
    }

    fn reset_at_end(&mut self, code: Code) {
        self.reset(code);
    }

    fn poll_delivered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.pieces.is_empty() {
            return Poll::Ready(());
        }
        state.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

impl ByteSource for Queue {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut state = self.0.lock().unwrap();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let Some(mut piece) = state.pieces.pop_front() else {
            if state.ended {
                return Poll::Ready(Ok(None));
            }
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        };
        let taken = piece.split_to(piece.len().min(max));
        if !piece.is_empty() {
            state.pieces.push_front(piece);
        }
        state.bytes -= taken.len();
        state.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(Some(taken)))
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let mut state = self.0.lock().unwrap();
        match &state.failure {
            Some(failure) => Poll::Ready(failure.clone()),
            None => {
                state.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn stop(&mut self, code: Code) {
        self.with(|state| state.stopped = Some(code));
    }
}

type Flow = JoinHandle<(Totals, Result<(), Broken>)>;

/// Returns a client, what it sends, what is sent to it, and the flow between.
async fn flow(half_open: Duration) -> (TcpStream, Queue, Queue, Flow) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let (sent, received) = (Queue::default(), Queue::default());
    let flow = tokio::spawn(both_ways(tcp, sent.clone(), received.clone(), half_open));
    (client, sent, received, flow)
}

/// Waits until an unread queue has passed as much as it holds.
async fn until_full(sent: &Queue) {
    let full = async {
        while sent.with(|state| state.passed) < ROOM {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TEST_LIMIT, full).await.expect("the queue fills");
    assert_eq!(sent.with(|state| state.passed), ROOM);
}

async fn end(flow: Flow) -> (Totals, Result<(), Broken>) {
    timeout(TEST_LIMIT, flow).await.expect("the flow ends").unwrap()
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answer() {
    let (mut client, mut sent, mut received, flow) = flow(LONG).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(timeout(TEST_LIMIT, sent.take_all()).await.unwrap(), b"question");
    received.give("answer").await;
    received.finish().unwrap();
    let mut answer = Vec::new();
    timeout(TEST_LIMIT, client.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"answer");
    let (totals, result) = end(flow).await;
    assert!(result.is_ok());
    assert_eq!(totals, Totals { sent: 8, received: 6 });
}

#[tokio::test]
async fn a_half_closed_service_still_receives() {
    let (mut client, mut sent, mut received, flow) = flow(LONG).await;
    received.finish().unwrap();
    let mut nothing = Vec::new();
    timeout(TEST_LIMIT, client.read_to_end(&mut nothing)).await.unwrap().unwrap();
    client.write_all(b"later").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(timeout(TEST_LIMIT, sent.take_all()).await.unwrap(), b"later");
    assert!(end(flow).await.1.is_ok());
}

#[tokio::test]
async fn many_small_pieces_arrive_whole_and_in_order() {
    let (mut client, _sent, mut received, flow) = flow(LONG).await;
    let expected: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    let given = expected.clone();
    tokio::spawn(async move {
        for piece in given.chunks(137) {
            received.give(piece.to_vec()).await;
        }
        received.finish().unwrap();
    });
    client.shutdown().await.unwrap();
    let mut arrived = Vec::new();
    timeout(TEST_LIMIT, client.read_to_end(&mut arrived)).await.unwrap().unwrap();
    assert!(arrived == expected);
    assert!(end(flow).await.1.is_ok());
}

#[tokio::test]
async fn a_large_upload_arrives_whole() {
    let (mut client, mut sent, mut received, flow) = flow(LONG).await;
    received.finish().unwrap();
    let expected: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let given = expected.clone();
    tokio::spawn(async move {
        client.write_all(&given).await.unwrap();
        client.shutdown().await.unwrap();
    });
    assert!(timeout(TEST_LIMIT, sent.take_all()).await.unwrap() == expected);
    assert!(end(flow).await.1.is_ok());
}

#[tokio::test]
async fn a_tcp_reset_resets_the_stream_both_ways() {
    let (client, sent, received, flow) = flow(LONG).await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(matches!(end(flow).await.1, Err(Broken::Socket(_))));
    assert_eq!(sent.with(|state| state.reset), Some(Code::Cancelled));
    assert_eq!(received.with(|state| state.stopped), Some(Code::Cancelled));
}

#[tokio::test]
async fn a_tcp_reset_after_half_close_is_noticed() {
    let (mut client, sent, _received, flow) = flow(LONG).await;
    client.shutdown().await.unwrap();
    timeout(TEST_LIMIT, sent.clone().take_all()).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(matches!(end(flow).await.1, Err(Broken::Socket(_))));
}

#[tokio::test]
async fn a_stream_reset_resets_tcp() {
    let (mut client, _sent, received, flow) = flow(LONG).await;
    received.with(|state| state.failure = Some(StreamError::Reset(Code::Cancelled)));
    let error = timeout(TEST_LIMIT, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(end(flow).await.1, Err(Broken::Tunnel(_))));
}

#[tokio::test]
async fn a_slow_reader_of_the_stream_is_felt_by_the_client() {
    let (client, mut sent, _received, flow) = flow(LONG).await;
    let mut written = 0;
    let block = vec![7; 256 * 1024];
    // A client that cannot write for this long is blocked.
    while let Ok(result) = timeout(Duration::from_millis(300), client.writable()).await {
        result.unwrap();
        match client.try_write(&block) {
            Ok(count) => written += count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(written < 64 << 20, "nothing pushes back");
    }
    until_full(&sent).await;
    drop(client);
    assert_eq!(timeout(TEST_LIMIT, sent.take_all()).await.unwrap().len(), written);
    flow.abort();
}

#[tokio::test]
async fn a_slow_client_is_felt_by_the_far_end() {
    let (client, _sent, received, flow) = flow(LONG).await;
    let mut far = received.clone();
    let giving = tokio::spawn(async move {
        loop {
            far.give(vec![7; ROOM]).await;
        }
    });
    let mut before = usize::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let passed = received.with(|state| state.passed);
        assert!(passed < 64 << 20, "nothing pushes back");
        if passed == before {
            giving.abort();
            flow.abort();
            drop(client);
            return;
        }
        before = passed;
    }
    panic!("it never stood still");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_on_to_no_tunnel_that_is_gone() {
    let (client, _sent, received, flow) = flow(LONG).await;
    let mut far = received.clone();
    let giving = async {
        loop {
            far.give(vec![7; ROOM]).await;
        }
    };
    // The client does not read for so long that everything on the path to it is full.
    assert!(timeout(TEST_LIMIT / 5, giving).await.is_err());
    received.with(|state| state.failure = Some(StreamError::Reset(Code::Cancelled)));
    assert!(matches!(end(flow).await.1, Err(Broken::Tunnel(_))));
    drop(client);
}

#[tokio::test]
async fn a_half_open_connection_is_reaped_when_it_is_silent() {
    let (mut client, _sent, mut received, flow) = flow(Duration::from_secs(2)).await;
    client.shutdown().await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        received.give("alive").await;
    }
    assert!(!flow.is_finished(), "it was not silent");
    let (totals, result) = end(flow).await;
    assert!(matches!(result, Err(Broken::HalfOpen)));
    assert_eq!(totals.received, 20);
    assert_eq!(received.with(|state| state.stopped), Some(Code::TimedOut));
}

#[tokio::test]
async fn a_connection_open_both_ways_may_be_silent() {
    let (client, _sent, _received, flow) = flow(Duration::from_millis(10)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!flow.is_finished());
    drop(client);
    flow.abort();
}
