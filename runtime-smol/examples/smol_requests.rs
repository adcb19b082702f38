//! A service that answers requests on smol, and its client, with certificates that the example
//! makes.
//!
//! A request is one body with one answer: complete, in parts, or a failure with its reason.
//!
//! ```text
//! cargo run -p adit-smol --example smol_requests
//! ```
//!
//! In a package of your own it needs the feature `pki` of `adit-smol`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_smol::core::config::{Config, Dial};
use adit_smol::core::drive::IncomingRequest;
use adit_smol::core::error::{Code, Failure};
use adit_smol::core::pki::{Authority, Role};
use adit_smol::core::request::Request;
use adit_smol::core::tls::Tls;
use adit_smol::{Handle, Peer};

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
    ask(&peer).await?;

    client.shutdown();
    driver.await?;
    Ok(())
}

/// Makes three requests. Each waits for the connection, within its deadline.
async fn ask(peer: &Peer) -> Result<(), Box<dyn Error>> {
    let request = |body: &'static str| Request::new(body).deadline(Duration::from_secs(10));

    let count = peer.request(request("count one two three")).await?.collect().await?;
    assert_eq!(&count[..], b"3");
    println!("the answer is whole: {}", String::from_utf8_lossy(&count));

    let mut parts = Vec::new();
    let mut answer = peer.request(request("split one two three")).await?;
    while let Some(part) = answer.next().await? {
        parts.push(String::from_utf8(part.to_vec())?);
    }
    parts.retain(|part| !part.is_empty());
    assert_eq!(parts, ["one", "two", "three"]);
    println!("the answer came in parts: {}", parts.join(", "));

    let Err(failure) = peer.request(request("sing")).await else {
        return Err("a request that cannot be answered was".into());
    };
    assert_eq!(failure.code(), Code::NoSuchService);
    println!("the answer is a failure: {failure}");
    Ok(())
}

/// Serves each peer that connects, until the node ends.
async fn serve(node: Handle) {
    while let Some(peer) = node.accept().await {
        smol::spawn(async move {
            while let Some(request) = peer.accept_request().await {
                // An answer fails only if the peer has cancelled its request.
                let _ = answer(request).await;
            }
        })
        .detach();
    }
}

/// Counts or splits the words of a request.
async fn answer(request: IncomingRequest) -> Result<(), Box<dyn Error>> {
    let text = String::from_utf8_lossy(request.body()).into_owned();
    let (operation, words) = text.split_once(' ').unwrap_or((&text, ""));
    match operation {
        "count" => request.respond(words.split(' ').count().to_string())?,
        "split" => {
            let mut parts = request.stream();
            for word in words.split(' ') {
                parts.send(word.to_owned()).await?;
            }
            parts.finish().await?;
        }
        other => {
            let why = format!("{other:?} is neither \"count\" nor \"split\"");
            request.fail(&Failure::new(Code::NoSuchService, why))?;
        }
    }
    Ok(())
}

#[test]
fn the_example_runs_to_its_end() -> Result<(), Box<dyn Error>> {
    smol::block_on(smol::future::or(run(), async {
        smol::Timer::after(Duration::from_secs(20)).await;
        Err("it is still running".into())
    }))
}
