//! What the program does when the other side is killed, refuses, or never existed.

mod common;

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{
    Authority, Directory, Program, QUICK, Tunnel, bounded, connect, echo, echoes, free_tcp,
    free_udp, service,
};

/// Returns the file of an agent of `authority` for a connector at `address`.
fn agent(
    directory: &Directory,
    authority: &Authority,
    address: std::net::SocketAddr,
    port: std::net::SocketAddr,
) -> std::path::PathBuf {
    let mut text = authority.issue(directory, "laptop");
    text += QUICK;
    text += &format!("[connector]\naddress = \"{address}\"\nname = \"connector\"\n");
    text += &format!("[[forward]]\nlisten = \"{port}\"\nservice = \"echo\"\n");
    directory.write("agent.toml", &text)
}

fn connector(
    directory: &Directory,
    authority: &Authority,
    listen: std::net::SocketAddr,
) -> std::path::PathBuf {
    let mut text = format!("listen = \"{listen}\"\n");
    text += &authority.issue(directory, "connector");
    text += QUICK;
    text += &format!("[[service]]\nname = \"echo\"\ntcp = \"{}\"\n", service(echo));
    directory.write("connector.toml", &text)
}

#[test]
fn a_connector_killed_under_load_and_restarted_serves_again() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let stop = Arc::new(AtomicBool::new(false));
    let exchanged = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, exchanged, port) = (stop.clone(), exchanged.clone(), tunnel.ports[0]);
            std::thread::spawn(move || {
                let (block, mut answer) = (vec![1; 32 * 1024], vec![0; 32 * 1024]);
                while !stop.load(Ordering::Relaxed) {
                    let mut tcp = connect(port);
                    while !stop.load(Ordering::Relaxed)
                        && tcp.write_all(&block).is_ok()
                        && tcp.read_exact(&mut answer).is_ok()
                    {
                        exchanged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let is_loaded = || (exchanged.load(Ordering::Relaxed) >= 100).then_some(());
    bounded(is_loaded).expect("the load is carried");
    tunnel.connector.kill();
    let killed = Instant::now();
    tunnel.connector = Program::start("connector", &tunnel.connector_config, &[]);
    let back = bounded(|| echoes(tunnel.ports[0]).then(|| killed.elapsed()));
    stop.store(true, Ordering::Relaxed);
    let back = back.expect("it does not come back");
    eprintln!("the first byte came back after {back:?}");
    for thread in load {
        thread.join().unwrap();
    }
    assert!(tunnel.agent.is_running());
}

#[test]
fn an_agent_that_starts_first_waits_for_its_connector() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let (address, port) = (free_udp(), free_tcp());
    let agent_config = agent(&directory, &authority, address, port);
    let connector_config = connector(&directory, &authority, address);
    let mut agent = Program::start("agent", &agent_config, &[]);
    bounded(|| std::net::TcpStream::connect(port).ok()).expect("the local port is open");
    let mut early = connect(port);
    early.write_all(b"early").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let _connector = Program::start("connector", &connector_config, &[]);
    let mut answer = [0; 5];
    early.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
    assert!(agent.is_running());
}

#[test]
fn a_connector_waits_for_a_port_that_another_program_holds() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let (address, port) = (free_udp(), free_tcp());
    let held = UdpSocket::bind(address).unwrap();
    let agent_config = agent(&directory, &authority, address, port);
    let connector = Program::start("connector", &connector(&directory, &authority, address), &[]);
    connector.says(&format!("waiting: {address}: cannot use this UDP address: "));
    drop(held);
    let _agent = Program::start("agent", &agent_config, &[]);
    bounded(|| echoes(port).then_some(())).expect("the tunnel is up");
    assert_eq!(connector.log().matches("waiting: ").count(), 1, "{}", connector.log());
}

#[cfg(target_os = "linux")]
#[test]
fn an_agent_waits_for_an_address_that_this_machine_does_not_have() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let nowhere = std::net::SocketAddr::from(([192, 0, 2, 1], free_tcp().port()));
    let config = agent(&directory, &authority, free_udp(), nowhere);
    let mut agent = Program::start("agent", &config, &[]);
    agent.says(&format!("waiting: {nowhere}: cannot listen on this TCP address: "));
    std::thread::sleep(Duration::from_millis(700));
    assert!(agent.is_running(), "{}", agent.log());
}

#[test]
fn a_connector_that_moves_to_its_other_address_is_found_there() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let (first, second, port) = (free_udp(), free_udp(), free_tcp());
    let config = agent(&directory, &authority, first, port);
    let text = std::fs::read_to_string(&config).unwrap();
    let both = format!("address = [\"{first}\", \"{second}\"]");
    let text = text.replace(&format!("address = \"{first}\""), &both);
    let config = directory.write("agent.toml", &text);
    let mut there = Program::start("connector", &connector(&directory, &authority, first), &[]);
    let _agent = Program::start("agent", &config, &[]);
    bounded(|| echoes(port).then_some(())).expect("the tunnel is up");
    there.kill();
    let moved = Instant::now();
    let _there = Program::start("connector", &connector(&directory, &authority, second), &[]);
    bounded(|| echoes(port).then_some(())).expect("the connector is found at its other address");
    eprintln!("found at its other address after {:?}", moved.elapsed());
}

