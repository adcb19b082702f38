//! A stranger makes a relay close thousands of channels in one step, to clients that do not read:
//! the relay continues, and serves the next client.
//!
//! The stranger speaks QUIC and the relay's control messages directly, as no client of this program
//! would: it keeps every channel, and sends STOP_SENDING on control streams.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::people::{Machine, Running};
use common::{LIMIT, free_udp};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use quinn::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use quinn::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version};
use quinn::{ClientConfig as Quic, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Clients with a channel to the stranger's service: as many as a relay announces to one connector
/// at the same time. Four times as many take half a minute more, and need four times the stack.
const CLIENTS: usize = 500;

/// KiB of stack that the relay has. Work that nests for each client needs more than twice as much.
const STACK: usize = 1_024;

/// Clients that connect at the same time.
const AT_ONCE: usize = 16;

/// Addresses that they connect from: the relay accepts 64 per second from each.
const SOURCES: u8 = 16;

/// Kinds of control messages (docs/protocol.md).
const WELCOME: u8 = 0x20;
const REGISTER: u8 = 0x21;
const REGISTERED: u8 = 0x22;
const WITHDRAW: u8 = 0x24;
const CONNECT: u8 = 0x25;
const MATCHED: u8 = 0x26;

#[test]
fn a_relay_outlives_many_clients_that_stop_their_control_streams() {
    let public = Machine::new();
    let (mut relay, at) = relay_with_a_small_stack(&public);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = runtime.block_on(async {
        let stranger = Stranger::new();
        let rogue = stranger.authority.configuration("rogue", ExtendedKeyUsagePurpose::ServerAuth);
        let mut connector = stranger.come(at, 1, rogue).await;
        connector.register().await;
        let clients = take_channels(&stranger, at).await;
        // The first message is read first: the relay then knows of each client that it stopped.
        connector.register().await;
        connector.send(WITHDRAW, "{}").await;
        connector.register().await;
        let left = still_open_after_a_while(&clients).await;
        let mut late = stranger.come(at, 2, stranger.authority.device()).await;
        // The relay answers on the control stream, which begins with the client's first message.
        late.send(CONNECT, r#"{"request":1,"service":"web"}"#).await;
        late.hear(WELCOME).await;
        left
    });
    assert!(relay.is_running(), "{}", relay.log());
    assert_eq!(left, 0, "clients that do not listen are not kept");
}

/// Starts a relay. Returns its address once it is up.
fn relay_with_a_small_stack(machine: &Machine) -> (Running, SocketAddr) {
    let listen = free_udp();
    let script = format!("ulimit -s {STACK} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_adit"), "relay"]);
    command.args(["--listen", &listen.to_string(), "--discovery-port", "0", "--no-tcp"]);
    machine.at_home(&mut command);
    let relay = machine.spawn(&mut command);
    relay.line();
    (relay, listen)
}

/// The stranger's CA, with a key for each of its connections, and its source addresses.
#[derive(Clone)]
struct Stranger {
    authority: Arc<Authority>,
    endpoints: Vec<Endpoint>,
}

/// A connection with its control stream.
struct Client {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Stranger {
    fn new() -> Self {
        let endpoints = (1..=SOURCES).map(|last| {
            let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
            Endpoint::client(from).unwrap()
        });
        Self { authority: Arc::new(Authority::new()), endpoints: endpoints.collect() }
    }

    /// Connects, from another address for each number, and opens the control stream.
    async fn come(&self, at: SocketAddr, number: usize, config: Quic) -> Client {
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        let connecting = endpoint.connect_with(config, at, "relay").unwrap();
        let connection = timeout(LIMIT, connecting).await.expect("the relay answers").unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Client { connection, send, recv }
    }
}

impl Client {
    /// Offers the service, and waits until the relay has registered it.
    async fn register(&mut self) {
        self.send(REGISTER, r#"{"name":"rogue","services":["web"],"takeover":true}"#).await;
        self.hear(REGISTERED).await;
    }

    async fn send(&mut self, kind: u8, payload: &str) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&[kind][..], &length, payload.as_bytes()].concat();
        self.send.write_all(&frame).await.unwrap();
    }

    /// Waits for a message of a kind, and skips others.
    async fn hear(&mut self, kind: u8) {
        let heard = async {
            let mut others = Vec::new();
            loop {
                let mut header = [0; 5];
                self.recv.read_exact(&mut header).await.map_err(|error| (error, others.clone()))?;
                let [found, length @ ..] = header;
                let mut payload = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
                self.recv
                    .read_exact(&mut payload)
                    .await
                    .map_err(|error| (error, others.clone()))?;
                if found == kind {
                    return Ok(());
                }
                others.push(String::from_utf8_lossy(&payload).into_owned());
            }
        };
        let heard: Result<_, (quinn::ReadExactError, Vec<String>)> =
            timeout(LIMIT, heard).await.expect("the relay says something");
        heard.unwrap_or_else(|end| panic!("instead of {kind:#x}: {end:?}"));
    }

    /// Returns true if the client has sent STOP_SENDING.
    fn has_stopped(&self) -> bool {
        self.connection.stats().frame_tx.stop_sending > 0
    }
}

/// Lets all clients take a channel to the stranger's service, and stop reading.
async fn take_channels(stranger: &Stranger, at: SocketAddr) -> Vec<Client> {
    let (mut coming, mut clients) = (JoinSet::new(), Vec::new());
    for number in 0..CLIENTS {
        if coming.len() == AT_ONCE {
            clients.push(coming.join_next().await.unwrap().unwrap());
        }
        let stranger = stranger.clone();
        coming.spawn(async move {
            let config = stranger.authority.device();
            let mut client = stranger.come(at, number, config).await;
            client.send(CONNECT, r#"{"request":1,"service":"web"}"#).await;
            client.hear(MATCHED).await;
            client.recv.stop(0_u32.into()).unwrap();
            client
        });
    }
    clients.extend(coming.join_all().await);
    while !clients.iter().all(Client::has_stopped) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    clients
}

/// Returns the number of clients that the relay has not closed, after it had time to.
async fn still_open_after_a_while(clients: &[Client]) -> usize {
    let left =
        || clients.iter().filter(|client| client.connection.close_reason().is_none()).count();
    let all_closed = async {
        while left() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(LIMIT, all_closed).await;
    left()
}

/// The stranger's own CA.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "rogue");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns the configuration of another device.
    fn device(&self) -> Quic {
        self.configuration("device-0", ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Returns a configuration with a new key and a certificate of the CA. It accepts any relay.
    fn configuration(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Quic {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, usage];
        leaf.extended_key_usages.dedup();
        let leaf = leaf.signed_by(&key, &self.0).unwrap();
        quic(vec![leaf.der().clone(), self.0.der().clone()], &key)
    }
}

/// Returns the configuration of a client with this certificate.
fn quic(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Quic {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_auth_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"adit/1".to_vec()];
    let mut quic = Quic::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(10)));
    quic.transport_config(Arc::new(transport));
    quic
}

/// Accepts any relay as the right one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
