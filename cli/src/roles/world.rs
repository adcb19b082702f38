//! For tests: a connector without services of its own and a member, on loopback in this process.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use adit_tokio::core::config::{Config, Dial};
use adit_tokio::core::drive::{Peer, Stream};
use adit_tokio::core::tls::{KeyDigest, Tls};
use tokio::time::timeout;

use super::serving::serve;
use crate::base::task::Background;
use crate::config::ForwardLimits;
use crate::forward::egress::Services;
use crate::forward::egress::builtin::Builtin;
use crate::identity::throwaway::ThrowawayAuthority;
use crate::net::node::{self, RunningNode};

/// Longest wait for an expected event.
pub(crate) const TEST_LIMIT: Duration = Duration::from_secs(10);

/// A connector and its connected peer.
pub(crate) struct TestTunnel {
    pub(crate) peer: Peer,
    pub(crate) connector: RunningNode,
    _member: RunningNode,
    _serving: Option<Background<()>>,
}

impl TestTunnel {
    /// Returns a connector that accepts this many connections at a time.
    pub(crate) async fn new(connections: usize) -> Self {
        Self::without_services().await.serving(connections)
    }

    /// Returns a connector without services.
    pub(crate) async fn without_services() -> Self {
        let authority = ThrowawayAuthority::new().unwrap();
        let device = |name| authority.device(name).unwrap();
        Self::between(device("connector"), device("member")).await
    }

    /// Returns a connector, and a guest that it has invited and knows only by the invite.
    pub(crate) async fn with_guest() -> Self {
        let (authority, stranger) =
            (ThrowawayAuthority::new().unwrap(), ThrowawayAuthority::new().unwrap());
        let guest = stranger.device("laptop").unwrap().identity().clone();
        let key = KeyDigest::of_certificate(&guest.chain()[0]).unwrap();
        let trust = authority.trust().unwrap().with_guests([(key, Duration::MAX)].into());
        let connector = authority.device("connector").unwrap().identity().clone();
        let guest = Tls::new(guest, authority.trust().unwrap());
        Self::between(Tls::new(connector, trust), guest).await.serving(1)
    }

    async fn between(connector: Tls, member: Tls) -> Self {
        let start = |address, tls, listening| {
            let config = Config::builder(tls).listening(listening).build().unwrap();
            node::start(address, config).unwrap()
        };
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let address = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        let (connector, member) = (start(address, connector, true), start(any, member, false));
        let peer = member.handle.dial(Dial::new(address, "connector")).unwrap();
        timeout(TEST_LIMIT, peer.connected()).await.unwrap().unwrap();
        Self { peer, connector, _member: member, _serving: None }
    }

    fn serving(self, connections: usize) -> Self {
        let limits = ForwardLimits { connections, ..ForwardLimits::default() };
        let services = Arc::new(Services::new(Vec::new(), limits));
        let serving = Background::spawn(serve(self.connector.handle.clone(), services, None));
        Self { _serving: Some(serving), ..self }
    }

    /// Opens a stream to a built-in service.
    pub(crate) async fn open(&self, builtin: Builtin) -> Stream {
        self.peer.open(builtin.name().parse().unwrap()).await.unwrap()
    }
}
