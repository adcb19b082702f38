//! Tests the requirements of a node's handshakes, against peers of bare TLS as QUIC carries it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::quic::{ClientConnection, ServerConnection, Version};
use rustls::{ClientConfig, Error, HandshakeKind, NamedGroup, ServerConfig};
use rustls_pki_types::ServerName;

use super::*;
use crate::clock::ClampedClock;
use crate::testing::clock::{EPOCH, origin};
use crate::testing::crypto::SeededCrypto;
use crate::testing::pki::{Issued, Pki, Role};

fn wall() -> WallClock {
    ClampedClock::new(origin(), EPOCH).wall().clone()
}

fn node(name: &str, role: Role) -> Tls {
    let identity = Pki::new().issue(name, role).identity();
    Tls::with_provider(identity, Pki::new().trust(), SeededCrypto::new([7; 32]).provider())
}

fn acceptor() -> ServerConfig {
    let tls = node("connector", Role::Connector);
    tls.server(&tls.verifiers().unwrap(), &wall()).unwrap()
}

fn dialler() -> ClientConfig {
    let tls = node("agent", Role::Agent);
    tls.client(&tls.verifiers().unwrap(), &wall()).unwrap()
}

/// Returns a dialer that trusts the CA and otherwise does not act as a node would.
fn stranger(identity: Option<&Issued>) -> ClientConfig {
    let provider = SeededCrypto::new([8; 32]).provider();
    let time = Arc::new(NodeTime(wall()));
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(Pki::new().roots());
    let mut config = match identity {
        Some(issued) => builder.with_client_auth_cert(issued.chain(), issued.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Runs a handshake, and the data after it, to the end.
fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<HandshakeKind, Error> {
    let name = ServerName::try_from("connector").unwrap();
    let mut client = ClientConnection::new(client.clone(), Version::V1, name, vec![]).unwrap();
    let mut server = ServerConnection::new(server.clone(), Version::V1, vec![]).unwrap();
    for _ in 0..16 {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let _ = client.write_hs(&mut up);
        server.read_hs(&up)?;
        let _ = server.write_hs(&mut down);
        client.read_hs(&down)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(client.handshake_kind().unwrap())
}

#[test]
fn two_nodes_of_one_ca_meet_and_a_dialler_without_a_certificate_is_refused() {
    let acceptor = Arc::new(acceptor());
    assert_eq!(meet(&Arc::new(dialler()), &acceptor), Ok(HandshakeKind::Full));
    let refused = meet(&Arc::new(stranger(None)), &acceptor);
    assert_eq!(refused, Err(Error::NoCertificatesPresented));
}

#[test]
fn another_or_no_application_protocol_is_refused() {
    let agent = Pki::new().issue("agent", Role::Agent);
    for protocols in [vec![b"h3".to_vec()], vec![]] {
        let mut other = stranger(Some(&agent));
        other.alpn_protocols = protocols;
        assert_eq!(
            meet(&Arc::new(other), &Arc::new(acceptor())),
            Err(Error::NoApplicationProtocol)
        );
    }
}

#[test]
fn a_dialling_certificate_cannot_accept() {
    let tls = node("connector", Role::Agent);
    let acceptor = tls.server(&tls.verifiers().unwrap(), &wall()).unwrap();
    let refused = meet(&Arc::new(dialler()), &Arc::new(acceptor)).unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

/// Counts the tickets that come.
#[derive(Debug, Default)]
struct Tickets {
    came: AtomicUsize,
    last: Mutex<Option<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.came.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap() = Some(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.last.lock().unwrap().take()
    }
}

#[test]
fn a_node_gives_nothing_that_shortens_a_later_handshake_and_takes_nothing() {
    let agent = Pki::new().issue("agent", Role::Agent);
    let tickets = Arc::new(Tickets::default());
    let mut keen = stranger(Some(&agent));
    keen.resumption = Resumption::store(tickets.clone());
    keen.enable_early_data = true;
    let keen = Arc::new(keen);

    // An acceptor that sends tickets would make this test fail.
    let mut generous = acceptor();
    generous.send_tls13_tickets = 2;
    let generous = Arc::new(generous);
    assert_eq!(meet(&keen, &generous), Ok(HandshakeKind::Full));
    assert_eq!(tickets.came.swap(0, Ordering::Relaxed), 2);
    assert_eq!(meet(&keen, &generous), Ok(HandshakeKind::Resumed));
    tickets.came.store(0, Ordering::Relaxed);

    let acceptor = Arc::new(acceptor());
    assert_eq!(acceptor.max_early_data_size, 0);
    tickets.last.lock().unwrap().take();
    assert_eq!(meet(&keen, &acceptor), Ok(HandshakeKind::Full));
    assert_eq!(tickets.came.load(Ordering::Relaxed), 0);

    let dialler = Arc::new(dialler());
    assert!(!dialler.enable_early_data);
    assert_eq!(meet(&dialler, &generous), Ok(HandshakeKind::Full));
    assert_eq!(meet(&dialler, &generous), Ok(HandshakeKind::Full));
}

mod keys;
