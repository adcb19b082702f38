//! An echo service and its client on tokio, with certificates that the example makes.
//!
//! Both ends run in this process. On two machines each device gets its own certificate and key, and
//! both get the certificate of the authority.
//!
//! ```text
//! cargo run -p adit-tokio --example tokio_echo
//! ```
//!
//! In a package of your own it needs the feature `pki` of `adit-tokio`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::error::{Code, Failure};
use adit_tokio::core::pki::{Authority, Role};
use adit_tokio::core::tls::Tls;
use adit_tokio::{Handle, Peer, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The DNS name in the connector's certificate, which the agent requires.
const CONNECTOR: &str = "connector.example";

/// Any free port of the loopback address.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await
}

async fn run() -> Result<(), Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let authority = Authority::new("example mesh", now)?;
    let connector = authority.issue(CONNECTOR, Role::Connector, now)?;
    let agent = authority.issue("agent.example", Role::Agent, now)?;

    let config = Config::builder(Tls::new(connector.identity(), authority.trust()?)).build()?;
    let (server, driver) = adit_tokio::listen(LOOPBACK, config)?;
    let _driver = tokio::spawn(driver);
    let _service = tokio::spawn(serve(server.clone()));

    let config = Config::builder(Tls::new(agent.identity(), authority.trust()?)).build()?;
    let dial = Dial::new(server.local_addr()?, CONNECTOR);
    let (client, peer, driver) = adit_tokio::connect(config, dial)?;
    let driver = tokio::spawn(driver);
    peer.connected().await?;
    let answer = echo(&peer, b"hello").await?;
    assert_eq!(answer, b"hello");
    println!("{} answered: {}", peer.names().join(", "), String::from_utf8(answer)?);

    client.shutdown();
    driver.await??;
    Ok(())
}

/// Serves each peer that connects, until the node ends.
async fn serve(node: Handle) {
    while let Some(peer) = node.accept().await {
        tokio::spawn(serve_peer(peer));
    }
}

/// Echoes each stream to "echo", and rejects every other service.
async fn serve_peer(peer: Peer) {
    while let Some(incoming) = peer.accept_stream().await {
        if incoming.service().as_ref() != "echo" {
            incoming.refuse(&Failure::new(Code::NoSuchService, "only \"echo\" is here"));
            continue;
        }
        let (mut send, mut recv) = Stream::from(incoming.accept()).split();
        tokio::spawn(async move {
            // A copy that ends early has lost its peer, which then needs no answer.
            if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
                let _ = send.shutdown().await;
            }
        });
    }
}

/// Sends bytes to the service and reads its answer to the end.
async fn echo(peer: &Peer, bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut stream = Stream::from(peer.open("echo".parse()?).await?);
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn the_example_runs_to_its_end() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(std::time::Duration::from_secs(20), run()).await?
}
