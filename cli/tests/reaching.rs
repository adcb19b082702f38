//! How a connector reaches the services behind it: by each address of a name, in either family, and
//! through queues that are full for a moment.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Tunnel, connect, echo, echoes_at_last, free_tcp, service};
use socket2::{Domain, SockAddr, Socket, Type};

/// Returns a port on which a service echoes at `[::1]` alone.
fn echo_on_ipv6() -> u16 {
    let port = free_tcp().port();
    let listener = TcpListener::bind(("::1", port)).expect("a port of both families");
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || echo(tcp));
        }
    });
    port
}

fn tunnel_to(target: &str) -> Tunnel {
    let echo = format!("tcp = \"{}\"", service(echo));
    Tunnel::start_written(&[("echo", echo), ("target", format!("tcp = \"{target}\""))])
}

#[test]
fn localhost_is_a_service_on_ipv6_alone() {
    let tunnel = tunnel_to(&format!("localhost:{}", echo_on_ipv6()));
    assert!(echoes_at_last(tunnel.ports[1]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_silent_first_address_gives_way_to_the_second() {
    let port = echo_on_ipv6();
    // Its queue is full: it answers no further connection.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    silent.bind(&address.into()).unwrap();
    silent.listen(0).unwrap();
    let _queued: Vec<_> =
        (0..2).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    let tunnel = tunnel_to(&format!("localhost:{port}"));
    let mut tcp = connect(tunnel.ports[1]);
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    tcp.write_all(b"?").unwrap();
    tcp.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_service_that_leads_back_to_its_own_connector_is_refused() {
    let loops = free_tcp();
    let directory = common::Directory::new();
    let authority = common::Authority::new();
    let listen = common::free_udp();
    let connector = format!(
        "listen = \"{listen}\"\n{}[[service]]\nname = \"web\"\ntcp = \"localhost:{}\"\n",
        authority.issue(&directory, "connector"),
        loops.port()
    );
    let agent = format!(
        "{}[connector]\naddress = \"{listen}\"\nname = \"connector\"\n\
         [[forward]]\nlisten = \"{loops}\"\nservice = \"web\"\n",
        authority.issue(&directory, "laptop")
    );
    let start = |role, text: &str| {
        common::Program::start(role, &directory.write(&format!("{role}.toml"), text), &[])
    };
    let connector = start("connector", &connector);
    let agent = start("agent", &agent);
    agent.says("connected to");
    let mut tcp = connect(loops);
    assert!(common::is_cut_off(&mut tcp));
    connector.says("leads back to it; start the service first");
    std::thread::sleep(Duration::from_millis(300));
    let rounds = connector.log().matches("refused a connection").count();
    assert_eq!(rounds, 1, "{}", connector.log());
}

#[cfg(unix)]
#[test]
fn a_unix_socket_with_a_full_queue_serves_everybody() {
    let path = std::env::temp_dir().join(format!("adit-queue-{}.sock", std::process::id()));
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let listener = std::os::unix::net::UnixListener::from(listener);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::sleep(Duration::from_millis(150));
            client.unwrap().write_all(b"!").unwrap();
        }
    });
    let echo = format!("tcp = \"{}\"", service(echo));
    let tunnel = Tunnel::start_written(&[("echo", echo), ("unix", format!("unix = {path:?}"))]);
    let mut all: Vec<_> = (0..8).map(|_| connect(tunnel.ports[1])).collect();
    for tcp in &mut all {
        tcp.read_exact(&mut [0]).unwrap();
    }
    std::fs::remove_file(&path).unwrap();
}
