//! The built-in services as a member uses them.

use adit_tokio::core::error::Failure;
use adit_tokio::core::request::Request;
use tokio::time::timeout;

use super::*;
use crate::roles::world::{TEST_LIMIT, TestTunnel};

/// Reads everything until the end.
async fn rest(recv: &mut RecvHalf) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = timeout(TEST_LIMIT, recv.read_chunk(usize::MAX)).await.unwrap()? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn an_echo_gives_back_everything_and_ends_after_it() {
    let world = TestTunnel::new(1).await;
    let (mut send, mut recv) = world.open(Builtin::Echo).await.split();
    let given: Vec<u8> = (0..500_000_u32).flat_map(u32::to_be_bytes).collect();
    let sent = given.clone();
    let sending = tokio::spawn(async move {
        send.write_all(sent).await.unwrap();
        send.finish().unwrap();
        send
    });
    assert!(rest(&mut recv).await.unwrap() == given);
    sending.await.unwrap();
}

#[tokio::test]
async fn an_unread_echo_applies_backpressure() {
    let world = TestTunnel::new(1).await;
    let (mut send, _recv) = world.open(Builtin::Echo).await.split();
    let mut taken = 0;
    let endless = async {
        loop {
            send.write_all(vec![7; PIECE]).await.unwrap();
            taken += PIECE;
        }
    };
    assert!(timeout(Duration::from_secs(1), endless).await.is_err());
    // There is room for one stream window at each end, in each direction.
    assert!(taken < 6 << 20, "{taken} bytes were taken");
}

#[tokio::test]
async fn a_source_gives_until_it_is_stopped_and_gives_its_place_back() {
    let world = TestTunnel::new(1).await;
    for _ in 0..2 {
        let mut stream = world.open(Builtin::Source).await;
        let mut count = 0;
        while count < 4 << 20 {
            let chunk = timeout(TEST_LIMIT, stream.recv().read_chunk(usize::MAX)).await.unwrap();
            count += chunk.unwrap().unwrap().len();
        }
        drop(stream);
        let free = async {
            loop {
                let mut stream = world.open(Builtin::Sink).await;
                stream.send().finish().unwrap();
                if rest(stream.recv()).await.is_ok() {
                    return;
                }
            }
        };
        timeout(TEST_LIMIT, free).await.unwrap();
    }
}

#[tokio::test]
async fn a_sink_returns_its_byte_count() {
    let world = TestTunnel::new(1).await;
    let (mut send, mut recv) = world.open(Builtin::Sink).await.split();
    send.write_all(vec![7; 3_000_000]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(rest(&mut recv).await.unwrap(), 3_000_000_u64.to_be_bytes());
}

#[tokio::test]
async fn a_sink_counts_bytes_before_a_reset() {
    let world = TestTunnel::new(1).await;
    let (mut send, mut recv) = world.open(Builtin::Sink).await.split();
    send.write_all(vec![7; 3_000_000]).await.unwrap();
    send.reset(Code::Cancelled);
    let count = u64::from_be_bytes(rest(&mut recv).await.unwrap().try_into().unwrap());
    // All but the stream window must have been read for the last byte to be written.
    assert!((1_500_000..=3_000_000).contains(&count), "{count}");
}

#[tokio::test]
async fn a_built_in_service_takes_one_of_the_connections() {
    let world = TestTunnel::new(1).await;
    let mut first = world.open(Builtin::Echo).await;
    first.send().write_all(&b"?"[..]).await.unwrap();
    timeout(TEST_LIMIT, first.recv().accepted()).await.unwrap().unwrap();
    let refused = rest(world.open(Builtin::Source).await.recv()).await.unwrap_err();
    let StreamError::Refused(failure) = refused else { panic!("{refused}") };
    assert_eq!(failure.code(), Code::Overloaded);
}

#[tokio::test]
async fn a_stream_of_a_built_in_service_ends_when_its_time_is_over() {
    let world = TestTunnel::without_services().await;
    let mut stream = world.open(Builtin::Sink).await;
    let serving = async {
        let peer = world.connector.handle.accept().await.unwrap();
        let (send, recv) = peer.accept_stream().await.unwrap().accept().split();
        Builtin::Sink.serve_for(Duration::from_millis(50), send, recv).await.unwrap();
    };
    timeout(TEST_LIMIT, serving).await.unwrap();
    let error = rest(stream.recv()).await.unwrap_err();
    assert_eq!(error, StreamError::Reset(Code::TimedOut));
}

#[tokio::test]
async fn a_connector_answers_a_ping_and_refuses_what_it_does_not_know() {
    let world = TestTunnel::new(1).await;
    let ask = async |body: &'static str| -> Result<Bytes, Failure> {
        world.peer.request(Request::new(body).deadline(TEST_LIMIT)).await?.collect().await
    };
    assert_eq!(ask(r#"{"op":"ping"}"#).await.unwrap(), "{}");
    assert_eq!(ask(r#"{"op":"dance"}"#).await.unwrap_err().code(), Code::NoSuchService);
}

#[tokio::test]
async fn a_guest_is_connected_and_may_do_nothing() {
    let world = TestTunnel::with_guest().await;
    let refused = rest(world.open(Builtin::Echo).await.recv()).await.unwrap_err();
    let StreamError::Refused(failure) = refused else { panic!("{refused}") };
    assert_eq!(failure.code(), Code::Forbidden);
    let ping = Request::new(r#"{"op":"ping"}"#).deadline(TEST_LIMIT);
    assert_eq!(world.peer.request(ping).await.unwrap_err().code(), Code::Forbidden);
}
