//! The configuration objects of quinn-proto, with every knob set from our configuration.
//!
//! Its defaults are wrong for a public server: unlimited receive window, 65,536 half-open
//! handshakes with 100 MiB of buffers. A test below checks ours.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ConnectionId, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, NoneTokenStore, TimeSource,
    TransportConfig, VarInt,
};

use super::cid::{self, IssuedCids, SeededCids};
use super::congestion::Controllers;
use super::stall::Flight;
use super::{ClientConfig, Layer};
use crate::clock::WallClock;
use crate::config::{Config, Transport};
use crate::rng::Rng;
use crate::tls::{Tls, TlsError, Verifiers};

/// Half-open handshakes the endpoint keeps before it answers none at all.
const MAX_INCOMING: usize = 1_024;
/// Bytes kept for one half-open handshake that has not been accepted yet.
const INCOMING_BUFFER: u64 = 64 << 10;
/// The same for all of them.
const INCOMING_BUFFER_TOTAL: u64 = 8 << 20;
/// Streams that each side may open before the other knows it. The transport keeps a place for each,
/// 70 bytes: 1,024 of them would be most of the memory of a handshake.
const UNAUTHENTICATED_STREAMS: u32 = 8;
/// Streams that an authenticated peer may open first; the number doubles whenever more than half of
/// it is open, up to the configured limit: an idle connection uses 9 KiB for them.
pub(super) const STREAMS_OF_A_PEER: u32 = 128;
/// How long the proof of an address counts: as long as a dialer repeats it, since a first packet
/// beyond the limits is ignored and comes again with the same proof.
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(30);
/// Bytes of out-of-order handshake data: two certificate chains of ordinary size.
const CRYPTO_BUFFER: usize = 32 << 10;

#[cfg(not(feature = "ring"))]
use aws_lc_rs::{hkdf, hmac};
#[cfg(feature = "ring")]
use ring::{hkdf, hmac};

/// Largest packet to and from a relay: every path that carries IPv6 carries it (RFC 8200 §5), and
/// an overlay packet of 1,200 bytes fits into it whole.
const UNDERLAY_PAYLOAD: u16 = 1_280;

/// How soon an end-to-end connection probes again for its packet size: its path may have changed
/// meanwhile, and the transport is not notified of that.
const OVERLAY_MTU_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of datagrams that wait to be sent to a relay, or by one: a batch of the largest, twice.
pub(super) const UNDERLAY_DATAGRAMS: usize = 1 << 20;

fn transport(t: &Transport, layer: Layer, flight: &Arc<Flight>, rng: Rng) -> Arc<TransportConfig> {
    let mut config = common(t);
    // The carried packets of an underlay connection are under congestion control end to end, and a
    // second control below would only delay the signals of the first one (RFC 9298 §6). A relay
    // polices each client's rate.
    let congestion = (layer != Layer::Underlay).then_some(t.congestion);
    let controllers = Controllers { congestion, rng, flight: flight.clone() };
    config.congestion_controller_factory(Arc::new(controllers));
    let mut mtu = MtuDiscoveryConfig::default();
    match layer {
        Layer::Direct => {
            mtu.upper_bound(t.max_udp_payload);
        }
        Layer::Underlay => {
            mtu.upper_bound(UNDERLAY_PAYLOAD.min(t.max_udp_payload));
            config
                .datagram_receive_buffer_size(Some(UNDERLAY_DATAGRAMS))
                .datagram_send_buffer_size(UNDERLAY_DATAGRAMS);
        }
        Layer::Overlay => {
            mtu.upper_bound(t.max_udp_payload).interval(OVERLAY_MTU_INTERVAL);
        }
    }
    config.mtu_discovery_config(Some(mtu));
    Arc::new(config)
}

fn common(t: &Transport) -> TransportConfig {
    let idle = u32::try_from(t.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(t.max_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(t.keep_alive))
        .stream_receive_window(VarInt::from_u32(t.stream_window))
        .receive_window(VarInt::from_u32(t.connection_window))
        .send_window(t.send_window.into())
        .send_fairness(true)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .datagram_receive_buffer_size(Some(t.datagram_receive_buffer as usize))
        .datagram_send_buffer_size(t.datagram_send_buffer as usize)
        .allow_spin(false);
    config
}

/// Label that separates stateless resets from every other use of the identity's key.
const RESET_LABEL: &[u8] = b"adit/1 stateless reset";
/// The same for the tokens of a Retry.
const TOKEN_LABEL: &[u8] = b"adit/1 retry token";

pub(super) fn endpoint(config: &Config, issued: IssuedCids, rng: &mut Rng) -> EndpointConfig {
    let t = &config.transport;
    // From the identity and not from the seed: a node that was killed and restarted can immediately
    // notify its peers that their connections are gone (RFC 9000 §10.3.2).
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &config.tls.derive(RESET_LABEL));
    let cids = rng.seed();
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint
        .rng_seed(Some(rng.seed()))
        .cid_generator(move || Box::new(SeededCids::new(Rng::new(cids, "cid"), issued.clone())))
        // Keeps the first byte of QUIC packets in its classic ranges, so that probes can share
        // the socket (RFC 9443).
        .grease_quic_bit(false);
    // The configuration checked this range.
    if endpoint.max_udp_payload_size(t.max_udp_payload).is_err() {
        tracing::error!("max_udp_payload {} refused", t.max_udp_payload);
    }
    endpoint
}

