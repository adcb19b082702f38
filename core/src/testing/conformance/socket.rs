//! The requirements for an adapter's socket and clock, without a tunnel.

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::drive::io::Io;
use crate::transmit::{Datagram, Ecn, Route, Transmit};

use super::{Runtime, loopback, pattern, run};

/// Segments sent as one batch, where the system takes batches, come out in order, with their
/// sizes, their codepoint and the addresses of both ends; over IPv4 and over IPv6.
pub fn a_batch_arrives_whole_and_in_order<R: Runtime>() {
    run::<R>(async {
        let (from, to) = (bind::<R>(), bind::<R>());
        send_a_batch(from, to).await;
        let ipv6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
        // The rest needs IPv6.
        if let (Ok(from), Ok(to)) = (R::io(ipv6), R::io(ipv6)) {
            send_a_batch(from, to).await;
        }
    });
}

async fn send_a_batch<I: Io>((mut from, sender): (I, SocketAddr), (mut to, at): (I, SocketAddr)) {
    let segments = from.max_segments().min(40);
    let payload = pattern(1_200 * (segments - 1) + 300);
    let transmit = Transmit {
        route: Route { remote: at, local_ip: Some(sender.ip()) },
        ecn: Some(Ecn::Ect0),
        segment_size: (segments > 1).then_some(1_200),
        size: payload.len(),
    };
    send(&mut from, &transmit, &payload).await;

    let mut received = Vec::new();
    while received.len() < payload.len() {
        for batch in recv(&mut to).await {
            assert_eq!(batch.route.remote, sender);
            assert!(batch.route.local_ip.is_none_or(|ip| ip == at.ip()));
            assert_eq!(batch.ecn, Some(Ecn::Ect0));
            let last_of_all = received.len() + batch.payload.len() == payload.len();
            assert!(batch.segment_size == 1_200 || last_of_all);
            received.extend_from_slice(&batch.payload);
        }
    }
    assert_eq!(received, payload);
}

/// A datagram one byte larger than IPv4 carries is not an error but a loss, and the socket goes on.
pub fn a_batch_larger_than_the_path_is_a_loss<R: Runtime>() {
    run::<R>(async {
        let (mut from, _) = bind::<R>();
        let (mut to, receiver) = bind::<R>();
        send(&mut from, &single(receiver, 65_508), &pattern(65_508)).await;
        send(&mut from, &single(receiver, 65_507), &pattern(65_507)).await;
        let batches = recv(&mut to).await;
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].payload, pattern(65_507));
    });
}

/// The refusal that a closed port sends back does not end the socket.
pub fn a_port_nobody_listens_at_does_not_end_the_socket<R: Runtime>() {
    run::<R>(async {
        let (mut here, addr) = bind::<R>();
        let (gone, closed) = bind::<R>();
        drop(gone);
        for _ in 0..3 {
            // Some systems report the refusal here; the driver treats it as a loss.
            let _refused =
                poll_fn(|cx| here.poll_send(cx, &single(closed, 5), b"knock")).await.is_err();
        }
        let (mut other, _) = bind::<R>();
        send(&mut other, &single(addr, 5), b"hello").await;
        loop {
            if let Some(batch) = recv(&mut here).await.pop() {
                assert_eq!(&batch.payload[..], b"hello");
                return;
            }
        }
    });
}

/// An IPv6 wildcard socket exchanges datagrams with IPv4 peers, and shows their addresses as IPv4.
pub fn a_wildcard_socket_shows_ipv4_peers_as_ipv4<R: Runtime>() {
    run::<R>(async {
        let Ok((mut dual, addr)) = R::io(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)) else {
            return; // The rest needs IPv6.
        };
        let (mut v4, v4_addr) = bind::<R>();
        let dual_addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port());
        send(&mut v4, &single(dual_addr, 4), b"ping").await;
        let batch = recv(&mut dual).await.pop().expect("one datagram came");
        assert_eq!(batch.route.remote, v4_addr);

        let back = Transmit { route: batch.route, ..single(v4_addr, 4) };
        send(&mut dual, &back, b"pong").await;
        let batch = recv(&mut v4).await.pop().expect("one datagram came");
        assert_eq!(batch.route.remote, dual_addr);
        assert_eq!(&batch.payload[..], b"pong");
    });
}

/// Sleeps end when due, also when the deadline moves while they wait.
pub fn a_sleep_ends_at_its_deadline_and_not_before<R: Runtime>() {
    run::<R>(async {
        let (mut io, _) = bind::<R>();
        let clock = io.clock();
        let start = clock.now();
        let early = start + Duration::from_millis(30);
        let late = start + Duration::from_secs(3_600);

        poll_fn(|cx| {
            assert!(io.poll_sleep(cx, late).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        poll_fn(|cx| io.poll_sleep(cx, early)).await;
        assert!(clock.now() >= early);
        poll_fn(|cx| io.poll_sleep(cx, start)).await;
        poll_fn(|cx| {
            assert!(io.poll_sleep(cx, late).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        assert!(clock.now() < late);
        assert!(clock.unix() > Duration::from_secs(1_700_000_000));
    });
}

fn bind<R: Runtime>() -> (R::Io, SocketAddr) {
    R::io(loopback()).expect("a loopback port is free")
}

fn single(remote: SocketAddr, size: usize) -> Transmit {
    Transmit { route: Route::to(remote), ecn: None, segment_size: None, size }
}

async fn send<I: Io>(io: &mut I, transmit: &Transmit, payload: &[u8]) {
    poll_fn(|cx| io.poll_send(cx, transmit, payload)).await.expect("loopback takes it");
}

async fn recv<I: Io>(io: &mut I) -> Vec<Datagram> {
    let mut batches = Vec::new();
    poll_fn(|cx| io.poll_recv(cx, &mut |batch| batches.push(batch)))
        .await
        .expect("the socket is in order");
    batches
}
