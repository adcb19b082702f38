//! Which settings of quinn and rustls are tuned, and which keep their defaults.
//!
//! It decides windows, socket buffers and the order of cipher suites. It never sets what would need
//! a changed quinn: packets keep the 1,452 bytes that path discovery finds by itself.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::crypto::{CryptoProvider, aws_lc_rs};
use quinn::rustls::pki_types::pem::PemObject as _;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::rustls::server::WebPkiClientVerifier;
use quinn::rustls::{self, CipherSuite, RootCertStore};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

/// Credit for one stream, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// Credit for a connection, and the most it keeps unacknowledged, in bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Concurrent TCP connections.
const STREAMS: u32 = 4096;
/// Kernel buffers of the UDP socket, in bytes; the kernel grants what its limits allow.
const SOCKET_BUFFER: usize = 4 << 20;
const ALPN: &[u8] = b"reference";

pub(super) fn endpoint(bind: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&bind.into())?;
    let runtime = quinn::default_runtime().context("no runtime")?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket.into(), runtime)?)
}

pub(super) fn server(dir: &Path) -> Result<ServerConfig> {
    let (chain, key) = identity(dir, "connector")?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(dir)?), provider()).build()?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport()?);
    Ok(config)
}

pub(super) fn client(dir: &Path) -> Result<ClientConfig> {
    let (chain, key) = identity(dir, "agent")?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(dir)?)
        .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport()?);
    Ok(config)
}

fn transport() -> Result<Arc<TransportConfig>> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_idle_timeout(Some(Duration::from_secs(30).try_into()?))
        .keep_alive_interval(Some(Duration::from_secs(5)));
    Ok(Arc::new(config))
}

/// Returns the stock provider with AES-128-GCM first: it is the fastest of the three.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn roots(dir: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem"))?)?;
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(dir: &Path, name: &str) -> Result<Identity> {
    let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{name}.pem")))?];
    Ok((chain, PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key")))?))
}
