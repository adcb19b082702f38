//! The program across the lab's networks: direct wherever the NATs allow it, otherwise by the
//! relay, and whatever happens to the networks meanwhile, the stream continues.

use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_core::testing::link::{Conditions, Loss};

use super::common::Directory;
use super::common::people::Machine;
use super::download::{Nginx, Throttle, can_download, digest, download, length};
use super::nat::Kind;
use super::net::Net;
use super::proxy;
use super::stage::{Party, PathClass, Stage, USUAL_LIMIT, connected, public_connector, start_in};

const SECOND: Duration = Duration::from_secs(1);

/// How long a path that must stay relayed is observed.
const WATCH: Duration = Duration::from_secs(2);

/// Bytes of the large transfer, unless ADIT_LAB_BYTES sets another size: the whole is 1 GiB.
const BYTES: u64 = 48 << 20;

/// Duration of the large transfer at a constant rate, so that there are always bytes in flight
/// while its path is cut and restored.
const LASTS: u64 = 90;

#[test]
fn a_public_connector_is_reached_from_behind_every_kind_of_router() {
    let Some(mut net) = Net::new() else { return };
    let (_server, web, _connector, _invite) = public_connector(&mut net);
    for kind in Kind::ALL {
        let mut agent = Party::at(net.site(0, kind));
        let address = agent.connect(web.told(&["invite", "new", "web"]).trim_end());
        assert!(agent.echoes_within(address, USUAL_LIMIT), "{kind:?}");
        agent.site.change_address();
        assert!(agent.echoes_within(address, 3 * USUAL_LIMIT), "{kind:?} from another address");
    }
}

#[test]
fn a_download_from_a_public_connector_survives_a_cable_that_is_out_for_a_moment() {
    if !can_download() {
        return;
    }
    let Some(mut net) = Net::new() else { return };
    let server = net.public("server", &[10]);
    let (directory, owner) = (Directory::new(), Machine::new());
    let bytes = 8 << 20;
    let web = Nginx::start(&directory, &server.inside, bytes);
    // Data that is not sent yet cannot have arrived: a half is held back until the cable has been
    // disconnected.
    let throttle = Throttle::start(&server.inside, web.port, bytes / 6, bytes / 2);
    let expose = ["expose", &throttle.port.to_string(), "--name", "web", "--listen", "4433"];
    let connector = start_in(&server.inside, &owner, &expose);
    let mut agent = Party::at(net.site(0, Kind::Symmetric));
    let address = agent.connect(&connector.line());
    let copy = directory.path("copy");
    let mut curl = download(&agent.site.host, address, &copy);
    curl.reaches(&copy, bytes / 3);
    agent.site.unplug();
    throttle.release();
    std::thread::sleep(WATCH);
    assert!(length(&copy) < bytes, "it arrived without the cable");
    agent.site.replug();
    assert!(curl.succeeds(), "{}", connector.log());
    assert_eq!(digest(&copy), digest(&web.original));
}

