//! With a nameserver on loopback that knows one name.

use std::sync::Arc;

use hickory_resolver::config::ConnectionConfig;
use tokio::net::UdpSocket;

use super::*;

/// Starts a nameserver that answers every question with two SRV records, or that there is no such
/// name.
async fn nameserver(is_known: bool) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], is_known);
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// Returns an answer in the format of RFC 1035 §4 and RFC 2782.
fn answer(question: &[u8], is_known: bool) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let (flags, count) = if is_known { (0x8180_u16, 2_u16) } else { (0x8183, 0) };
    let mut out = question[..2].to_vec();
    for word in [flags, 1, count, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    out.extend(&question[12..end]);
    for (priority, host) in [(20_u16, &b"\x01b\x07example\0"[..]), (10, b"\x01a\x07example\0")] {
        if !is_known {
            break;
        }
        // The name of the question, SRV, IN, for a minute.
        out.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
        out.extend((6 + host.len() as u16).to_be_bytes());
        for word in [priority, 5, 4433] {
            out.extend(word.to_be_bytes());
        }
        out.extend(host);
    }
    out
}

fn config(server: SocketAddr) -> ResolverConfig {
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    ResolverConfig::from_name_servers(vec![server])
}

async fn asked(server: SocketAddr, ours: &[SocketAddr]) -> io::Result<Vec<SrvRecord>> {
    let name = "_adit._udp.home.example.".to_owned();
    services(config(server), ResolverOpts::default(), ours, name).await
}

#[tokio::test]
async fn the_records_are_those_of_the_nameserver() {
    let server = nameserver(true).await;
    let found = asked(server, &[]).await.unwrap();
    let found = found.iter().map(|it| (it.priority, it.weight, it.port, it.target.as_str()));
    let mut found: Vec<_> = found.collect();
    found.sort();
    assert_eq!(found, [(10, 5, 4433, "a.example"), (20, 5, 4433, "b.example")]);
}

#[tokio::test]
async fn a_name_that_is_not_there_has_no_records() {
    let server = nameserver(false).await;
    assert_eq!(asked(server, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn a_nameserver_that_is_a_port_of_ours_is_not_asked() {
    let server = nameserver(true).await;
    for ours in [server, ([0, 0, 0, 0], server.port()).into()] {
        let error = asked(server, &[ours]).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no nameserver to ask");
    }
    let other = SocketAddr::new(server.ip(), server.port() ^ 1);
    assert_eq!(asked(server, &[other]).await.unwrap().len(), 2);
}
