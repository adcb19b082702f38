//! Addresses that end: of a relay with two, and of a connector without a relay. An open connection
//! goes on.
//!
//! It decides which address ends and how long nothing may come.

use std::time::{Duration, Instant};

use super::nat::Kind;
use super::net::Net;
use super::recovery::Pulse;
use super::stage::{Party, PathClass, Stage, USUAL_LIMIT, public_connector};

/// The longest standstill: 5 s until a link counts as silent, a lookup and a handshake, and as much
/// again for a busy machine.
const BOUND: Duration = Duration::from_secs(15);

/// The name of the relay in the hosts file of each site.
const NAME: &str = "relay.example";

#[test]
fn a_connection_goes_on_when_one_of_its_relays_addresses_goes_dark() {
    let Some(mut stage) = Stage::new() else { return };
    let [one, other] = [stage.server.addresses[0], stage.server.addresses[1]];
    stage.address = stage.address.replace(&one.to_string(), NAME);
    let [mut connector, mut agent] =
        [0, 1].map(|number| Party::at(stage.net.site(number, Kind::Symmetric)));
    for party in [&connector, &agent] {
        party.site.host.hosts(&format!("{one} {NAME}\n{other} {NAME}\n"));
    }
    let port = connector.serve_echo();
    let invite = connector.expose(port, &stage);
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, USUAL_LIMIT));
    agent.goes(PathClass::Relayed, USUAL_LIMIT);
    let pulse = Pulse::start(&agent.site, address);
    pulse.after(Instant::now());
    for dark in [one, other] {
        let rules = format!(
            "table ip dark {{
               chain forward {{
                 type filter hook forward priority -10;
                 ip daddr {dark} drop
                 ip saddr {dark} drop
               }}
             }}"
        );
        for party in [&connector, &agent] {
            party.site.router.nft(&rules);
        }
        let since = Instant::now();
        // What was under way may still arrive.
        let standstill = pulse.after(since + Duration::from_millis(500));
        println!("{dark} is dark: {standstill:?}");
        assert!(standstill < BOUND, "{dark} is dark: {standstill:?}; {}", stage.relay_log());
        for party in [&connector, &agent] {
            party.site.router.nft("delete table ip dark");
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[test]
fn a_connection_goes_on_when_a_connector_without_a_relay_changes_its_address() {
    let Some(mut net) = Net::new() else { return };
    let (server, _web, _connector, invite) = public_connector(&mut net);
    let mut agent = Party::at(net.site(0, Kind::FullCone));
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, USUAL_LIMIT));
    let pulse = Pulse::start(&agent.site, address);
    pulse.after(Instant::now());
    server.inside.ip("addr flush dev wan");
    server.inside.ip("addr add 203.0.113.13/24 dev wan");
    let standstill = pulse.after(Instant::now() + Duration::from_millis(200));
    println!("from another address: {standstill:?}");
    assert!(standstill < BOUND, "{standstill:?}");
    assert!(agent.echoes_within(address, USUAL_LIMIT), "a new connection");
}
