//! Each measurement for a moment, against a connector on loopback.

use super::*;
use crate::roles::world::TestTunnel;

const MOMENT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn bulk_is_counted_both_ways() {
    let world = TestTunnel::new(8).await;
    for direction in [BulkDirection::Down, BulkDirection::Up] {
        for asked in [1, 8] {
            let figure = throughput(&world.peer, direction, asked, MOMENT).await.unwrap();
            let BenchFigure::Throughput { streams, bytes, took, .. } = figure else {
                panic!("{figure:?}");
            };
            assert_eq!(streams, asked);
            assert!(bytes > 0 && took >= MOMENT, "{bytes} bytes in {took:?}");
        }
    }
}

#[tokio::test]
async fn round_trips_are_timed_alone_and_beside_bulk() {
    let world = TestTunnel::new(2).await;
    for beside in [0, 1] {
        let figure = latency(&world.peer, beside, MOMENT).await.unwrap();
        let BenchFigure::Latency { times, .. } = figure else { panic!("{figure:?}") };
        assert!(times.len() >= 1 && times.max() < Some(STALL), "{times:?}");
    }
}

#[tokio::test]
async fn streams_are_opened_and_closed_again() {
    // The connector may free a place a moment after the last byte.
    let world = TestTunnel::new(64).await;
    let figure = new_streams(&world.peer, 16, MOMENT).await.unwrap();
    let BenchFigure::NewStreams { count, took, .. } = figure else { panic!("{figure:?}") };
    assert!(count >= 16 && took >= MOMENT, "{count} in {took:?}");
}

#[tokio::test]
async fn a_full_connector_is_a_named_error() {
    let world = TestTunnel::new(1).await;
    let mut taken = world.open(Builtin::Echo).await;
    taken.recv().accepted().await.unwrap();
    for direction in [BulkDirection::Down, BulkDirection::Up] {
        let failure = throughput(&world.peer, direction, 1, MOMENT).await.unwrap_err();
        assert_eq!(failure.code(), Code::Overloaded, "{direction:?}");
    }
    assert_eq!(latency(&world.peer, 0, MOMENT).await.unwrap_err().code(), Code::Overloaded);
}
