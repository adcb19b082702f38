//! A node made by `listen` accepts one made by `connect`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_core::config::{Config, Dial};
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::Tls;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Longest wait for an expected event.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns a configuration without a setting for listening, with a certificate that is valid for
/// decades.
fn config(name: &str) -> Result<Config, Box<dyn Error>> {
    let validity = Validity {
        not_before: Duration::from_secs(1_700_000_000),
        not_after: Duration::from_secs(2_500_000_000),
    };
    let issued = Pki::new().issue_valid(name, Role::Connector, validity);
    Ok(Config::builder(Tls::new(issued.identity(), Pki::new().trust())).build()?)
}

#[tokio::test]
async fn listen_accepts_what_connect_dials() -> Result<(), Box<dyn Error>> {
    let (server, driver) = adit_tokio::listen(LOOPBACK, config("connector")?)?;
    let address = server.local_addr()?;
    tokio::spawn(driver);
    let dial = Dial::new(address, "connector");
    let (_client, peer, driver) = adit_tokio::connect(config("agent")?, dial)?;
    tokio::spawn(driver);
    let accepted = tokio::time::timeout(LIMIT, server.accept()).await?;
    assert_eq!(accepted.ok_or("the node ended")?.names(), ["agent"]);
    peer.connected().await?;
    Ok(())
}

#[tokio::test]
async fn a_peer_that_leaves_on_connecting_is_gone_immediately() -> Result<(), Box<dyn Error>> {
    let (server, driver) = adit_tokio::listen(LOOPBACK, config("connector")?)?;
    let address = server.local_addr()?;
    tokio::spawn(driver);
    for _ in 0..20 {
        let dial = Dial::new(address, "connector");
        let (client, peer, driver) = adit_tokio::connect(config("agent")?, dial)?;
        let driver = tokio::spawn(driver);
        peer.connected().await?;
        client.shutdown();
        driver.await??;
        let gone = async {
            while !server.snapshot().peers.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, gone).await?;
    }
    Ok(())
}
