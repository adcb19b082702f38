//! A relay embedded in a program on tokio, and two nodes that connect through it, with certificates
//! that the example makes.
//!
//! The relay trusts any key and forwards packets that it cannot read. Its clients identify it by
//! the digest of its key, and each other by the authority of their mesh. Nodes that can reach each
//! other continue without the relay as soon as a direct path is validated.
//!
//! ```text
//! cargo run -p adit-tokio --example tokio_relay
//! ```
//!
//! In a package of your own it needs the feature `pki` of `adit-tokio`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::event::Event;
use adit_tokio::core::pki::{Authority, Issued, Role};
use adit_tokio::core::relay;
use adit_tokio::core::relay::Register;
use adit_tokio::core::tls::{KeyDigest, Tls, Trust};
use adit_tokio::{Handle, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The DNS name in the connector's certificate, which the agent requires.
const CONNECTOR: &str = "connector.example";

/// The DNS name in the relay's certificate. Clients verify its key and not its issuer.
const RELAY: &str = "relay.example";

/// Any free port of the loopback address.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await
}

async fn run() -> Result<(), Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let relay = Relay::start(now)?;

    let mesh = Authority::new("example mesh", now)?;
    let issued = mesh.issue(CONNECTOR, Role::Connector, now)?;
    let connector = relay.client(&issued, &mesh)?;
    let mut events = connector.events();
    connector.register(Some(Register {
        name: CONNECTOR.to_owned(),
        services: vec!["greeting".parse()?],
        guests: Vec::new(),
        revoked: Vec::new(),
        takeover: true,
    }));
    while !matches!(events.next().await, Some(Event::Registered { .. })) {}
    let _service = tokio::spawn(greet(connector));

    let agent = relay.client(&mesh.issue("agent.example", Role::Agent, now)?, &mesh)?;
    let peer = agent.dial(Dial::service("greeting".parse()?, CONNECTOR))?;
    peer.connected().await?;
    let mut stream = Stream::from(peer.open("greeting".parse()?).await?);
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await?;
    assert_eq!(greeting, "hello from behind the relay");
    println!("{greeting}");
    Ok(())
}

/// A relay that this program runs.
struct Relay {
    handle: Handle,
    key: KeyDigest,
}

impl Relay {
    fn start(now: Duration) -> Result<Self, Box<dyn Error>> {
        let issued = Authority::new("relay operator", now)?.issue(RELAY, Role::Relay, now)?;
        let key = KeyDigest::of_certificate(&issued.chain()[0]).ok_or("no certificate")?;
        let tls = Tls::new(issued.identity(), Trust::anyone());
        let config = Config::builder(tls).relay(relay::RelayConfig::default()).build()?;
        let (handle, driver) = adit_tokio::listen(LOOPBACK, config)?;
        tokio::spawn(driver);
        Ok(Self { handle, key })
    }

    /// Starts a node with this certificate that accepts members of its mesh through the relay.
    fn client(&self, issued: &Issued, mesh: &Authority) -> Result<Handle, Box<dyn Error>> {
        let config = Config::builder(Tls::new(issued.identity(), mesh.trust()?));
        let (handle, driver) = adit_tokio::listen(LOOPBACK, config.build()?)?;
        tokio::spawn(driver);
        // To the relay it shows the authority of its mesh as well, which scopes names there.
        let shown = issued.identity().presenting(mesh.certificate_pem().as_bytes())?;
        let tls = Tls::new(shown, Trust::pinned_leaf(self.key));
        handle.dial(Dial::relay(self.handle.local_addr()?, RELAY, tls))?;
        Ok(handle)
    }
}

/// Greets each peer that connects on each of its streams, until the node ends.
async fn greet(node: Handle) {
    while let Some(peer) = node.accept().await {
        tokio::spawn(async move {
            while let Some(incoming) = peer.accept_stream().await {
                let mut stream = Stream::from(incoming.accept());
                // A peer that has gone needs no greeting.
                if stream.write_all(b"hello from behind the relay").await.is_ok() {
                    let _ = stream.shutdown().await;
                }
            }
        });
    }
}

#[tokio::test]
async fn the_example_runs_to_its_end() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(Duration::from_secs(20), run()).await?
}
