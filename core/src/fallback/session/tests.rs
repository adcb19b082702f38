//! Two ends of one stream, joined by hand: how bytes are cut, and when each end is over.

use super::*;
use crate::fallback::proxy::{HttpProxy, ProxyHandshake};
use crate::fallback::tls;
use crate::testing::pki::{Pki, Role};
use crate::timer::anchor;
use crate::tls::default_provider;

const SECOND: Duration = Duration::from_secs(1);
const DISUSE: Disuse = Disuse { first: SECOND, idle: Duration::from_secs(60) };

fn sessions(now: Instant) -> (Session, Session) {
    let address = [192, 0, 2, 7].into();
    let client = tls::connect(None, "relay", address, default_provider()).unwrap();
    let identity = Pki::new().issue("relay", Role::Connector).identity();
    let server = tls::server_config(&identity, default_provider()).unwrap();
    let server = tls::accept(server).unwrap();
    let until = now + 10 * SECOND;
    let mut client = Session::connecting(client, None, 1_000, until);
    client.handle_connected();
    (client, Session::accepted(server, 1_000, until, DISUSE))
}

/// Moves all that `from` has to `to`, so many bytes at once.
fn carry(
    from: &mut Session,
    to: &mut Session,
    chunk: usize,
    now: Instant,
) -> Result<Vec<BytesMut>, Ended> {
    let mut found = Vec::new();
    while let Some(StreamOutput::Bytes(bytes)) = from.poll_output(now)? {
        let taken = bytes.len().min(chunk);
        to.handle_bytes(&bytes[..taken], now, &mut found)?;
        from.handle_written(taken);
    }
    Ok(found)
}

/// Both ends, with TLS done.
fn open(chunk: usize, now: Instant) -> (Session, Session) {
    let (mut client, mut server) = sessions(now);
    for _ in 0..3 {
        carry(&mut client, &mut server, chunk, now).unwrap();
        carry(&mut server, &mut client, chunk, now).unwrap();
    }
    assert_eq!((client.phase, server.phase), (Phase::Open, Phase::Open));
    (client, server)
}

#[test]
fn a_stream_works_however_its_bytes_are_cut() {
    for chunk in [1, 7, 1_000, usize::MAX] {
        let now = anchor();
        let (mut client, mut server) = open(chunk, now);
        client.push_batch(b"aabb", Some(2));
        server.push_batch(b"back", None);
        assert_eq!(carry(&mut client, &mut server, chunk, now).unwrap(), [&b"aa"[..], b"bb"]);
        assert_eq!(carry(&mut server, &mut client, chunk, now).unwrap(), [&b"back"[..]]);
    }
}

#[test]
fn a_partial_tls_record_waits_for_its_rest() {
    let now = anchor();
    let (mut client, mut server) = open(usize::MAX, now);
    client.push_batch(b"in two parts", None);
    let Some(StreamOutput::Bytes(bytes)) = client.poll_output(now).unwrap() else { panic!() };
    let (first, rest) = bytes.split_at(bytes.len() - 1);
    let mut found = Vec::new();
    server.handle_bytes(first, now, &mut found).unwrap();
    assert!(found.is_empty());
    server.handle_bytes(rest, now + 5 * SECOND, &mut found).unwrap();
    assert_eq!(found, [&b"in two parts"[..]]);
}

#[test]
fn bytes_that_are_no_tls_end_the_stream() {
    let now = anchor();
    let (_, mut server) = sessions(now);
    let ended = server.handle_bytes(&[0xff; 64], now, &mut Vec::new()).unwrap_err();
    assert!(matches!(ended, Ended::Tls(_)), "{ended}");
}

#[test]
fn a_handshake_has_its_time_and_no_more() {
    let now = anchor();
    let (mut client, server) = sessions(now);
    client.poll_output(now).unwrap();
    client.handle_written(usize::MAX);
    for session in [client, server] {
        let end = now + 10 * SECOND;
        assert_eq!(session.deadline(), Some(end));
        assert!(session.handle_timeout(end - SECOND).is_none());
        assert!(matches!(session.handle_timeout(end), Some(Ended::TooSlow)));
    }
}

#[test]
fn a_stream_that_takes_nothing_is_given_up() {
    let now = anchor();
    let (mut client, _server) = open(usize::MAX, now);
    client.push_batch(&[1; 100], None);
    assert_eq!(client.deadline(), None);
    let Some(StreamOutput::Bytes(bytes)) = client.poll_output(now).unwrap() else { panic!() };
    // One byte is not all of them.
    client.handle_written(1);
    assert_eq!(client.deadline(), Some(now + STANDSTILL));
    assert!(matches!(client.handle_timeout(now + STANDSTILL), Some(Ended::Standstill)));
    client.handle_written(bytes.len() - 1);
    assert_eq!(client.deadline(), None);
}

