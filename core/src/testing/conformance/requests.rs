//! Requests and their responses.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::config::Transport;
use crate::error::{Code, Failure};
use crate::request::Request;

use super::identities::Identities;
use super::{Runtime, both, connect, connect_with, pattern, run};

/// A request and its answer carry bytes, including many and none.
pub fn a_request_is_answered<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        for size in [0, 1, 100_000, 3_000_000] {
            let ask = async {
                let request = Request::new(Bytes::from(pattern(size)));
                pair.dialled.request(request).await?.collect().await
            };
            let answer = async {
                let request = pair.accepted.accept_request().await.expect("the client is there");
                let body = request.body().clone();
                request.respond(body).expect("the client waits");
            };
            let (response, ()) = both(ask, answer).await;
            assert!(response.expect("it was answered") == pattern(size), "with {size} bytes");
        }
    });
}

/// The responder's reason arrives unchanged.
pub fn a_failed_request_tells_its_caller_why<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let ask = async {
            pair.dialled.request(Request::new(Bytes::from_static(b"?"))).await?.collect().await
        };
        let answer = async {
            let request = pair.accepted.accept_request().await.expect("the client is there");
            let failure = Failure::new(Code::BackendUnavailable, "the model is not loaded");
            request.fail(&failure).expect("the client waits");
        };
        let (response, ()) = both(ask, answer).await;
        let failure = response.expect_err("it failed");
        assert_eq!(failure.code(), Code::BackendUnavailable);
        assert_eq!(failure.detail(), "the model is not loaded");
    });
}

/// A request without an answer ends at its deadline, and the connection goes on.
pub fn a_request_ends_at_its_deadline<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let accepted = pair.accepted.clone();
        // A busy machine may bring it only when its time is over, or never.
        let _silent = R::spawn(async move {
            let kept = accepted.accept_request().await;
            pending::<()>().await;
            drop(kept);
        });
        let request = Request::new(Bytes::from_static(b"are you there?"))
            .deadline(Duration::from_millis(200));
        let answer = async { pair.dialled.request(request).await?.collect().await };
        let failure = answer.await.expect_err("nobody answered");
        assert_eq!(failure.code(), Code::DeadlineExceeded);
        pair.dialled.connected().await.expect("the connection is not to blame");
    });
}

/// Chunks come out in order, and a reader that does not read holds back its responder.
pub fn a_streamed_response_waits_for_its_reader<R: Runtime>() {
    const CHUNKS: usize = 100;
    const CHUNK: usize = 100_000;
    run::<R>(async {
        let identities = Identities::new();
        let small = Transport { send_window: 500_000, ..Transport::default() };
        let pair = connect_with::<R>(identities.server().transport(small), identities.client());
        let pair = pair.await;
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let accepted = pair.accepted.clone();
        let _responder = R::spawn(async move {
            let request = accepted.accept_request().await.expect("the client is there");
            let mut responder = request.stream();
            for i in 0..CHUNKS {
                let chunk = Bytes::from(vec![i as u8; CHUNK]);
                responder.send(chunk).await.expect("the client waits");
                count.fetch_add(1, Ordering::Relaxed);
            }
            responder.finish().await.expect("the client waits");
        });
        let request = Request::new(Bytes::from_static(b"everything, please"));
        let mut response = pair.dialled.request(request).await.expect("it is answered");

        // Long enough for ten times as much on loopback.
        R::sleep(Duration::from_millis(500)).await;
        let early = sent.load(Ordering::Relaxed);
        assert!(early < CHUNKS, "all chunks were taken before the first was read");

        let mut received = 0;
        while let Some(chunk) = response.next().await.expect("it is answered") {
            for byte in chunk {
                assert_eq!(usize::from(byte), received / CHUNK);
                received += 1;
            }
        }
        assert_eq!(received, CHUNKS * CHUNK);
    });
}
