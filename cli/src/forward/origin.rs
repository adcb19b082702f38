//! The mark of a local TCP connection, by which a connector recognises that a stream was made from
//! its own connection to a service: its service is then a local port that leads back to it, and one
//! request would go round until no descriptor is left.
//!
//! It decides what a mark is, and which are in use. The mark of a connection is the same at both of
//! its ends, and on no other machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::net::TcpStream;

/// What distinguishes the network stack of this process from all others, where the system shows it:
/// the start of the machine, and the network namespace.
static STACK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    [boot.as_slice(), namespace.as_os_str().as_encoded_bytes()].concat()
});

/// Returns the mark of a connection from `client` to `server`.
fn mark(client: SocketAddr, server: SocketAddr) -> String {
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"adit.origin").update(&STACK);
    hasher.update(format!(" {} {}", canonical(client), canonical(server)).as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Returns the mark of an accepted connection, if its client may be on this machine: on loopback,
/// or at the same address.
pub(super) fn of_accepted(tcp: &TcpStream) -> Option<String> {
    let (client, server) = (tcp.peer_addr().ok()?, tcp.local_addr().ok()?);
    let is_local = client.ip().to_canonical().is_loopback() || client.ip() == server.ip();
    is_local.then(|| mark(client, server))
}

/// The marks of a connector's own connections to services.
#[derive(Debug, Default, Clone)]
pub(super) struct Origins(Arc<Mutex<BTreeSet<String>>>);

impl Origins {
    /// Adds a connection from `client` to `server`, for the life of the returned value.
    pub(super) fn enter(&self, client: SocketAddr, server: SocketAddr) -> OwnOrigin {
        let mark = mark(client, server);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mark.clone());
        OwnOrigin { origins: self.clone(), mark }
    }

    /// Returns true if a mark is of a connection of this connector.
    pub(super) fn contains(&self, mark: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(mark)
    }
}

/// The mark of one connection.
#[derive(Debug)]
pub(super) struct OwnOrigin {
    origins: Origins,
    mark: String,
}

impl Drop for OwnOrigin {
    fn drop(&mut self) {
        self.origins.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_while_its_connection_lives() {
        let [client, server] = ["127.0.0.1:50000", "127.0.0.1:80"].map(|it| it.parse().unwrap());
        let origins = Origins::default();
        let own = origins.enter(client, server);
        assert!(origins.contains(&mark(client, server)));
        assert!(origins.contains(&mark("[::ffff:127.0.0.1]:50000".parse().unwrap(), server)));
        assert!(!origins.contains(&mark(server, client)));
        drop(own);
        assert!(!origins.contains(&mark(client, server)));
    }
}