#[test]
fn a_stalled_stream_keeps_no_more_than_its_queue() {
    let now = anchor();
    let (mut client, _server) = open(usize::MAX, now);
    for _ in 0..1_000 {
        client.push_batch(&[1; 98], None);
        client.poll_output(now).unwrap();
    }
    // One record is on its way, ten of 100 bytes wait.
    assert_eq!(client.dropped(), 1_000 - 1 - 10);
}

#[test]
fn a_closed_stream_ends_behind_its_last_record_and_takes_no_more() {
    let now = anchor();
    let (mut client, mut server) = open(usize::MAX, now);
    client.push_batch(b"bye", None);
    assert!(client.close(now));
    client.push_batch(b"late", None);
    let mut found = Vec::new();
    let Some(StreamOutput::Bytes(bytes)) = client.poll_output(now).unwrap() else { panic!() };
    let ended = server.handle_bytes(&bytes, now, &mut found).unwrap_err();
    assert!(matches!(ended, Ended::Closed), "{ended}");
    assert_eq!(found, [&b"bye"[..]]);
    client.handle_written(bytes.len());
    assert_eq!(client.poll_output(now).unwrap(), Some(StreamOutput::Shutdown));
    client.handle_shut_down(now);
    assert_eq!(client.poll_output(now).unwrap(), None);
    assert_eq!(client.deadline(), Some(now + CLOSING_TIMEOUT));
    assert!(matches!(client.handle_timeout(now + CLOSING_TIMEOUT), Some(Ended::Closed)));
}

#[test]
fn a_stream_that_never_opened_has_nothing_to_close() {
    let (mut client, _server) = sessions(anchor());
    assert!(!client.close(anchor()));
}

#[test]
fn disuse_is_short_before_a_client_is_known_and_longer_afterwards() {
    let now = anchor();
    let (client, mut server) = open(usize::MAX, now);
    assert_eq!((client.deadline(), server.deadline()), (None, Some(now + SECOND)));
    assert!(server.handle_timeout(now + SECOND / 2).is_none());
    assert!(matches!(server.handle_timeout(now + SECOND), Some(Ended::Disuse)));
    // An answer of the node shows nothing: it answers strangers as well.
    server.push_batch(b"an answer", None);
    assert_eq!(server.deadline(), Some(now + SECOND));
    server.handle_authenticated(now + SECOND);
    assert_eq!(server.deadline(), Some(now + 61 * SECOND));
}

#[test]
fn a_stream_through_an_http_proxy_works_however_its_bytes_are_cut() {
    for chunk in [1, 7, 1_000, usize::MAX] {
        let now = anchor();
        let (_, mut server) = sessions(now);
        let tls = tls::connect(None, "relay", [192, 0, 2, 7].into(), default_provider()).unwrap();
        let proxy = HttpProxy::new("192.0.2.1:3128".parse().unwrap());
        let asked = ProxyHandshake::new(&proxy, "192.0.2.7:443".parse().unwrap());
        let mut client = Session::connecting(tls, Some(asked), 1_000, now + 10 * SECOND);
        client.handle_connected();
        client.push_batch(b"early", None);
        let mut request = Vec::new();
        while let Some(StreamOutput::Bytes(bytes)) = client.poll_output(now).unwrap() {
            request.extend_from_slice(&bytes[..bytes.len().min(chunk)]);
            client.handle_written(chunk);
        }
        assert!(request.starts_with(b"CONNECT 192.0.2.7:443 HTTP/1.1\r\n"));
        for part in b"HTTP/1.1 200 OK\r\n\r\n".chunks(chunk) {
            assert!(!client.handle_bytes(part, now, &mut Vec::new()).unwrap());
        }
        for _ in 0..3 {
            carry(&mut client, &mut server, chunk, now).unwrap();
            carry(&mut server, &mut client, chunk, now).unwrap();
        }
        assert_eq!((client.phase, server.phase), (Phase::Open, Phase::Open));
    }
}

#[test]
fn a_proxy_that_refuses_or_is_silent_ends_the_stream() {
    let now = anchor();
    let proxied = || {
        let tls = tls::connect(None, "relay", [192, 0, 2, 7].into(), default_provider()).unwrap();
        let proxy = HttpProxy::new("192.0.2.1:3128".parse().unwrap());
        let asked = ProxyHandshake::new(&proxy, "192.0.2.7:443".parse().unwrap());
        let mut client = Session::connecting(tls, Some(asked), 1_000, now + 10 * SECOND);
        client.handle_connected();
        client
    };
    let refused = proxied().handle_bytes(b"HTTP/1.1 403 no\r\n\r\n", now, &mut Vec::new());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the HTTP proxy refused the connection (HTTP status 403)"
    );
    assert!(matches!(proxied().handle_timeout(now + 10 * SECOND), Some(Ended::TooSlow)));
}
