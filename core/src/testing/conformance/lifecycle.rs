//! Coming up, being refused, being lost, and going down.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::error::{Category, Code};
use crate::event::Event;
use crate::lifecycle::State;

use super::forwarder::Forwarder;
use super::identities::{EXPIRED, FUTURE, Identities, SERVER_NAME, VALID, quick_heartbeat};
use super::{
    Connected, Runtime, both, connect, connect_with, dial, echo_service, pattern, read, run,
    serve_echo, start, start_at, until, write,
};
use crate::config::Builder;

/// A dialer and a listener connect, and each reads the other's name from its certificate.
pub fn two_nodes_connect_and_know_each_other<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        assert_eq!(pair.dialled.names(), [SERVER_NAME]);
        assert_eq!(pair.accepted.names(), ["client.test"]);
        assert_eq!(pair.dialled.remote(), Some(pair.server.addr));
        assert_eq!(pair.server.handle.local_addr().ok(), Some(pair.server.addr));
        assert!(matches!(pair.dialled.state(), State::Connected { .. }));
        assert!(matches!(pair.accepted.state(), State::Connected { .. }));
    });
}

/// The server does not trust the issuer of the client's certificate.
pub fn a_client_of_another_authority_is_refused_for_good<R: Runtime>() {
    let (ours, theirs) = (Identities::new(), Identities::new());
    refused::<R>(ours.server(), theirs.config("client.test", VALID, &ours));
}

/// The client does not trust the issuer of the server's certificate.
pub fn a_server_of_another_authority_is_refused_for_good<R: Runtime>() {
    let (ours, theirs) = (Identities::new(), Identities::new());
    refused::<R>(theirs.config(SERVER_NAME, VALID, &ours), ours.client());
}

/// The server's certificate has expired, and so has a client's.
pub fn an_expired_certificate_is_refused_for_good<R: Runtime>() {
    let all = Identities::new();
    refused::<R>(all.config(SERVER_NAME, EXPIRED, &all), all.client());
    refused::<R>(all.server(), all.config("client.test", EXPIRED, &all));
}

/// The server's certificate is not valid yet, and neither is a client's.
pub fn a_certificate_not_yet_valid_is_refused_for_good<R: Runtime>() {
    let all = Identities::new();
    refused::<R>(all.config(SERVER_NAME, FUTURE, &all), all.client());
    refused::<R>(all.server(), all.config("client.test", FUTURE, &all));
}

fn refused<R: Runtime>(server: Builder, client: Builder) {
    run::<R>(async {
        let server = start::<R>(server.listening(true));
        let client = start::<R>(client);
        let peer = dial(&client, server.addr);
        let failure = peer.connected().await.expect_err("one certificate is not acceptable");
        assert_eq!(failure.code(), Code::Unauthenticated, "{failure}");
        assert_eq!(failure.category(), Category::Authentication);
        assert!(matches!(peer.state(), State::Failed { .. }));

        // Longer than the longest wait of the retry policy: no other attempt follows.
        R::sleep(Duration::from_millis(600)).await;
        assert!(matches!(peer.state(), State::Failed { .. }));
        assert_eq!(peer.snapshot().expect("the peer is there").reconnections, 0);
    });
}

/// The system's error for an unreachable address is the reason of the failed attempt, and another
/// attempt follows.
pub fn an_address_the_system_cannot_send_to_is_tried_again<R: Runtime>() {
    run::<R>(async {
        let client = start::<R>(Identities::new().client());
        let mut events = client.handle.events();
        // An IPv4 socket cannot send to an IPv6 address.
        let _peer = dial(&client, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 9));
        let mut failed = 0;
        while failed < 3 {
            let event = events.next().await.expect("the client is not shutting down");
            if let Event::AttemptFailed { failure, .. } = event {
                assert_eq!(failure.code(), Code::Unreachable, "{failure}");
                failed += 1;
            }
        }
    });
}

