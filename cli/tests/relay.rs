//! Machines connected by a relay, with real processes: onboarding in two commands, how the path is
//! reported, what happens when the relay restarts, and how mistakes are reported.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use common::people::{Machine, Running, assert_echoes};
use common::{bounded, echo, free_tcp, free_udp, service};
use serde_json::Value;

const KEY: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk";

/// Starts a relay. Returns its address with its key.
fn relay(machine: &Machine, at: &str) -> (Running, String) {
    let running = machine.start(&["relay", "--listen", at, "--discovery-port", "0", "--no-tcp"]);
    let line = running.line();
    (running, line)
}

/// Starts a relay on a free port.
fn any_relay(machine: &Machine) -> (Running, String) {
    relay(machine, &free_udp().to_string())
}

/// Starts a relay that accepts TCP as well. Returns its address where UDP to it is blocked: the UDP
/// port in it is that of the socket, which never answers.
fn relay_behind_a_wall(machine: &Machine) -> (Running, String, UdpSocket) {
    let listen = free_udp().to_string();
    let arguments = ["relay", "--listen", &listen, "--discovery-port", "0", "--tcp-port", "0"];
    let running = machine.start(&arguments);
    let line = running.line();
    assert!(line.starts_with(&format!("{listen},tcp=")), "{line}");
    let wall = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = line.replace(&listen, &wall.local_addr().unwrap().to_string());
    (running, at, wall)
}

/// Returns what carries the packets of a machine to its relay, if that is known.
fn transport(machine: &Machine) -> Value {
    let all = peers(machine);
    all.iter().find(|p| p["is_relay"] == true).map_or(Value::Null, |p| p["relay_transport"].clone())
}

/// Exposes an echo by a relay alone: no machine has the address in the invite.
fn expose(home: &Machine, relay: &str) -> (Running, String) {
    let nowhere = free_udp().to_string();
    let (running, invite) = home.expose(&service(echo).to_string(), &["--relay", relay]);
    let offer = home.home().join("mesh/offer.json");
    let mut told: Value = serde_json::from_slice(&std::fs::read(&offer).unwrap()).unwrap();
    told["addresses"] = serde_json::json!([nowhere]);
    std::fs::write(&offer, told.to_string()).unwrap();
    drop(invite);
    let invite = home.told(&["invite", "new"]).trim().to_owned();
    (running, invite)
}

