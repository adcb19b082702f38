//! A peer that speaks only QUIC: it sends whatever a test wants, and breaks any rule above QUIC's
//! own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::testing::clock::EPOCH;
use adit_core::testing::net::HostId;
use adit_core::testing::pair::{CONNECTOR, CONNECTOR_ADDRESS};
use adit_core::testing::pki::{Issued, Pki};
use adit_core::testing::world::World;
use adit_core::tls::ALPN;
use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, StreamId, TransportConfig, VarInt,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

#[derive(Debug)]
struct AtEpoch;

impl rustls::time_provider::TimeProvider for AtEpoch {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(EPOCH))
    }
}

/// A bare QUIC client on a host that runs no node.
pub(crate) struct Raw {
    host: HostId,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub(crate) connection: Connection,
    events: Vec<Event>,
    timeout: Option<Instant>,
}

impl Raw {
    /// Begins a handshake with the connector.
    pub(crate) fn new(world: &mut World, host: HostId, issued: &Issued) -> Self {
        let config = client(world, host, issued.chain(), issued.key());
        let endpoint = Arc::new(EndpointConfig::default());
        let mut endpoint = Endpoint::new(endpoint, None, true, Some([9; 32]));
        let (handle, connection) =
            endpoint.connect(world.now(), config, CONNECTOR_ADDRESS, CONNECTOR).unwrap();
        let mut raw = Self { host, endpoint, handle, connection, events: vec![], timeout: None };
        raw.pump(world);
        raw
    }

    /// Handles what arrived and sends what is to be sent.
    pub(crate) fn pump(&mut self, world: &mut World) {
        let now = world.now();
        let mut answer = Vec::new();
        while let Some(packet) = world.receive(self.host) {
            let data = BytesMut::from(&packet.payload[..]);
            let event = self.endpoint.handle(now, packet.from, None, None, data, &mut answer);
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                self.connection.handle_event(event);
            }
        }
        if self.timeout.is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        let mut out = Vec::new();
        loop {
            while let Some(event) = self.connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                    self.connection.handle_event(event);
                }
            }
            while let Some(event) = self.connection.poll() {
                self.events.push(event);
            }
            out.clear();
            let Some(transmit) = self.connection.poll_transmit(now, 1, &mut out) else { break };
            world.send(self.host, transmit.destination, &out[..transmit.size]);
        }
        self.timeout = self.connection.poll_timeout();
    }

    /// Advances the world to the next event, here or there, until `until`. Returns true if there
    /// was one.
    pub(crate) fn step(&mut self, world: &mut World, until: Instant) -> bool {
        self.pump(world);
        let mine = self.timeout.map_or(until, |at| at.max(world.now()).min(until));
        let happened = world.step(mine);
        self.pump(world);
        happened || mine < until
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, world: &mut World, time: Duration) {
        let until = world.now() + time;
        while self.step(world, until) {}
    }

    /// Opens a stream, unless the victim allows no more.
    pub(crate) fn open(&mut self) -> Option<StreamId> {
        self.connection.streams().open(Dir::Bi)
    }

    /// Writes as much as the windows allow.
    pub(crate) fn write(&mut self, stream: StreamId, data: &[u8]) -> usize {
        self.connection.send_stream(stream).write(data).unwrap_or(0)
    }

    pub(crate) fn finish(&mut self, stream: StreamId) {
        // It may be over already.
        let _ = self.connection.send_stream(stream).finish();
    }

    pub(crate) fn reset(&mut self, stream: StreamId) {
        // It may be over already.
        let _ = self.connection.send_stream(stream).reset(VarInt::from_u32(7));
    }

    pub(crate) fn stop(&mut self, stream: StreamId) {
        // It may be over already.
        let _ = self.connection.recv_stream(stream).stop(VarInt::from_u32(7));
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self, stream: StreamId) -> Vec<u8> {
        let (mut bytes, mut stream) = (Vec::new(), self.connection.recv_stream(stream));
        let Ok(mut chunks) = stream.read(true) else { return bytes };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            bytes.extend_from_slice(&chunk.bytes);
        }
        let _ = chunks.finalize();
        bytes
    }

    pub(crate) fn send_datagram(&mut self, data: &[u8]) {
        self.connection.datagrams().send(Bytes::copy_from_slice(data), true).unwrap();
    }

    /// Returns why the connection ended, if it did.
    pub(crate) fn end(&self) -> Option<String> {
        self.events.iter().find_map(|event| {
            if let Event::ConnectionLost { reason } = event {
                Some(reason.to_string())
            } else {
                None
            }
        })
    }
}

/// Returns a client without any limit that would protect the connector.
pub(crate) fn client(
    world: &World,
    host: HostId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_details(
        world.crypto(host).provider(),
        Arc::new(AtEpoch),
    )
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates(Pki::new().roots())
    .with_client_auth_cert(chain, key)
    .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(None)
        .stream_receive_window(VarInt::from_u32(20_000))
        .receive_window(VarInt::from_u32(200_000))
        .datagram_send_buffer_size(8 << 20)
        .send_window(64 << 20);
    config.transport_config(Arc::new(transport));
    config
}

/// First packets of handshakes that are never finished.
pub(crate) struct FirstPackets {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl FirstPackets {
    /// Returns the packets of a host that runs no node.
    pub(crate) fn new(world: &World, host: HostId, issued: &Issued) -> Self {
        let endpoint =
            Endpoint::new(Arc::new(EndpointConfig::default()), None, true, Some([8; 32]));
        Self { endpoint, config: client(world, host, issued.chain(), issued.key()) }
    }

    /// Returns one that differs from every other.
    pub(crate) fn make(&mut self, now: Instant) -> Vec<u8> {
        let (config, mut bytes) = (self.config.clone(), Vec::new());
        let begun = self.endpoint.connect(now, config, CONNECTOR_ADDRESS, CONNECTOR);
        let (_, mut connection) = begun.unwrap();
        let transmit = connection.poll_transmit(now, 1, &mut bytes).unwrap();
        assert_eq!(transmit.size, bytes.len());
        bytes
    }
}
