//! Routers that map ports: one of our own that speaks NAT-PMP and lets the packet filter do it, and
//! miniupnpd where it is installed. It also tests the program's use of them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::common::within;
use super::common::{Directory, finish, people::Machine};
use super::nat::Kind;
use super::net::Site;
use super::stage::{Party, PathClass, Stage, USUAL_LIMIT, connected};

/// The port of PCP and NAT-PMP.
const PORT: u16 = 5_351;

/// The external port that the router maps.
const OUTSIDE: u16 = 7_000;

/// Speaks NAT-PMP (RFC 6886) on the inside of a site's router, with one mapping at a time.
struct Gateway {
    over: Arc<AtomicBool>,
    /// The port inside that is mapped, or 0.
    inside: Arc<AtomicU16>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Starts to answer.
    fn at(site: &Site) -> Self {
        let [a, b, c, _] = site.address().octets();
        let address = Ipv4Addr::new(a, b, c, 1);
        let socket = site.router.enter(|| UdpSocket::bind((address, PORT)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (over, inside) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(0)));
        let (is_over, mapped) = (over.clone(), inside.clone());
        let (router, external) = (site.router.another(), site.external);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1_100];
            while !is_over.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
                let answer = match buffer[..size] {
                    [0, 0] => [&[0, 128, 0, 0, 0, 0, 0, 9][..], &external.octets()].concat(),
                    [0, 1, _, _, a, b, _, _, l1, l2, l3, l4] => {
                        let (port, is_end) =
                            (u16::from_be_bytes([a, b]), [l1, l2, l3, l4] == [0; 4]);
                        if mapped.swap(0, Ordering::Relaxed) != 0 {
                            router("delete table ip mapped");
                        }
                        if !is_end {
                            router(&lead(from, port));
                            mapped.store(port, Ordering::Relaxed);
                        }
                        let [p, q] = (if is_end { 0 } else { OUTSIDE }).to_be_bytes();
                        vec![0, 129, 0, 0, 0, 0, 0, 9, a, b, p, q, l1, l2, l3, l4]
                    }
                    // PCP: unsupported version.
                    _ => vec![0, 128, 0, 1, 0, 0, 0, 9],
                };
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { over, inside, thread: Some(thread) }
    }

    fn maps(&self) -> bool {
        self.inside.load(Ordering::Relaxed) != 0
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lead(to: SocketAddr, port: u16) -> String {
    let ip = to.ip();
    format!(
        "table ip mapped {{
           chain in {{
             type nat hook prerouting priority -110;
             iifname \"wan\" udp dport {OUTSIDE} dnat to {ip}:{port}
           }}
         }}"
    )
}

#[test]
fn two_routers_that_cannot_be_met_are_met_where_one_maps_a_port_and_it_is_given_back_at_the_end() {
    let Some(mut stage) = Stage::new() else { return };
    let mut connector = Party::at(stage.net.site(0, Kind::Symmetric));
    let mut agent = Party::at(stage.net.site(1, Kind::Symmetric));
    let gateway = Gateway::at(&connector.site);
    let port = connector.serve_echo();
    let invite = connector.expose(port, &stage);
    assert!(within(USUAL_LIMIT, || gateway.maps().then_some(())).is_some(), "nothing was mapped");
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, USUAL_LIMIT));
    agent.goes(PathClass::Direct, USUAL_LIMIT);
    let why = agent.told(&["why"]);
    let way = format!("{}:{OUTSIDE} (mapped by the gateway)", connector.site.external);
    assert!(why.contains(&way), "{why}");
    let status = connector.told(&["status"]);
    let told =
        format!("{}:{OUTSIDE} leads here, by NAT-PMP of the gateway", connector.site.external);
    assert!(status.contains(&told), "{status}");
    connector.end();
    assert!(!gateway.maps(), "the mapping was not given back");
}

#[test]
fn what_is_switched_off_asks_no_gateway() {
    let Some(mut stage) = Stage::new() else { return };
    let mut connector = Party::at(stage.net.site(0, Kind::Symmetric));
    let gateway = Gateway::at(&connector.site);
    let port = connector.serve_echo();
    connector.expose_with(port, &stage, &["--no-port-mapping"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!gateway.maps());
    assert!(!connector.told(&["status"]).contains("port mapping"));
}

#[test]
fn check_explains_a_useless_mapping_behind_another_nat() {
    let Some(mut stage) = Stage::new() else { return };
    let site = stage.net.site_behind(0, Kind::PortRestricted, Kind::Symmetric);
    let gateway = Gateway::at(&site);
    let mapping = check(&site, &stage);
    assert_eq!(mapping["state"], "none", "{mapping}");
    assert!(mapping["why"][1].as_str().unwrap().contains("another NAT"), "{mapping}");
    assert!(!gateway.maps(), "what is of no use was left there");
}

#[test]
fn without_a_gateway_that_maps_everything_is_as_before() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, _) = connected(&mut stage, [Kind::Symmetric; 2]);
    agent.goes(PathClass::Relayed, USUAL_LIMIT);
    let mapping = check(&agent.site, &stage);
    assert_eq!(mapping["state"], "none", "{mapping}");
    assert_eq!(mapping["why"].as_array().unwrap().len(), 3, "{mapping}");
}

/// Returns what `adit check` reports about the gateway.
fn check(site: &Site, stage: &Stage) -> Value {
    let machine = Machine::new();
    let mut command = site.host.command(env!("CARGO_BIN_EXE_adit"));
    machine.at_home(command.args(["check", &stage.address, "--json"]));
    let told: Value = serde_json::from_slice(&finish(&mut command).stdout).unwrap();
    told["port_mapping"].clone()
}

/// miniupnpd on a site's router.
struct Miniupnpd(Child);

impl Miniupnpd {
    /// Starts it. Returns `None`, and prints so, where it is not installed.
    fn start(site: &Site, directory: &Directory, more: &str) -> Option<Self> {
        if Command::new("miniupnpd").arg("--version").output().is_err() {
            eprintln!("SKIPPED: a real gateway, because miniupnpd is not installed");
            return None;
        }
        site.router.nft(
            "table inet filter {
               chain miniupnpd { }
               chain prerouting_miniupnpd { }
               chain postrouting_miniupnpd { }
             }",
        );
        // It rejects external addresses that are reserved for documentation; no packet is sent
        // there.
        let text = format!("ext_ifname=wan\nlistening_ip=lan\next_ip=11.0.0.1\n{more}\n");
        let config = directory.write("miniupnpd.conf", &text);
        let id = directory.path("miniupnpd.pid");
        let mut command = site.router.command("miniupnpd");
        command.arg("-d").arg("-f").arg(config).arg("-P").arg(id);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self(child))
    }
}

impl Drop for Miniupnpd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn miniupnpd_maps_by_pcp_and_where_that_is_off_by_upnp() {
    let Some(mut stage) = Stage::new() else { return };
    for (more, protocol) in [
        ("enable_natpmp=yes\nenable_upnp=no", "pcp"),
        ("enable_natpmp=no\nenable_upnp=yes", "upnp"),
    ] {
        let (site, directory) = (stage.net.site(0, Kind::Symmetric), Directory::new());
        let Some(_gateway) = Miniupnpd::start(&site, &directory, more) else { return };
        // It needs a moment until it answers.
        let mapped = || Some(check(&site, &stage)).filter(|told| told["protocol"] == protocol);
        let mapping =
            within(USUAL_LIMIT, mapped).unwrap_or_else(|| panic!("{}", check(&site, &stage)));
        assert!(mapping["external"].as_str().unwrap().starts_with("11.0.0.1:"), "{mapping}");
    }
}
