//! A Unix socket is copied as TCP is, except that it has no reset: what breaks is closed.

use tokio::net::UnixStream;

use super::*;

/// Returns a client, what it sends, what is sent to it, and the flow between.
fn unix_flow() -> (UnixStream, Queue, Queue, Flow) {
    let (client, socket) = UnixStream::pair().unwrap();
    let (sent, received) = (Queue::default(), Queue::default());
    let flow = tokio::spawn(both_ways(socket, sent.clone(), received.clone(), LONG));
    (client, sent, received, flow)
}

#[tokio::test]
async fn a_half_closed_unix_client_still_gets_its_answer() {
    let (mut client, mut sent, mut received, flow) = unix_flow();
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
async fn a_large_upload_through_a_unix_socket_arrives_whole() {
    let (mut client, mut sent, mut received, flow) = unix_flow();
    received.finish().unwrap();
    let expected: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let given = expected.clone();
    tokio::spawn(async move {
        client.write_all(&given).await.unwrap();
        client.shutdown().await.unwrap();
    });
    assert!(timeout(TEST_LIMIT, sent.take_all()).await.unwrap() == expected);
    assert!(end(flow).await.1.is_ok());
}

#[tokio::test]
async fn a_stream_reset_closes_a_unix_socket() {
    let (mut client, _sent, received, flow) = unix_flow();
    received.with(|state| state.failure = Some(StreamError::Reset(Code::Cancelled)));
    assert_eq!(timeout(TEST_LIMIT, client.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(client.write_all(b"?").await.is_err());
    assert!(matches!(end(flow).await.1, Err(Broken::Tunnel(_))));
}

#[tokio::test]
async fn a_unix_socket_closed_for_reading_breaks_the_stream() {
    let (client, sent, mut received, flow) = unix_flow();
    drop(client);
    received.give("for whom?").await;
    assert!(matches!(end(flow).await.1, Err(Broken::Socket(_))));
    assert_eq!(sent.with(|state| state.reset), Some(Code::Cancelled));
    assert_eq!(received.with(|state| state.stopped), Some(Code::Cancelled));
}

#[tokio::test]
async fn a_slow_reader_of_the_stream_is_felt_by_a_unix_client() {
    let (client, sent, _received, flow) = unix_flow();
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
    flow.abort();
}
