//! A relay with several addresses, or with another one than before: a link that falls silent is
//! replaced beside it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_tokio::core::config::{Config, Transport};
use adit_tokio::core::relay::RelayConfig;
use adit_tokio::core::tls::KeyDigest;
use tokio::net::UdpSocket;

use super::*;
use crate::address::HostPort;
use crate::identity::throwaway::ThrowawayAuthority;
use crate::net::node;

const TEST_LIMIT: Duration = Duration::from_secs(60);
const ANY_PORT: &str = "127.0.0.1:0";

/// One address of a relay: what arrives is passed on, until it is dark.
struct Front {
    address: SocketAddr,
    is_dark: Arc<AtomicBool>,
    _task: Background<()>,
}

impl Front {
    async fn of(relay: SocketAddr) -> Self {
        let (outside, inside) =
            (UdpSocket::bind(ANY_PORT).await.unwrap(), UdpSocket::bind(ANY_PORT).await.unwrap());
        inside.connect(relay).await.unwrap();
        let (address, is_dark) = (outside.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let dark = is_dark.clone();
        let task = Background::spawn(async move {
            let (mut there, mut back, mut client) = ([0; 65_536], [0; 65_536], None);
            loop {
                tokio::select! {
                    Ok((size, from)) = outside.recv_from(&mut there) => {
                        client = Some(from);
                        if !dark.load(Ordering::Relaxed) {
                            let _ = inside.send(&there[..size]).await;
                        }
                    }
                    Ok(size) = inside.recv(&mut back) => {
                        if let Some(client) = client.filter(|_| !dark.load(Ordering::Relaxed)) {
                            let _ = outside.send_to(&back[..size], client).await;
                        }
                    }
                }
            }
        });
        Self { address, is_dark, _task: task }
    }
}

/// Returns a running relay, and its key.
fn relay(authority: &ThrowawayAuthority) -> (RunningNode, KeyDigest) {
    let identity = authority.device("relay").unwrap().identity().clone();
    let key = KeyDigest::of_certificate(&identity.chain()[0]).unwrap();
    let tls = Tls::new(identity, Trust::anyone());
    let config = Config::builder(tls).relay(RelayConfig::default()).build().unwrap();
    (node::start(ANY_PORT.parse().unwrap(), config).unwrap(), key)
}

/// Waits until the only relay of a node that is connected is the one at this address.
async fn is_only_at(handle: &Handle, address: SocketAddr) {
    let is_there = || {
        let peers = handle.snapshot().peers;
        let relays: Vec<_> = peers.iter().filter(|peer| peer.is_relay).collect();
        matches!(&relays[..], [one] if one.remote == address && one.credential.is_some())
    };
    let wait = async {
        while !is_there() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TEST_LIMIT, wait).await.expect("the relay is not used at that address");
}

/// Connects a node to a relay that has some addresses, lets the first go dark, and returns how it is
/// found at the second, which is known then.
async fn leaves_the_dark(before: impl Fn([SocketAddr; 2]) -> Vec<SocketAddr>) {
    let authority = ThrowawayAuthority::new().unwrap();
    let (relay, key) = relay(&authority);
    let [first, second] = [Front::of(relay.local).await, Front::of(relay.local).await];
    let names = Arc::new(Mutex::new(before([first.address, second.address])));
    let tls = authority.device("agent").unwrap();
    let (_identity, identity) = watch::channel(tls.identity().clone());
    let (_change, changed) = watch::channel(());
    let transport = Transport::default().keep_alive(Duration::from_millis(300));
    let config = Config::builder(tls).transport(transport).build().unwrap();
    let node = node::start_with_relays(ANY_PORT.parse().unwrap(), config).unwrap();
    let known = names.clone();
    let dialer = RelayDialer {
        handle: node.handle.clone(),
        relay_transports: node.relay_transports.clone(),
        relay: RelayAddress { at: HostPort::from(first.address), tcp: 9, key },
        identity,
        lookup: Arc::new(move || {
            let found = known.lock().unwrap().clone();
            Box::pin(std::future::ready(found))
        }),
        changed,
    };
    let _task = Background::spawn(dialer.run());
    is_only_at(&node.handle, first.address).await;
    first.is_dark.store(true, Ordering::Relaxed);
    *names.lock().unwrap() = vec![first.address, second.address];
    is_only_at(&node.handle, second.address).await;
}

#[tokio::test]
async fn a_relay_of_which_one_address_goes_dark_is_used_at_the_other() {
    leaves_the_dark(|both| both.to_vec()).await;
}

#[tokio::test]
async fn a_relay_that_moves_is_used_where_its_name_leads_now() {
    leaves_the_dark(|[first, _]| vec![first]).await;
}
