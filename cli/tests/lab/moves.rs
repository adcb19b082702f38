//! Addresses that end, such as that of a connector without a relay. An open connection goes on.
//!
//! It decides which address ends and how long nothing may come.

use std::time::{Duration, Instant};

use super::nat::Kind;
use super::net::Net;
use super::recovery::Pulse;
use super::stage::{Party, USUAL_LIMIT, public_connector};

/// The longest standstill: a second until the new address is taken, and the rest for a busy machine.
const BOUND: Duration = Duration::from_secs(15);

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
