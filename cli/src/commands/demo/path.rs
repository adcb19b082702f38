//! A piece of network between two ends with a delay, which can drop everything: a UDP forwarder on
//! loopback. Each end sends to its own side, and sees the other's packets come from there. It never
//! looks into a datagram, and forwards from the two ends only.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::base::task::Background;

/// Maximum number of datagrams in flight; those beyond are lost, as on any full queue.
const UNDER_WAY: usize = 4_096;

/// A path between two ends, open at first.
#[derive(Debug)]
pub(super) struct SimulatedPath {
    near: SocketAddr,
    far: SocketAddr,
    blocked: Arc<AtomicBool>,
    _forwarding: Background<io::Result<()>>,
}

impl SimulatedPath {
    /// Returns a path to `target` for the first client.
    pub(super) async fn to(target: SocketAddr) -> io::Result<Self> {
        Self::between(None, target, Duration::ZERO).await
    }

    /// Returns a path between two ends, or from the first client, on which a datagram takes
    /// `latency`.
    pub(super) async fn between(
        client: Option<SocketAddr>,
        target: SocketAddr,
        latency: Duration,
    ) -> io::Result<Self> {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let blocked = Arc::new(AtomicBool::new(false));
        Ok(Self {
            near: near.local_addr()?,
            far: far.local_addr()?,
            blocked: blocked.clone(),
            _forwarding: Background::spawn(forward(
                [near, far],
                [client, Some(target)],
                latency,
                blocked,
            )),
        })
    }

    /// Returns the address at which the client reaches the target.
    pub(super) const fn near(&self) -> SocketAddr {
        self.near
    }

    /// Returns the address at which the target reaches the client.
    pub(super) const fn far(&self) -> SocketAddr {
        self.far
    }

    /// Starts or stops dropping everything, in both directions.
    pub(super) fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }
}

/// Sends what arrives at one side from the other, to that side's end.
async fn forward(
    sides: [UdpSocket; 2],
    mut ends: [Option<SocketAddr>; 2],
    latency: Duration,
    blocked: Arc<AtomicBool>,
) -> io::Result<()> {
    let [mut here, mut there] = [vec![0; 65_535], vec![0; 65_535]];
    let mut under_way: VecDeque<(Instant, usize, Vec<u8>)> = VecDeque::new();
    loop {
        let due = under_way.front().map(|(due, _, _)| *due);
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        let (side, from, bytes) = tokio::select! {
            () = due => {
                if let Some((_, side, bytes)) = under_way.pop_front()
                    && let Some(end) = ends[side]
                {
                    // A failed send is a lost datagram, as on any network.
                    let _ = sides[side].send_to(&bytes, end).await;
                }
                continue;
            }
            received = sides[0].recv_from(&mut here) => {
                let (length, from) = received?;
                (0, from, &here[..length])
            }
            received = sides[1].recv_from(&mut there) => {
                let (length, from) = received?;
                (1, from, &there[..length])
            }
        };
        let is_known = *ends[side].get_or_insert(from) == from;
        if is_known && !blocked.load(Ordering::Relaxed) && under_way.len() < UNDER_WAY {
            under_way.push_back((Instant::now() + latency, 1 - side, bytes.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    async fn received(end: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut bytes = [0; 16];
        let (length, from) = end.recv_from(&mut bytes).await.unwrap();
        (bytes[..length].to_vec(), from)
    }

    #[tokio::test]
    async fn each_end_sees_the_other_at_its_own_side_of_a_path_and_strangers_not_at_all() {
        let (a, b, stranger) = (end().await, end().await, end().await);
        let [at_a, at_b] = [&a, &b].map(|end| end.local_addr().unwrap());
        let path =
            SimulatedPath::between(Some(at_a), at_b, Duration::from_millis(1)).await.unwrap();
        stranger.send_to(b"forged", path.near()).await.unwrap();
        stranger.send_to(b"forged", path.far()).await.unwrap();
        a.send_to(b"there", path.near()).await.unwrap();
        assert_eq!(received(&b).await, (b"there".to_vec(), path.far()));
        b.send_to(b"back", path.far()).await.unwrap();
        assert_eq!(received(&a).await, (b"back".to_vec(), path.near()));
    }
}