fn peers(machine: &Machine) -> Vec<Value> {
    let output = machine.run(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let processes = status["processes"].as_array().cloned().unwrap_or_default();
    processes.iter().flat_map(|p| p["peers"].as_array().cloned().unwrap_or_default()).collect()
}

/// Waits until a connector is registered at its relay.
fn registered(home: &Machine, running: &Running) {
    let up = bounded(|| peers(home).iter().any(|p| p["is_registered"] == true).then_some(()));
    assert!(up.is_some(), "it is not registered:\n{}", running.log());
}

#[test]
fn two_commands_lead_through_a_relay_and_afterwards_a_name_is_enough() {
    let (public, home, away) = (Machine::new(), Machine::new(), Machine::new());
    let (relay, at) = any_relay(&public);
    let (exposing, invite) = expose(&home, &at);
    registered(&home, &exposing);
    let (connected, address) = away.connect(&invite, &[]);
    let path = bounded(|| peers(&away).iter().find(|p| p["path"].is_object()).cloned());
    let path = path.unwrap_or_else(|| panic!("no path is told:\n{}", connected.log()));
    assert!(["direct", "relayed"].contains(&path["path"]["class"].as_str().unwrap()), "{path}");
    connected.end();
    let (again, same) = away.connect("web", &[]);
    assert_eq!(same, address);
    again.end();
    exposing.end();
    relay.end();
}

#[test]
fn two_machines_meet_by_tcp_at_a_relay_that_no_udp_reaches() {
    let (public, home, away) = (Machine::new(), Machine::new(), Machine::new());
    let (_relay, at, _wall) = relay_behind_a_wall(&public);
    let (exposing, invite) = expose(&home, &at);
    registered(&home, &exposing);
    let (connected, _) = away.connect(&invite, &[]);
    for machine in [&home, &away] {
        let transport = transport(machine);
        assert_eq!(
            (&transport["transport"], &transport["state"]),
            (&"tcp".into(), &"tcp".into()),
            "{transport}"
        );
        let told = machine.told(&["status"]);
        assert!(told.contains(": by TCP for ") && told.contains("; UDP is blocked"), "{told}");
    }
    let told = public.json(&["status", "--json"]);
    let relay = &told["processes"][0]["relay"];
    assert!(relay["forwarded_bytes"].as_u64().unwrap() > 0, "{relay}");
    let observed = relay["registrations"][0]["observed"].as_str().unwrap();
    assert!(observed.starts_with("[fd15:70a:510c:"), "{relay}");
    let told = away.told(&["why", "web"]);
    assert!(!told.contains("fd15:70a:510c:"), "{told}");
    // What is saved of the invite has the port as well.
    drop(connected);
    away.connect("web", &[]);
}

#[test]
fn open_udp_is_used_and_shown_in_status() {
    let (public, home) = (Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let arguments = ["relay", "--listen", &listen, "--discovery-port", "0", "--tcp-port", "0"];
    let relay = public.start(&arguments);
    let (exposing, _) = expose(&home, &relay.line());
    registered(&home, &exposing);
    let transport = transport(&home);
    assert_eq!(
        (&transport["transport"], &transport["state"]),
        (&"udp".into(), &"udp".into()),
        "{transport}"
    );
    let told = home.told(&["status"]);
    assert!(told.contains(&format!("relay {listen}: by UDP for ")), "{told}");
}

#[test]
fn check_distinguishes_blocked_udp_from_an_absent_relay() {
    let (public, fresh) = (Machine::new(), Machine::new());
    let (relay, at, _wall) = relay_behind_a_wall(&public);
    let output = fresh.run(&["check", &at]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(told.contains(": no answer, but TCP works, connected in "), "{told}");
    assert!(told.contains(": open, for networks without UDP"), "{told}");
    relay.end();
    assert_eq!(fresh.run(&["check", &at]).status.code(), Some(4));
}

#[test]
fn a_tcp_port_that_was_named_and_is_taken_ends_the_relay_with_what_to_do() {
    let public = Machine::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let listen = free_udp().to_string();
    let said = public.fails(&["relay", "--listen", &listen, "--tcp-port", &port], 5);
    assert!(
        said.contains("cannot listen on this TCP address") && said.contains("--no-tcp"),
        "{said}"
    );
    let text = format!("listen = \"{listen}\"\ntcp_port = {port}\n");
    let path = public.directory.write("relay.toml", &text);
    let said = public.fails(&["relay", "-c", path.to_str().unwrap()], 5);
    assert!(said.contains("cannot listen on this TCP address"), "{said}");
    let path = public.directory.write("both.toml", &format!("{text}no_tcp = true\n"));
    let said = public.fails(&["relay", "-c", path.to_str().unwrap()], 2);
    assert!(said.contains("tcp_port and no_tcp contradict each other"), "{said}");
}

#[test]
fn status_and_why_show_the_path_and_the_relays_clients() {
    let (public, home, away) = (Machine::new(), Machine::new(), Machine::new());
    let (_relay, at) = any_relay(&public);
    let (exposing, invite) = expose(&home, &at);
    registered(&home, &exposing);
    let (_connected, _) = away.connect(&invite, &[]);
    let direct =
        bounded(|| peers(&away).iter().any(|p| p["path"]["class"] == "direct").then_some(()));
    assert!(direct.is_some(), "it does not go direct: {:#?}", peers(&away));
    let told = away.told(&["why", "web"]);
    assert!(told.contains("directly at ") && told.contains("why: "), "{told}");
    assert!(told.contains("this end advertised: ") && told.contains("NAT here: "), "{told}");
    let told = away.json(&["why", "--json"]);
    assert_eq!(told["schema"], "adit.why/1");
    let pairs = told["peers"][0]["peer"]["path"]["candidate_pairs"].as_array().unwrap();
    assert!(pairs.iter().any(|pair| pair["class"] == "relayed"), "{pairs:#?}");
    let told = away.told(&["status"]);
    assert!(told.contains(": directly at "), "{told}");
    // A line that is wider than a terminal is wrapped.
    let told = public.told(&["status"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("relays for ") && told.contains(", with web, "), "{told}");
    let told = home.told(&["status"]);
    assert!(told.contains("is found at the relay "), "{told}");
    let said = away.fails(&["why", "nobody"], 4);
    assert!(
        said.starts_with("there is no peer \"nobody\" here; connected peers: the connector of "),
        "{said}"
    );
}

#[test]
fn an_agent_that_keeps_its_addresses_to_itself_stays_on_the_relay() {
    let (public, home, away) = (Machine::new(), Machine::new(), Machine::new());
    let (_relay, at) = any_relay(&public);
    let (exposing, invite) = expose(&home, &at);
    registered(&home, &exposing);
    away.connect(&invite, &[]).0.end();
    let port = free_tcp();
    let text = format!(
        "direct = false\n[connector]\nknown = \"web\"\n\
         [[forward]]\nlisten = \"{port}\"\nservice = \"web\"\n"
    );
    let path = away.directory.write("agent.toml", &text);
    let agent = away.start(&["agent", "-c", path.to_str().unwrap()]);
    assert_echoes(port, &agent);
    let all = peers(&away);
    let paths: Vec<&Value> = all.iter().map(|p| &p["path"]).filter(|p| p.is_object()).collect();
    let [path] = paths[..] else { panic!("{all:#?}") };
    assert_eq!(path["class"], "relayed", "{path:#}");
    assert_eq!(path["candidates"], Value::Array(Vec::new()), "{path:#}");
    let pairs = path["candidate_pairs"].as_array().unwrap();
    assert!(pairs.iter().all(|pair| pair["class"] == "relayed"), "{pairs:#?}");
}

#[test]
fn why_without_a_running_process_has_a_next_step() {
    let said = Machine::new().fails(&["why"], 4);
    assert!(said.contains("no adit runs here"), "{said}");
}

#[test]
fn a_relay_keeps_its_key_and_its_clients_come_back_to_it() {
    let (public, home, away) = (Machine::new(), Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (running, at) = relay(&public, &listen);
    let key = public.home().join("relay/identity.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let (exposing, invite) = expose(&home, &at);
    registered(&home, &exposing);
    running.end();
    let lost = bounded(|| peers(&home).iter().all(|p| p["is_registered"] == false).then_some(()));
    assert!(lost.is_some(), "{:#?}", peers(&home));
    let (_running, again) = relay(&public, &listen);
    assert_eq!(again, at);
    registered(&home, &exposing);
    away.connect(&invite, &[]);
}

#[test]
fn the_relay_is_remembered_until_it_is_forgotten() {
    let (public, home) = (Machine::new(), Machine::new());
    let (_relay, at) = any_relay(&public);
    let relays = |machine: &Machine| {
        let offer = std::fs::read(machine.home().join("mesh/offer.json")).unwrap();
        serde_json::from_slice::<Value>(&offer).unwrap()["relays"].clone()
    };
    let target = service(echo).to_string();
    home.expose(&target, &["--relay", &at]).0.end();
    assert_eq!(relays(&home), serde_json::json!([at]));
    let (again, _) = home.expose(&target, &[]);
    registered(&home, &again);
    again.end();
    home.expose(&target, &["--no-relay"]).0.end();
    assert_eq!(relays(&home), serde_json::json!([]));
}

#[test]
fn plain_addresses_are_used_where_no_relay_answers() {
    let (home, away) = (Machine::new(), Machine::new());
    let nobody = format!("{}#{KEY}", free_udp());
    let (exposing, invite) = home.expose(&service(echo).to_string(), &["--relay", &nobody]);
    away.connect(&invite, &[]).0.end();
    exposing.end();
}

#[test]
fn an_agents_file_may_name_the_relays() {
    let (public, home, away) = (Machine::new(), Machine::new(), Machine::new());
    let (_relay, at) = any_relay(&public);
    let target = service(echo);
    let text = format!(
        "listen = \"{}\"\nrelays = [\"{at}\"]\n[[service]]\nname = \"web\"\ntcp = \"{target}\"\n",
        free_udp()
    );
    let path = home.directory.write("connector.toml", &text);
    let told = home.told(&["config", "verify", path.to_str().unwrap()]);
    assert!(told.contains("is registered at the relay 127.0.0.1:"), "{told}");
    let connector = home.start(&["connector", "-c", path.to_str().unwrap()]);
    registered(&home, &connector);
    let invite = home.told(&["invite", "new"]);
    away.connect(invite.trim(), &[]).0.end();
    let port = free_tcp();
    let text = format!(
        "relays = [\"{at}\"]\n[connector]\nknown = \"web\"\n[[forward]]\nlisten = \"{port}\"\n\
         service = \"web\"\n"
    );
    let path = away.directory.write("agent.toml", &text);
    let agent = away.start(&["agent", "-c", path.to_str().unwrap()]);
    assert_echoes(port, &agent);
}

#[test]
fn a_network_is_checked_before_anything_is_configured() {
    let (public, fresh) = (Machine::new(), Machine::new());
    let said = fresh.fails(&["check"], 2);
    assert!(said.contains("name it: adit check relay.example:4433#KEY"), "{said}");
    let (_relay, at) = any_relay(&public);
    let told = fresh.told(&["check", &at]);
    assert!(told.contains("works, connected in ") && told.contains("NAT: "), "{told}");
    let told = fresh.json(&["check", &at, "--json"]);
    assert_eq!(told["relays"][0]["udp"][0]["answer"], "relay");
    let (place, _) = at.split_once('#').unwrap();
    let told = fresh.told(&["check", place]);
    assert!(told.contains("something answers; give the relay's key to verify it"), "{told}");
    let output = fresh.run(&["check", &format!("{place}#{KEY}")]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = fresh.run(&["check", &format!("{}#{KEY}", free_udp())]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn a_relay_that_is_written_wrong_is_answered_with_what_is_missing() {
    let machine = Machine::new();
    for (text, why) in [
        ("relay.example:4433", "does not say which key the relay has"),
        ("relay.example#short", "is no key, or not the whole of one"),
        ("https://relay.example#x", "names no host"),
    ] {
        let output = machine.run(&["expose", "3000", "--relay", text]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let text = "listen = \"127.0.0.1:4433\"\nrelays = [\"relay.example\"]\n[[service]]\n\
                name = \"web\"\ntcp = \"127.0.0.1:1\"\n";
    let path = machine.directory.write("connector.toml", text);
    let said = machine.fails(&["config", "verify", path.to_str().unwrap()], 2);
    assert!(said.contains("does not say which key the relay has"), "{said}");
    assert!(!machine.home().join("mesh").exists());
}

#[test]
fn a_second_relay_with_the_same_key_names_the_first() {
    let public = Machine::new();
    let (running, _) = any_relay(&public);
    let said = public.fails(&["relay", "--listen", &free_udp().to_string()], 2);
    assert!(said.contains(&format!("in use by the adit of process {}", running.id())), "{said}");
}

#[test]
fn a_relay_for_one_mesh_refuses_members_of_another() {
    let (public, home) = (Machine::new(), Machine::new());
    let other = "5e".repeat(32);
    let listen = free_udp().to_string();
    let running = public.start(&[
        "relay",
        "--listen",
        &listen,
        "--discovery-port",
        "0",
        "--no-tcp",
        "--allow-mesh",
        &other,
    ]);
    let at = running.line();
    let (exposing, _) = home.expose(&service(echo).to_string(), &["--relay", &at]);
    exposing.says("the relay refuses this machine (forbidden: the relay does not serve this mesh)");
    let degraded = bounded(|| (home.run(&["status"]).status.code() == Some(5)).then_some(()));
    assert!(degraded.is_some(), "{}", exposing.log());
    assert!(peers(&home).iter().all(|peer| peer["is_registered"] == false), "{}", exposing.log());
}

#[test]
fn a_relay_says_at_its_start_who_may_use_it() {
    let machine = Machine::new();
    let (open, _) = any_relay(&machine);
    let named =
        bounded(|| open.log().contains("everyone may use this relay; limit it").then_some(()));
    assert!(named.is_some(), "{}", open.log());
    open.end();
    let (at, key) = (free_udp().to_string(), "5e".repeat(32));
    let arguments =
        ["relay", "--listen", &at, "--discovery-port", "0", "--no-tcp", "--allow-key", &key];
    let closed = machine.start(&arguments);
    closed.line();
    let named = bounded(|| closed.log().contains("holders of 1 device key").then_some(()));
    assert!(named.is_some(), "{}", closed.log());
}
