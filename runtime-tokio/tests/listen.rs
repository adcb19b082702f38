//! `listen` and `connect` meet.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_core::config::{Config, Dial};
use adit_core::testing::pki::{Pki, Role, Validity};
use adit_core::tls::Tls;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A configuration that does not say whether it listens, with a certificate of these decades.
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
    let (server, mut driver) = adit_tokio::listen(LOOPBACK, config("connector")?)?;
    let address = driver.io().local_addr()?;
    tokio::spawn(driver);
    let dial = Dial::new(address, "connector");
    let (_client, peer, driver) = adit_tokio::connect(config("agent")?, dial)?;
    tokio::spawn(driver);
    let accepted = tokio::time::timeout(Duration::from_secs(10), server.accept()).await?;
    assert_eq!(accepted.ok_or("the node ended")?.names(), ["agent"]);
    peer.connected().await?;
    Ok(())
}