#[test]
fn every_pair_of_nats_goes_direct_where_it_can_and_by_the_relay_where_not() {
    let Some(mut stage) = Stage::new() else { return };
    for one in Kind::ALL {
        for other in Kind::ALL {
            let (_connector, agent, address) = connected(&mut stage, [one, other]);
            check_path(&agent, one.meets(other), &format!("{one:?} {other:?}"));
            assert!(agent.echoes_within(address, USUAL_LIMIT), "{one:?} {other:?}");
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
        assert!(agent.echoes_within(address, USUAL_LIMIT));
        check_path(&agent, meets, &format!("{home:?} behind {carrier:?}, {other:?}"));
    }
}

fn check_path(agent: &Party, meets: bool, what: &str) {
    if meets {
        agent.goes(PathClass::Direct, USUAL_LIMIT);
    } else {
        agent.goes(PathClass::Relayed, USUAL_LIMIT);
        std::thread::sleep(WATCH);
        assert_eq!(agent.path_class(), Some(PathClass::Relayed), "{what}");
    }
}

#[test]
fn another_address_of_either_side_is_survived() {
    let Some(mut stage) = Stage::new() else { return };
    let (mut connector, mut agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(PathClass::Direct, USUAL_LIMIT);
    agent.site.change_address();
    assert!(agent.echoes_within(address, USUAL_LIMIT), "after the agent's");
    agent.goes(PathClass::Direct, 3 * USUAL_LIMIT);
    connector.site.change_address();
    assert!(agent.echoes_within(address, USUAL_LIMIT), "after the connector's");
    agent.goes(PathClass::Direct, 3 * USUAL_LIMIT);
}

#[test]
fn a_cable_that_was_out_for_a_while_is_survived() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(PathClass::Direct, USUAL_LIMIT);
    agent.site.unplug();
    std::thread::sleep(5 * SECOND);
    agent.site.replug();
    assert!(agent.echoes_within(address, 2 * USUAL_LIMIT));
    agent.goes(PathClass::Direct, 3 * USUAL_LIMIT);
}

#[test]
fn a_relay_that_dies_is_not_missed_by_direct_peers_and_serves_again_when_it_is_back() {
    let Some(mut stage) = Stage::new() else { return };
    let (_connector, agent, address) = connected(&mut stage, [Kind::PortRestricted; 2]);
    agent.goes(PathClass::Direct, USUAL_LIMIT);
    stage.kill_relay();
    std::thread::sleep(WATCH);
    assert!(agent.echoes_within(address, USUAL_LIMIT), "the direct path needed the relay");
    stage.start_relay();
    let mut late = Party::at(stage.net.site(2, Kind::Symmetric));
    let mut other = Party::at(stage.net.site(3, Kind::Symmetric));
    let port = other.serve_echo();
    let invite = other.expose(port, &stage);
    let address = late.connect(&invite);
    assert!(late.echoes_within(address, USUAL_LIMIT));
    stage.kill_relay();
    std::thread::sleep(WATCH);
    stage.start_relay();
    assert!(late.echoes_within(address, 6 * USUAL_LIMIT), "{}", stage.relay_log());
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
    assert!(agent.echoes_within(address, 3 * USUAL_LIMIT));
    agent.goes(PathClass::Relayed, USUAL_LIMIT);
    agent.site.allow_udp();
    agent.goes(PathClass::Direct, 6 * USUAL_LIMIT);
    assert!(agent.echoes_within(address, USUAL_LIMIT));
}

#[test]
fn where_only_an_http_proxy_leads_out_the_relay_is_reached_through_it() {
    let Some(mut stage) = Stage::new() else { return };
    let outside = stage.net.public("proxy", &[12]);
    let (proxy, tunnels) = proxy::start(&outside.inside, "ann:p@ss");
    let mut connector = Party::at(stage.net.site(0, Kind::PortRestricted));
    let mut agent = Party::at(stage.net.site(1, Kind::PortRestricted));
    agent.site.block_all_but(outside.addresses[0]);
    agent.proxy = Some(format!("http://ann:p%40ss@{}:{}", outside.addresses[0], proxy.port()));
    let port = connector.serve_echo();
    let invite = connector.expose(port, &stage);
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, 3 * USUAL_LIMIT));
    agent.goes(PathClass::Relayed, USUAL_LIMIT);
    assert!(tunnels.load(Ordering::Relaxed) > 0);
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
    assert!(agent.echoes_within(address, USUAL_LIMIT));
    agent.goes(PathClass::Direct, USUAL_LIMIT);
    for _ in 0..10 {
        assert!(agent.echoes_within(address, USUAL_LIMIT));
    }
}

#[test]
fn a_download_goes_on_while_its_direct_path_is_cut_and_mended_three_times() {
    if !can_download() {
        return;
    }
    let Some(mut stage) = Stage::new() else { return };
    let mut connector = Party::at(stage.net.site(0, Kind::PortRestricted));
    let mut agent = Party::at(stage.net.site(1, Kind::PortRestricted));
    let directory = Directory::new();
    let bytes = std::env::var("ADIT_LAB_BYTES").map_or(BYTES, |n| n.parse().unwrap());
    let web = Nginx::start(&directory, &connector.site.host, bytes);
    let throttle = Throttle::start(&connector.site.host, web.port, bytes / LASTS, bytes / 2);
    let invite = connector.expose(throttle.port, &stage);
    let address = agent.connect(&invite);
    agent.goes(PathClass::Direct, USUAL_LIMIT);

    let copy = directory.path("copy");
    let mut curl = download(&agent.site.host, address, &copy);
    // Each lost direct path is waited for: the later it is lost, the longer it is held off.
    for share in 1..=3 {
        curl.reaches(&copy, bytes * share / 12);
        agent.site.cut(&connector.site);
        agent.goes(PathClass::Relayed, USUAL_LIMIT);
        agent.site.mend();
        agent.goes(PathClass::Direct, 6 * USUAL_LIMIT);
    }
    throttle.release();
    assert!(curl.succeeds(), "{}", stage.relay_log());
    assert_eq!(digest(&copy), digest(&web.original));
}

#[test]
fn an_end_behind_a_link_that_carries_no_full_packet_is_reached_through_the_relay() {
    let Some(mut stage) = Stage::new() else { return };
    for narrow in [0, 1] {
        let sites = [0, 1].map(|number| stage.net.site(number, Kind::Symmetric));
        // 1,212 bytes of UDP: what QUIC needs, and less than it takes to carry that in it.
        sites[narrow].router.ip("link set lan mtu 1240");
        sites[narrow].host.ip("link set eth mtu 1240");
        let [mut connector, mut agent] = sites.map(Party::at);
        let port = connector.serve_echo();
        let invite = connector.expose(port, &stage);
        let address = agent.connect(&invite);
        assert!(
            agent.echoes_within(address, USUAL_LIMIT),
            "narrow at {narrow}: nothing comes back"
        );
        agent.goes(PathClass::Relayed, USUAL_LIMIT);
    }
}
