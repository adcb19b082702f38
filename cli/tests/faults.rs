//! Processes that are killed, stopped or moved, under load: both sides reconnect by themselves. The
//! core's simulations measure in virtual time how soon.

#![cfg(unix)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::people::{Machine, assert_echoes};
use common::{Program, Tunnel, bounded, echo, echoes_at_last, free_udp, service};

fn echo_service() -> String {
    service(echo).to_string()
}

/// Four clients that send and receive at full rate, and start again when they are cut off.
struct Load {
    stop: Arc<AtomicBool>,
    exchanged: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(port: SocketAddr) -> Self {
        let (stop, exchanged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4).map(|_| {
            let (stop, exchanged) = (stop.clone(), exchanged.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = exchange(port, &stop, &exchanged);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        });
        let load = Self { clients: clients.collect(), stop, exchanged };
        load.wait_until_carried();
        load
    }

    /// Waits until the tunnel carries it.
    fn wait_until_carried(&self) {
        let before = self.exchanged.load(Ordering::Relaxed);
        let is_exchanged =
            || (self.exchanged.load(Ordering::Relaxed) >= before + 100).then_some(());
        bounded(is_exchanged).expect("the load is carried");
    }
}

fn exchange(port: SocketAddr, stop: &AtomicBool, exchanged: &AtomicUsize) -> std::io::Result<()> {
    let mut tcp = TcpStream::connect_timeout(&port, Duration::from_secs(1))?;
    tcp.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (block, mut answer) = (vec![1; 32 * 1024], vec![0; 32 * 1024]);
    while !stop.load(Ordering::Relaxed) {
        tcp.write_all(&block)?;
        tcp.read_exact(&mut answer)?;
        exchanged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

/// Waits until a byte comes back, and prints how long after `start` that was.
fn wait_for_first_byte(address: SocketAddr, start: Instant) {
    assert!(echoes_at_last(address), "it does not come back");
    eprintln!("the first byte came back after {:?}", start.elapsed());
}

#[test]
fn an_exposing_machine_killed_under_load_serves_again_when_it_is_back() {
    let (home, away) = (Machine::new(), Machine::new());
    let (listen, target) = (free_udp().to_string(), echo_service());
    let (mut exposing, invite) = home.expose_at(&listen, &target, &[]);
    let (mut connected, address) = away.connect(&invite, &[]);
    let load = Load::on(address);
    for _ in 0..2 {
        exposing.kill();
        exposing = home.expose_at(&listen, &target, &[]).0;
        wait_for_first_byte(address, Instant::now());
        load.wait_until_carried();
    }
    drop(load);
    assert!(connected.is_running());
    let status = away.json(&["status", "--json"]);
    assert_eq!(status["processes"][0]["peers"][0]["state"]["state"], "connected");
}

#[test]
fn a_connected_machine_killed_under_load_comes_back_by_name() {
    let (home, away) = (Machine::new(), Machine::new());
    let (mut exposing, invite) = home.expose(&echo_service(), &[]);
    let (mut connected, address) = away.connect(&invite, &[]);
    let load = Load::on(address);
    for _ in 0..2 {
        connected.kill();
        let start = Instant::now();
        connected = away.start(&["connect", "web"]);
        assert_eq!(connected.address(), address, "its clients find it where it was");
        wait_for_first_byte(address, start);
        load.wait_until_carried();
    }
    drop(load);
    assert!(exposing.is_running());
    assert_eq!(home.devices().len(), 1);
}

/// Stops one side until a closure has observed that its peer gave it up.
fn stand_still(tunnel: &Tunnel, stopped: &Program, until: impl FnOnce()) {
    stopped.signal("-STOP");
    until();
    stopped.signal("-CONT");
    wait_for_first_byte(tunnel.ports[0], Instant::now());
}

#[test]
fn a_connector_that_stood_still_for_too_long_is_found_again() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    stand_still(&tunnel, &tunnel.connector, || tunnel.agent.says("heartbeat_lost"));
    let log = tunnel.agent.log();
    assert!(log.contains("lost the connection to connector (heartbeat_lost: "), "{log}");
    assert!(tunnel.agent.is_running() && tunnel.connector.is_running());
}

#[test]
fn an_agent_that_stood_still_for_too_long_comes_back() {
    let mut tunnel = Tunnel::start(&[("echo", service(echo), "")]);
    // The connector waits longer, so that only time can show it: more than the agent's own
    // heartbeat allows.
    stand_still(&tunnel, &tunnel.agent, || std::thread::sleep(Duration::from_secs(4)));
    assert!(tunnel.agent.is_running() && tunnel.connector.is_running());
}

#[test]
fn a_moved_connector_is_found_at_its_new_address() {
    let (home, away) = (Machine::new(), Machine::new());
    let target = echo_service();
    let (exposing, invite) = home.expose(&target, &[]);
    away.connect(&invite, &[]).0.end();
    exposing.end();
    let listen = free_udp().to_string();
    let (_exposing, _) = home.expose_at(&listen, &target, &[]);
    let mut lost = away.start(&["connect", "web", "--give-up-after", "1s"]);
    lost.line();
    assert!(lost.ends_with(4).starts_with("no connection for 1s"));
    away.connect("web", &["--at", &listen]).0.end();
    let (connected, address) = away.connect("web", &[]);
    assert_echoes(address, &connected);
}