/// The state that an endpoint keeps when its identity or its trust is replaced.
pub(super) struct Setup {
    transport: Transport,
    wall: WallClock,
    dst_cids: Arc<dyn Fn() -> ConnectionId + Send + Sync>,
    /// Seed of the keys of Retry tokens, which stay valid after the identity is replaced, and after
    /// a restart.
    token_seed: [u8; 32],
    /// Seed of the generators of congestion controllers.
    congestion_seed: [u8; 32],
}

impl Setup {
    pub(super) fn new(config: &Config, wall: &WallClock, rng: &mut Rng) -> Self {
        let max_streams = config.transport.max_streams.min(UNAUTHENTICATED_STREAMS);
        let connection_window = config.transport.receive_window();
        Self {
            transport: Transport { max_streams, connection_window, ..config.transport.clone() },
            wall: wall.clone(),
            dst_cids: cid::initial_dst_cids(Rng::new(rng.seed(), "dst cid")),
            token_seed: config.tls.derive(TOKEN_LABEL),
            congestion_seed: rng.seed(),
        }
    }

    /// Returns the transport of one connection, which shares `flight` with its controllers.
    pub(super) fn transport(
        &self,
        layer: Layer,
        flight: &Arc<Flight>,
        connection: u64,
    ) -> Arc<TransportConfig> {
        let rng = Rng::new(self.congestion_seed, &format!("congestion {connection}"));
        transport(&self.transport, layer, flight, rng)
    }

    pub(super) fn server(
        &self,
        tls: &Tls,
        verifiers: &Verifiers,
        layer: Layer,
    ) -> Result<Arc<quinn_proto::ServerConfig>, TlsError> {
        let crypto = QuicServerConfig::try_from(tls.server(verifiers, &self.wall)?)
            .map_err(|e| TlsError::Provider(e.to_string()))?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.token_seed);
        let mut server = quinn_proto::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        server
            .transport_config(self.transport(layer, &Arc::default(), 0))
            // The address of an end-to-end connection is a name that never changes.
            .migration(layer != Layer::Overlay)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL)
            .retry_token_lifetime(RETRY_TOKEN_LIFETIME)
            .time_source(Arc::new(WallTimeSource(self.wall.clone())));
        // No tokens for later connections: they would remain valid after the certificate checks.
        let mut tokens = quinn_proto::ValidationTokenConfig::default();
        tokens.sent(0);
        server.validation_token_config(tokens);
        Ok(Arc::new(server))
    }

    pub(super) fn client(
        &self,
        tls: &Tls,
        verifiers: &Verifiers,
        layer: Layer,
    ) -> Result<ClientConfig, TlsError> {
        let crypto = QuicClientConfig::try_from(tls.client(verifiers, &self.wall)?)
            .map_err(|e| TlsError::Provider(e.to_string()))?;
        let mut client = quinn_proto::ClientConfig::new(Arc::new(crypto));
        client
            .transport_config(self.transport(layer, &Arc::default(), 0))
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(self.dst_cids.clone());
        Ok(ClientConfig { config: client, layer })
    }
}

#[derive(Debug)]
struct WallTimeSource(WallClock);

impl TimeSource for WallTimeSource {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.unix()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_transport_default_that_a_peer_could_abuse_is_left() {
        let shown = format!(
            "{:?}",
            transport(&Transport::default(), Layer::Direct, &Arc::default(), Rng::new([0; 32], ""))
        );
        for set in [
            "max_concurrent_bidi_streams: 1024",
            "max_concurrent_uni_streams: 0",
            "receive_window: 67108864",
            "stream_receive_window: 16777216",
            "send_window: 8388608",
            "keep_alive_interval: Some(10s)",
            "max_idle_timeout: Some(60000)",
            "crypto_buffer_size: 32768",
        ] {
            assert!(shown.contains(set), "{set} is not in {shown}");
        }
    }
}
