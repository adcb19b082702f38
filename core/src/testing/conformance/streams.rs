//! Streams and datagrams.

use std::time::Duration;

use bytes::Bytes;

use crate::drive::StreamError;
use crate::error::{Code, Failure, Misuse};

use super::{
    Runtime, both, connect, echo_service, pattern, read, read_to_end, run, serve_echo, until, write,
};

/// A request is read to its end before the answer is written on the same stream.
pub fn a_finished_direction_leaves_the_other_open<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let mut stream = pair.dialled.open(echo_service()).await.expect("the peer is connected");
        write(&mut stream, pattern(3_000)).await.expect("the stream is open");
        stream.send().finish().expect("the stream is open");

        let incoming = pair.accepted.accept_stream().await.expect("the client is there");
        let mut answering = incoming.accept();
        stream.recv().accepted().await.expect("the server accepted");
        let question = read_to_end(&mut answering).await.expect("the question ends");
        assert_eq!(question, pattern(3_000));
        let answer = async {
            write(&mut answering, pattern(2_000_000)).await.expect("that way is open");
            answering.send().finish().expect("that way is open");
        };
        let (answer, ()) = both(read_to_end(&mut stream), answer).await;
        assert!(answer.expect("it ends") == pattern(2_000_000));
    });
}

/// Megabytes in both directions concurrently, through `AsyncRead` and `AsyncWrite`.
pub fn a_stream_through_the_runtimes_traits_carries_every_byte<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let _echo = R::spawn(serve_echo::<R>(pair.accepted.clone()));
        let stream = pair.dialled.open(echo_service()).await.expect("the peer is connected");
        let answer = R::exchange(stream, pattern(5_000_000)).await.expect("the echo answers");
        assert!(answer == pattern(5_000_000));
    });
}

/// The writer resets the stream; the reader receives the code.
pub fn a_reset_reaches_the_reader<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let mut stream = pair.dialled.open(echo_service()).await.expect("the peer is connected");
        write(&mut stream, &b"never mind"[..]).await.expect("the stream is open");
        let mut accepted =
            pair.accepted.accept_stream().await.expect("the client is there").accept();
        assert_eq!(
            read(&mut accepted).await.expect("it is open"),
            Some(Bytes::from_static(b"never mind"))
        );
        stream.send().reset(Code::BackendUnavailable);
        let error = read(&mut accepted).await.expect_err("the stream was reset");
        assert!(matches!(error, StreamError::Reset(Code::BackendUnavailable)), "{error:?}");
    });
}

/// The reader stops the stream; the writer receives the code.
pub fn a_stop_reaches_the_writer<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let mut stream = pair.dialled.open(echo_service()).await.expect("the peer is connected");
        let mut accepted =
            pair.accepted.accept_stream().await.expect("the client is there").accept();
        accepted.recv().stop(Code::QueueFull);
        let error = loop {
            if let Err(error) = write(&mut stream, pattern(100_000)).await {
                break error;
            }
        };
        assert!(matches!(error, StreamError::Stopped(Code::QueueFull)), "{error:?}");
    });
}

/// The acceptor's reason arrives unchanged.
pub fn a_refused_stream_tells_its_opener_why<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let mut stream = pair.dialled.open(echo_service()).await.expect("the peer is connected");
        let incoming = pair.accepted.accept_stream().await.expect("the client is there");
        incoming.refuse(&Failure::new(Code::NoSuchService, "nothing of that name"));
        match stream.recv().accepted().await {
            Err(StreamError::Refused(failure)) => {
                assert_eq!(failure.code(), Code::NoSuchService);
                assert_eq!(failure.detail(), "nothing of that name");
            }
            other => panic!("the stream was refused, not {other:?}"),
        }
    });
}

/// However a stream ends, at either end and in any order, no state of it is kept.
pub fn a_stream_that_is_over_leaves_nothing_behind<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        for round in 0..40 {
            let mut stream =
                pair.dialled.open(echo_service()).await.expect("the peer is connected");
            let incoming = pair.accepted.accept_stream().await.expect("the client is there");
            match round % 4 {
                // The acceptor has finished when the opener goes without having read.
                0 => {
                    let mut accepted = incoming.accept();
                    write(&mut accepted, pattern(50_000)).await.expect("the stream is open");
                    accepted.send().finish().expect("the stream is open");
                    stream.recv().accepted().await.expect("the acceptor said yes");
                    drop(stream);
                }
                // The acceptor writes until it finds out that the opener is closed.
                1 => {
                    let mut accepted = incoming.accept();
                    drop(stream);
                    while write(&mut accepted, pattern(50_000)).await.is_ok() {}
                }
                // The acceptor goes while the opener writes.
                2 => {
                    drop(incoming.accept());
                    while write(&mut stream, pattern(50_000)).await.is_ok() {}
                }
                // The opener goes before the acceptor has decided.
                _ => {
                    drop(stream);
                    R::sleep(Duration::from_millis(5)).await;
                    drop(incoming);
                }
            }
        }
        for peer in [&pair.dialled, &pair.accepted] {
            until::<R, _>(|| {
                let left = peer.snapshot().expect("the peer is there").streams;
                (left == 0).then_some(())
            })
            .await;
        }
    });
}

/// A thousand streams, all open before the first byte of any.
pub fn a_thousand_streams_are_open_at_once<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let _echo = R::spawn(serve_echo::<R>(pair.accepted.clone()));
        let mut streams = Vec::new();
        for _ in 0..1_000 {
            streams.push(pair.dialled.open(echo_service()).await.expect("the peer is connected"));
        }
        for (i, stream) in streams.iter_mut().enumerate() {
            write(stream, pattern(i)).await.expect("the stream is open");
            stream.send().finish().expect("the stream is open");
        }
        for (i, stream) in streams.iter_mut().enumerate() {
            assert_eq!(read_to_end(stream).await.expect("the echo ends"), pattern(i));
        }
    });
}

/// Datagrams arrive whole, in both directions, up to the size the peer names, and not above it.
pub fn datagrams_go_both_ways<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        let largest = pair.dialled.max_datagram().expect("the peer takes datagrams");
        assert!(largest >= 1_000, "{largest}");
        let over = pair.dialled.send_datagram(&pattern(largest + 100_000));
        assert_eq!(over, Err(Misuse::OverLimit));

        for (from, to) in [(&pair.dialled, &pair.accepted), (&pair.accepted, &pair.dialled)] {
            let payload = Bytes::from(pattern(1_000));
            from.send_datagram(&payload).expect("it fits");
            let received = to.recv_datagram().await;
            assert_eq!(received, Some(payload));
        }
    });
}
