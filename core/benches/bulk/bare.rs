//! Two quinn-proto endpoints joined in memory: the floor under everything that the core adds.
//!
//! It decides how they are driven: batch by batch, each passed on whole and split by its
//! receiver, as a socket with segmentation offload would. It never loses, delays or reorders a
//! datagram.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    FinishError, MtuDiscoveryConfig, ReadError, ServerConfig, StreamId, TransportConfig, VarInt,
    WriteError,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, RootCertStore};

use super::stream::CHUNK;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Largest batch that one system call would take, in bytes.
const BATCH: usize = 65_507;
/// Maximum number of datagrams in a batch.
const SEGMENTS: usize = 44;
/// Bytes of a stream that pass before the clock starts: slow start and path discovery end in them.
pub(crate) const WARM_UP: u64 = 64 << 20;
/// A run without progress for this long has failed.
pub(crate) const STALL: Duration = Duration::from_secs(5);

/// What may differ between runs.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Largest UDP payload that path discovery may find, in bytes.
    pub(crate) mtu: u16,
    /// Maximum number of datagrams in a batch.
    pub(crate) segments: usize,
    /// Credit of the stream, in bytes.
    pub(crate) stream_window: u32,
    /// Credit of the connection, in bytes, and the most it keeps unacknowledged.
    pub(crate) window: u32,
}

impl Config {
    /// Returns the settings with the largest batches of packets of `mtu` bytes.
    pub(crate) fn of_mtu(mtu: u16) -> Self {
        Self {
            mtu,
            segments: (BATCH / usize::from(mtu)).clamp(1, SEGMENTS),
            stream_window: 2 << 20,
            window: 8 << 20,
        }
    }
}

/// Moves `bytes` over one stream on which [`WARM_UP`] bytes have passed before. Returns the time
/// until the end of the stream has been read.
pub(crate) fn bulk(bytes: u64, config: &Config) -> Result<Duration> {
    let (mut sender, mut receiver) = connected(config)?;
    let stream = sender.connection()?.streams().open(Dir::Uni).ok_or("no stream to open")?;
    let block = Bytes::from(vec![0x5a; CHUNK]);
    let (mut unsent, mut unread) = (bytes + WARM_UP, bytes + WARM_UP);
    let (mut start, mut progress) = (now(), now());
    let mut ended = false;
    while !ended {
        let now = now();
        unsent = write(sender.connection()?, stream, &block, unsent)?;
        let mut moved = sender.hand_over(&mut receiver, config.segments, now)?;
        let (read, end) = read(receiver.connection()?, stream)?;
        unread = unread.checked_sub(read).ok_or("more came out than went in")?;
        if unread >= bytes {
            start = now;
        }
        ended = end;
        moved |= receiver.hand_over(&mut sender, config.segments, now)?;
        if moved {
            progress = now;
        } else if now > progress + STALL {
            return Err("the transfer stalled".into());
        }
    }
    match unread {
        0 => Ok(start.elapsed()),
        missing => Err(format!("{missing} bytes are missing").into()),
    }
}

/// One endpoint with its one connection.
struct Side {
    addr: SocketAddr,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    batch: Vec<u8>,
}

impl Side {
    fn new(port: u16, server: Option<ServerConfig>) -> Result<Self> {
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(65_527)?;
        Ok(Self {
            addr: (Ipv4Addr::LOCALHOST, port).into(),
            endpoint: Endpoint::new(Arc::new(config), server.map(Arc::new), true, None),
            connection: None,
            batch: Vec::new(),
        })
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().map(|(_, it)| it).ok_or_else(|| "no connection yet".into())
    }

    /// Passes one batch to `peer`, if there is one, after any timers that are due.
    fn hand_over(&mut self, peer: &mut Self, segments: usize, now: Instant) -> Result<bool> {
        let Some((handle, connection)) = &mut self.connection else { return Ok(false) };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        self.batch.clear();
        let Some(transmit) = connection.poll_transmit(now, segments, &mut self.batch) else {
            return Ok(false);
        };
        let mut batch = BytesMut::from(&self.batch[..transmit.size]);
        let segment = transmit.segment_size.unwrap_or(transmit.size);
        while !batch.is_empty() {
            peer.receive(self.addr, batch.split_to(segment.min(batch.len())), now)?;
        }
        Ok(true)
    }

    fn receive(&mut self, from: SocketAddr, datagram: BytesMut, now: Instant) -> Result<()> {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, None, None, datagram, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                self.connection()?.handle_event(event)
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                self.connection = Some(accepted.map_err(|e| e.cause)?);
            }
            Some(DatagramEvent::Response(_)) => return Err("a stateless answer".into()),
            None => {}
        }
        Ok(())
    }
}

/// Writes as much as the stream accepts. Returns the number of bytes still to send.
fn write(connection: &mut Connection, id: StreamId, block: &Bytes, mut unsent: u64) -> Result<u64> {
    let mut stream = connection.send_stream(id);
    while unsent > 0 {
        let size = usize::try_from(unsent).map_or(CHUNK, |unsent| unsent.min(CHUNK));
        match stream.write_chunks(&mut [block.slice(..size)]) {
            Ok(written) => unsent -= written.bytes as u64,
            Err(WriteError::Blocked) => return Ok(unsent),
            Err(e) => return Err(e.into()),
        }
    }
    match stream.finish() {
        Ok(()) | Err(FinishError::ClosedStream) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Reads what has arrived. Returns the number of bytes, and true if that was the end.
fn read(connection: &mut Connection, id: StreamId) -> Result<(u64, bool)> {
    let mut taken = 0;
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Ok((0, false)) };
    let ended = loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => taken += std::hint::black_box(chunk).bytes.len() as u64,
            Ok(None) => break true,
            Err(ReadError::Blocked) => break false,
            Err(e) => return Err(e.into()),
        }
    };
    let _ = chunks.finalize();
    Ok((taken, ended))
}

/// Returns two sides that have finished the handshake.
fn connected(config: &Config) -> Result<(Side, Side)> {
    let (client, server) = tls(config)?;
    let mut sender = Side::new(1, None)?;
    let mut receiver = Side::new(2, Some(server))?;
    let start = now();
    sender.connection = Some(sender.endpoint.connect(start, client, receiver.addr, "bench")?);
    loop {
        let now = now();
        let moved = sender.hand_over(&mut receiver, 1, now)?;
        let moved = receiver.hand_over(&mut sender, 1, now)? || moved;
        let is_handshaking = sender.connection()?.is_handshaking()
            || receiver.connection.as_ref().is_none_or(|(_, it)| it.is_handshaking());
        if !moved && !is_handshaking {
            return Ok((sender, receiver));
        }
        if now > start + STALL {
            return Err("the handshake stalled".into());
        }
    }
}

fn tls(config: &Config) -> Result<(ClientConfig, ServerConfig)> {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.mtu);
    transport
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(config.stream_window))
        .receive_window(VarInt::from_u32(config.window))
        .send_window(u64::from(config.window));
    let transport = Arc::new(transport);

    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["bench".into()])?.signed_by(&key, &ca)?;
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let roots = Arc::new(roots);

    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;

    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport.clone());
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(transport);
    Ok((client, server))
}

/// Returns a provider that prefers AES-128-GCM.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
