//! A piece of network between an agent and a connector that can be made to drop everything: a
//! UDP forwarder on loopback. It never looks into a datagram.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;

use crate::node::Background;

/// A path to one address for one client, open at first.
#[derive(Debug)]
pub(super) struct Path {
    address: SocketAddr,
    blocked: Arc<AtomicBool>,
    _forwarding: Background<io::Result<()>>,
}

impl Path {
    /// A path to `target`.
    pub(super) async fn to(target: SocketAddr) -> io::Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        back.connect(target).await?;
        let blocked = Arc::new(AtomicBool::new(false));
        Ok(Self {
            address: front.local_addr()?,
            blocked: blocked.clone(),
            _forwarding: Background::spawn(forward(front, back, blocked)),
        })
    }

    /// The client's end.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything from now on, both ways, or nothing.
    pub(super) fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }
}

async fn forward(front: UdpSocket, back: UdpSocket, blocked: Arc<AtomicBool>) -> io::Result<()> {
    let (mut there, mut here) = (vec![0; 65_535], vec![0; 65_535]);
    let mut client = None;
    loop {
        // A failed send is a lost datagram, as on any network.
        tokio::select! {
            received = front.recv_from(&mut there) => {
                let (length, from) = received?;
                client = Some(from);
                if !blocked.load(Ordering::Relaxed) {
                    let _ = back.send(&there[..length]).await;
                }
            }
            received = back.recv(&mut here) => {
                if let (Ok(length), Some(client)) = (received, client)
                    && !blocked.load(Ordering::Relaxed)
                {
                    let _ = front.send_to(&here[..length], client).await;
                }
            }
        }
    }
}
