//! The program across the lab's networks: direct wherever the NATs allow it, by the relay otherwise,
//! and whatever happens to the networks meanwhile, the stream goes on.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_core::testing::link::{Conditions, Loss};

use super::common::{Directory, within};
use super::nat::Kind;
use super::net::Site;
use super::stage::{Party, SOON, Stage, Way, connected, free_port};

const SECOND: Duration = Duration::from_secs(1);

/// How long what must stay relayed is watched.
const WATCH: Duration = Duration::from_secs(2);

/// Bytes of the large transfer, unless ADIT_LAB_BYTES says otherwise: the whole is 1 GiB.
const BYTES: u64 = 48 << 20;

/// Time that the large transfer takes at least, so that its path can be cut and mended meanwhile.
const LASTS: u64 = 24;

#[test]
fn every_pair_of_nats_goes_direct_where_it_can_and_by_the_relay_where_not() {
    let Some(mut stage) = Stage::new() else { return };
    for one in Kind::ALL {
        for other in Kind::ALL {
            let (_connector, agent, address) = connected(&mut stage, [one, other]);
            check_way(&agent, one.meets(other), &format!("{one:?} {other:?}"));
            assert!(agent.echoes_within(address, SECOND), "{one:?} {other:?}");
        }
    }
}

#[test]
fn behind_two_routers_each_it_is_as_behind_the_stricter_one() {
    let Some(mut stage) = Stage::new() else { return };
    for (home, carrier, other, meets) in [
        (Kind::PortRestricted, Kind::PortRestricted, Kind::PortRestricted, true),
        (Kind::FullCone, Kind::Symmetric, Kind::PortRestricted, false),
        (Kind::PortRestricted, Kind::Symmetric, Kind::FullCone, true),
    ] {
        let mut connector = Party::at(stage.net.site_behind(0, home, carrier));
        let mut agent = Party::at(stage.net.site(1, other));
        let port = connector.serve_echo();
        let invite = connector.expose(port, &stage);
        let address = agent.connect(&invite);
        assert!(agent.echoes_within(address, SOON));
        check_way(&agent, meets, &format!("{home:?} behind {carrier:?}, {other:?}"));
    }
}

fn check_way(agent: &Party, meets: bool, what: &str) {
    if meets {
        agent.goes(Way::Direct, SOON);
    } else {
        agent.goes(Way::Relayed, SOON);
        std::thread::sleep(WATCH);
        assert_eq!(agent.way(), Some(Way::Relayed), "{what}");
    }
}

#[test]
fn another_address_of_either_side_is_survived() {
    let Some(mut stage) = Stage::new() else { return };
    let (mut connector, mut agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(Way::Direct, SOON);
    agent.site.change_address();
    assert!(agent.echoes_within(address, SOON), "after the agent's");
    agent.goes(Way::Direct, 3 * SOON);
    connector.site.change_address();
    assert!(agent.echoes_within(address, SOON), "after the connector's");
    agent.goes(Way::Direct, 3 * SOON);
}

#[test]
fn a_cable_that_was_out_for_a_while_is_survived() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(Way::Direct, SOON);
    agent.site.unplug();
    std::thread::sleep(5 * SECOND);
    agent.site.replug();
    assert!(agent.echoes_within(address, 2 * SOON));
    agent.goes(Way::Direct, 3 * SOON);
}

#[test]
fn a_relay_that_dies_is_not_missed_by_direct_peers_and_serves_again_when_it_is_back() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(Way::Direct, SOON);
    stage.kill_relay();
    std::thread::sleep(WATCH);
    assert!(agent.echoes_within(address, SECOND), "the direct path needed the relay");
    stage.start_relay();
    let mut late = Party::at(stage.net.site(2, Kind::Symmetric));
    let mut other = Party::at(stage.net.site(3, Kind::Symmetric));
    let port = other.serve_echo();
    let invite = other.expose(port, &stage);
    let address = late.connect(&invite);
    assert!(late.echoes_within(address, SOON));
    stage.kill_relay();
    std::thread::sleep(WATCH);
    stage.start_relay();
    assert!(late.echoes_within(address, 6 * SOON), "{}", stage.relay_log());
}

#[test]
fn where_udp_is_blocked_the_relay_is_reached_by_tcp_and_left_for_udp_by_itself() {
    let Some(mut stage) = Stage::new() else { return };
    let mut connector = Party::at(stage.net.site(0, Kind::PortRestricted));
    let mut agent = Party::at(stage.net.site(1, Kind::PortRestricted));
    agent.site.block_udp();
    let port = connector.serve_echo();
    let invite = connector.expose(port, &stage);
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, 3 * SOON));
    agent.goes(Way::Relayed, SOON);
    agent.site.allow_udp();
    agent.goes(Way::Direct, 12 * SOON);
    assert!(agent.echoes_within(address, SOON));
}

