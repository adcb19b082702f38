//! An HTTP proxy on the lab's internet: it opens tunnels by CONNECT for who knows its credentials. It
//! does nothing else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use data_encoding::BASE64;

use super::namespace::Namespace;

/// Starts a proxy in a namespace, for the life of the test. Returns its address and the number of
/// tunnels that it has opened.
pub(crate) fn start(inside: &Namespace, credentials: &str) -> (SocketAddr, Arc<AtomicU64>) {
    let expected = format!("Proxy-Authorization: Basic {}", BASE64.encode(credentials.as_bytes()));
    let opened = Arc::new(AtomicU64::new(0));
    let count = opened.clone();
    let address = inside.enter(|| {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A thread keeps the namespace of the one that started it.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (expected, count) = (expected.clone(), count.clone());
                thread::spawn(move || tunnel(client, &expected, &count));
            }
        });
        address
    });
    (address, opened)
}

fn tunnel(mut client: TcpStream, expected: &str, opened: &AtomicU64) -> Option<()> {
    let lines: Vec<_> = BufReader::new(client.try_clone().ok()?)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    if !lines.iter().any(|line| line == expected) {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").ok()?;
        return None;
    }
    let to = lines.first()?.strip_prefix("CONNECT ")?.split(' ').next()?;
    let relay = TcpStream::connect(to).ok()?;
    opened.fetch_add(1, Ordering::Relaxed);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from, mut back) = (client.try_clone().ok()?, relay.try_clone().ok()?);
    let mut to = relay;
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut back, &mut client).ok()?;
    client.shutdown(std::net::Shutdown::Both).ok()
}
