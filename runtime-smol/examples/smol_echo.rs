//! An echo service and its client on smol, with certificates that the example makes.
//!
//! Both ends run in this process. On two machines each device gets its own certificate and key, and
//! both get the certificate of the authority.
//!
//! ```text
//! cargo run -p adit-smol --example smol_echo
//! ```
//!
//! In a package of your own it needs the feature `pki` of `adit-smol`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use adit_smol::core::config::{Config, Dial};
use adit_smol::core::error::{Code, Failure};
use adit_smol::core::pki::{Authority, Role};
use adit_smol::core::tls::Tls;
use adit_smol::{Handle, Peer, Stream};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The DNS name in the connector's certificate, which the agent requires.
const CONNECTOR: &str = "connector.example";

/// Any free port of the loopback address.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let authority = Authority::new("example mesh", now)?;
    let connector = authority.issue(CONNECTOR, Role::Connector, now)?;
    let agent = authority.issue("agent.example", Role::Agent, now)?;

    let config = Config::builder(Tls::new(connector.identity(), authority.trust()?)).build()?;
    let (server, driver) = adit_smol::listen(LOOPBACK, config)?;
    let _driver = smol::spawn(driver);
    let _service = smol::spawn(serve(server.clone()));

    let config = Config::builder(Tls::new(agent.identity(), authority.trust()?)).build()?;
    let dial = Dial::new(server.local_addr()?, CONNECTOR);
    let (client, peer, driver) = adit_smol::connect(config, dial)?;
    let driver = smol::spawn(driver);
    peer.connected().await?;
    let answer = echo(&peer, b"hello").await?;
    assert_eq!(answer, b"hello");
    println!("{} answered: {}", peer.names().join(", "), String::from_utf8(answer)?);

    client.shutdown();
    driver.await?;
    Ok(())
}

/// Serves each peer that connects, until the node ends.
async fn serve(node: Handle) {
    while let Some(peer) = node.accept().await {
        smol::spawn(serve_peer(peer)).detach();
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
        smol::spawn(async move {
            // A copy that ends early has lost its peer, which then needs no answer.
            if smol::io::copy(&mut recv, &mut send).await.is_ok() {
                let _ = send.close().await;
            }
        })
        .detach();
    }
}

/// Sends bytes to the service and reads its answer to the end.
async fn echo(peer: &Peer, bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut stream = Stream::from(peer.open("echo".parse()?).await?);
    stream.write_all(bytes).await?;
    stream.close().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[test]
fn the_example_runs_to_its_end() -> Result<(), Box<dyn Error>> {
    smol::block_on(smol::future::or(run(), async {
        smol::Timer::after(std::time::Duration::from_secs(20)).await;
        Err("it is still running".into())
    }))
}