/// A server that vanishes without a close and starts again at its address is reconnected to.
pub fn a_peer_that_was_killed_is_found_again_when_it_returns<R: Runtime>() {
    run::<R>(async {
        let identities = Identities::new();
        let client = identities.client().heartbeat(quick_heartbeat());
        let pair = connect_with::<R>(identities.server(), client).await;
        let addr = pair.server.addr;
        drop(pair.server);
        until::<R, _>(|| (!matches!(pair.dialled.state(), State::Connected { .. })).then_some(()))
            .await;
        assert!(matches!(pair.dialled.state(), State::Reconnecting { .. }));

        let again = until::<R, _>(|| start_at::<R>(addr, identities.server()).ok()).await;
        let (up, accepted) = both(pair.dialled.connected(), again.handle.accept()).await;
        up.expect("the server is back");
        let _echo = R::spawn(serve_echo::<R>(accepted.expect("the server is not shutting down")));
        let stream = pair.dialled.open(echo_service()).await.expect("the peer is connected");
        let answer = R::exchange(stream, pattern(10_000)).await.expect("the echo answers");
        assert_eq!(answer, pattern(10_000));
        assert_eq!(pair.dialled.snapshot().expect("the peer is there").reconnections, 1);
    });
}

/// The client's address changes below an open stream, which goes on.
pub fn a_connection_outlives_a_change_of_address<R: Runtime>() {
    run::<R>(async {
        let identities = Identities::new();
        let server = start::<R>(identities.server());
        let client = start::<R>(identities.client());
        let nat = Forwarder::<R>::new(server.addr);
        let peer = dial(&client, nat.inside);
        let (up, accepted) = both(peer.connected(), server.handle.accept()).await;
        up.expect("the server is there");
        let accepted = accepted.expect("the server is not shutting down");
        let _echo = R::spawn(serve_echo::<R>(accepted.clone()));
        let mut stream = peer.open(echo_service()).await.expect("the peer is connected");

        for round in 0..3 {
            write(&mut stream, &b"still here?"[..]).await.expect("it is open");
            let mut answer = Vec::new();
            while answer.len() < 11 {
                let chunk = read(&mut stream).await.expect("it is open");
                answer.extend_from_slice(&chunk.expect("it has not ended"));
            }
            assert_eq!(answer, b"still here?");
            let outside = nat.rebind();
            until::<R, _>(|| (accepted.remote() == Some(outside)).then_some(())).await;
            assert!(matches!(peer.state(), State::Connected { .. }), "in round {round}");
        }
        assert_eq!(peer.snapshot().expect("the peer is there").reconnections, 0);
    });
}

/// Work in progress when a node shuts down is finished; then both ends have the reason of the
/// close.
pub fn a_shutdown_finishes_what_is_under_way<R: Runtime>() {
    run::<R>(async {
        let Connected { server, client, accepted, dialled } = connect::<R>().await;
        let echo = R::spawn(serve_echo::<R>(accepted.clone()));
        let stream = dialled.open(echo_service()).await.expect("the peer is connected");
        client.handle.shutdown();
        let answer = R::exchange(stream, pattern(100_000)).await.expect("it is drained");
        assert_eq!(answer, pattern(100_000));

        client.handle.closed().await;
        let code = accepted.closed().await.code();
        assert!(matches!(code, Code::ShuttingDown | Code::Closed), "{code:?}");
        assert!(client.handle.accept().await.is_none());
        drop((server, client.driver, echo));
    });
}

/// A peer that is disconnected is closed at both ends, and no attempt to reach it follows.
pub fn a_disconnected_peer_closes_at_both_ends<R: Runtime>() {
    run::<R>(async {
        let pair = connect::<R>().await;
        pair.dialled.disconnect();
        assert_eq!(pair.accepted.closed().await.code(), Code::Closed);
        assert_eq!(pair.dialled.closed().await.code(), Code::Closed);
        assert!(pair.dialled.accept_stream().await.is_none());
        assert!(pair.dialled.open(echo_service()).await.is_err());
    });
}

/// A task that waits on a node without its driver is notified, and does not wait on.
pub fn a_dropped_driver_leaves_nobody_waiting<R: Runtime>() {
    run::<R>(async {
        let Connected { server, client, accepted: _accepted, dialled } = connect::<R>().await;
        let mut stream = dialled.open(echo_service()).await.expect("the peer is connected");
        drop(client.driver);
        read(&mut stream).await.expect_err("the stream is lost");
        dialled.closed().await;
        client.handle.closed().await;
        assert!(client.handle.accept().await.is_none());
        drop(server);
    });
}
