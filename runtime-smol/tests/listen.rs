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

#[test]
fn listen_accepts_what_connect_dials() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let (server, driver) = adit_smol::listen(LOOPBACK, config("connector")?)?;
        let address = server.local_addr()?;
        smol::spawn(driver).detach();
        let dial = Dial::new(address, "connector");
        let (_client, peer, driver) = adit_smol::connect(config("agent")?, dial)?;
        smol::spawn(driver).detach();
        let accepted = smol::future::or(server.accept(), async {
            smol::Timer::after(LIMIT).await;
            None
        });
        assert_eq!(accepted.await.ok_or("nobody came in time")?.names(), ["agent"]);
        peer.connected().await?;
        Ok(())
    })
}

#[test]
fn a_peer_that_leaves_on_connecting_is_gone_immediately() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let (server, driver) = adit_smol::listen(LOOPBACK, config("connector")?)?;
        let address = server.local_addr()?;
        smol::spawn(driver).detach();
        for _ in 0..20 {
            let dial = Dial::new(address, "connector");
            let (client, peer, driver) = adit_smol::connect(config("agent")?, dial)?;
            let driver = smol::spawn(driver);
            peer.connected().await?;
            client.shutdown();
            driver.await?;
            let gone = async {
                while !server.snapshot().peers.is_empty() {
                    smol::Timer::after(Duration::from_millis(5)).await;
                }
                true
            };
            let late = async {
                smol::Timer::after(Duration::from_secs(5)).await;
                false
            };
            assert!(smol::future::or(gone, late).await, "it is still there");
        }
        Ok(())
    })
}