#[test]
fn a_slow_and_lossy_access_network_is_survived() {
    let Some(mut stage) = Stage::new() else { return };
    let mobile = Conditions {
        latency: Duration::from_millis(40),
        jitter: Duration::from_millis(10),
        loss: Loss::Bursty { worsen: 0.01, improve: 0.4, loss: 0.8 },
        ..Conditions::default()
    };
    let mut connector = Party::at(stage.net.site(0, Kind::PortRestricted));
    let site = stage.net.site_by(1, Kind::PortRestricted, Some(&mobile));
    let mut agent = Party::at(site);
    let port = connector.serve_echo();
    let invite = connector.expose(port, &stage);
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, SOON));
    agent.goes(Way::Direct, SOON);
    for _ in 0..10 {
        assert!(agent.echoes_within(address, SOON));
    }
}

#[test]
fn a_download_goes_on_while_its_direct_path_is_cut_and_mended_three_times() {
    if !["nginx", "curl", "sha256sum"].iter().all(|program| has(program)) {
        eprintln!("SKIPPED: the large download, because nginx, curl or sha256sum is missing");
        return;
    }
    let Some(mut stage) = Stage::new() else { return };
    let mut connector = Party::at(stage.net.site(0, Kind::PortRestricted));
    let mut agent = Party::at(stage.net.site(1, Kind::PortRestricted));
    let directory = Directory::new();
    let bytes = std::env::var("ADIT_LAB_BYTES").map_or(BYTES, |n| n.parse().unwrap());
    let original = directory.path("original");
    fill(&original, bytes);
    let web = Nginx::start(&directory, &connector.site);
    let invite = connector.expose(web.port, &stage);
    let address = agent.connect(&invite);
    agent.goes(Way::Direct, SOON);

    let copy = directory.path("copy");
    let mut curl = agent.site.host.command("curl");
    curl.args(["-sSf", "--max-time", "600", "--limit-rate", &(bytes / LASTS).to_string()]);
    curl.arg("-o").arg(&copy).arg(format!("http://{address}/original"));
    let mut curl = Running(curl.stdin(Stdio::null()).spawn().unwrap());
    for share in [1, 3, 5] {
        curl.reaches(&copy, bytes * share / 7);
        agent.site.cut(&connector.site);
        agent.goes(Way::Relayed, SOON);
        agent.site.mend();
        agent.goes(Way::Direct, 6 * SOON);
    }
    assert!(curl.0.wait().unwrap().success(), "{}", stage.relay_log());
    assert_eq!(digest(&copy), digest(&original));
}

fn has(program: &str) -> bool {
    let asked = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    asked.is_ok_and(|output| output.status.success())
}

/// A file of random bytes.
fn fill(path: &Path, bytes: u64) {
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut limited = std::io::Read::take(&mut random, bytes);
    std::io::copy(&mut limited, &mut std::fs::File::create(path).unwrap()).unwrap();
}

fn digest(path: &Path) -> Vec<u8> {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    output.stdout.split(|&byte| byte == b' ').next().unwrap().to_vec()
}

/// A child that ends with its owner.
struct Running(Child);

impl Running {
    /// Waits until a file that it writes is so long, or it has ended.
    fn reaches(&mut self, file: &Path, bytes: u64) {
        let length = || std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        let reached = within(300 * SECOND, || {
            let has_ended = self.0.try_wait().unwrap().is_some();
            (length() >= bytes || has_ended).then_some(has_ended)
        });
        assert_eq!(reached, Some(false), "it has {} of {bytes} bytes", length());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A web server at a site that serves a directory.
struct Nginx {
    port: u16,
    _process: Running,
}

impl Nginx {
    fn start(directory: &Directory, site: &Site) -> Self {
        let (port, root) = (free_port(site), directory.path(""));
        let root = root.display();
        let config = format!(
            "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
             fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        );
        let config = directory.write("nginx.conf", &config);
        let mut command = site.host.command("nginx");
        command.args(["-e", "stderr", "-c"]).arg(config).stdin(Stdio::null());
        let process = Running(command.spawn().unwrap());
        let began = Instant::now();
        let listens =
            || site.host.enter(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        while !listens() {
            assert!(began.elapsed() < SOON, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, _process: process }
    }
}