#[test]
fn a_connection_is_refused_when_the_tunnel_does_not_come_up() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free_tcp();
    let config = agent(&directory, &authority, silent.local_addr().unwrap(), port);
    let agent = Program::start("agent", &config, &[]);
    bounded(|| std::net::TcpStream::connect(port).ok()).expect("the local port is open");
    let start = Instant::now();
    let mut tcp = connect(port);
    let error = tcp.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let took = start.elapsed();
    assert!(took.as_secs() >= 9, "refused after {took:?}");
    let said = "no connection to connector: timed_out: the handshake was not complete within the connect \
                timeout; check that the peer runs and that UDP reaches it; attempt 1 in ";
    bounded(|| agent.log().contains(said).then_some(()))
        .unwrap_or_else(|| panic!("{}", agent.log()));
}

#[test]
fn an_agent_that_trusts_another_ca_ends_with_3() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let address = free_udp();
    let connector_config = connector(&directory, &authority, address);
    let agent_config = agent(&directory, &Authority::new(), address, free_tcp());
    let mut connector = Program::start("connector", &connector_config, &[]);
    let mut agent = Program::start("agent", &agent_config, &[]);
    assert_eq!(agent.wait().code(), Some(3), "{}", agent.log());
    let log = agent.log();
    assert!(log.lines().any(|l| l.starts_with("adit: unauthenticated: ")), "{log}");
    assert!(connector.is_running());
}

#[test]
fn an_agent_whose_certificate_is_refused_ends_with_3() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let address = free_udp();
    let connector_config = connector(&directory, &authority, address);
    let agent_config = agent(&directory, &Authority::new(), address, free_tcp());
    std::fs::copy(directory.path("connector-ca.pem"), directory.path("laptop-ca.pem")).unwrap();
    let _connector = Program::start("connector", &connector_config, &[]);
    let mut agent = Program::start("agent", &agent_config, &[]);
    assert_eq!(agent.wait().code(), Some(3), "{}", agent.log());
}

#[test]
fn an_agent_with_a_time_limit_ends_with_4() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = agent(&directory, &authority, silent.local_addr().unwrap(), free_tcp());
    let mut agent = Program::start("agent", &config, &["--give-up-after", "1s"]);
    assert_eq!(agent.wait().code(), Some(4));
    let log = agent.log();
    assert!(log.contains("no connection for 1s; check that the connector runs"), "{log}");
}

#[cfg(unix)]
#[test]
fn both_end_with_0_when_asked_to() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    tunnel.agent.terminate();
    assert_eq!(tunnel.agent.wait().code(), Some(0), "{}", tunnel.agent.log());
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait().code(), Some(0), "{}", tunnel.connector.log());
}

#[cfg(unix)]
#[test]
fn an_agent_logs_its_connectors_shutdown_once() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait().code(), Some(0), "{}", tunnel.connector.log());
    let lost = bounded(|| tunnel.agent.log().contains("; reconnecting").then_some(()));
    let log = tunnel.agent.log();
    assert!(lost.is_some(), "{log}");
    let told = log.lines().filter(|l| l.contains("is shutting down") || l.contains("shuts down"));
    // An idle connection is closed immediately, with its reason: the announcement ahead of it is
    // sent only while streams are open.
    assert!(told.count() <= 1 && log.contains("(shutting_down: "), "{log}");
    let log = tunnel.connector.log();
    assert!(log.contains("laptop connected from 127.0.0.1:"), "{log}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_ends_a_connector_with_a_goodbye() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    tunnel.connector.kill();
    tunnel.connector = Program::start_with_hangup("connector", &tunnel.connector_config);
    tunnel.wait_until_up();
    tunnel.connector.signal("-HUP");
    assert_eq!(tunnel.connector.wait().code(), Some(0), "{}", tunnel.connector.log());
    tunnel.agent.says("(shutting_down: ");
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    tunnel.connector.kill();
    tunnel.connector = Program::start_without_hangup("connector", &tunnel.connector_config);
    tunnel.wait_until_up();
    tunnel.connector.signal("-HUP");
    tunnel.wait_until_up();
    assert!(tunnel.connector.is_running(), "{}", tunnel.connector.log());
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait().code(), Some(0), "{}", tunnel.connector.log());
}

#[cfg(unix)]
#[test]
fn an_open_connection_may_finish_while_the_agent_ends() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    let mut tcp = connect(tunnel.ports[0]);
    tcp.write_all(b"1").unwrap();
    tcp.read_exact(&mut [0]).unwrap();
    tunnel.agent.terminate();
    let refused = bounded(|| std::net::TcpStream::connect(tunnel.ports[0]).err());
    assert_eq!(refused.unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
    tcp.write_all(b"2").unwrap();
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"2");
    drop(tcp);
    assert_eq!(tunnel.agent.wait().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn an_agent_out_of_files_serves_again_when_it_has_some() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let (address, port) = (free_udp(), free_tcp());
    let agent_config = agent(&directory, &authority, address, port);
    let _connector = Program::start("connector", &connector(&directory, &authority, address), &[]);
    let mut agent = Program::start_limited("agent", &agent_config, 48);
    bounded(|| echoes(port).then_some(())).expect("the tunnel is up");
    let many: Vec<_> = (0..100).map(|_| connect(port)).collect();
    bounded(|| agent.log().contains("check the limit on open files").then_some(())).unwrap();
    drop(many);
    bounded(|| echoes(port).then_some(())).expect("it serves again");
    assert!(agent.is_running());
}
