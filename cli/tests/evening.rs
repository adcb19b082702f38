//! Small things that cost a person an evening: what is pasted, which port is used, what a command
//! prints while nothing happens, and how fast it ends.

#![cfg(unix)]

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::people::{Machine, assert_echoes};
use common::{echo, echoes_at_last, free_tcp, free_udp, service};

fn echo_service() -> String {
    service(echo).to_string()
}

#[test]
fn a_whole_command_in_quotes_is_an_invite() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let (first, second) = invite.split_at(50);
    let pasted = format!("\u{feff}`adit connect {first}\u{200b}\n  {second}`");
    away.connect(&pasted, &[]);
}

#[test]
fn expose_prints_what_is_missing_and_from_where_it_is_reached() {
    let home = Machine::new();
    let port = free_tcp().port();
    let (exposing, _) = home.expose(&port.to_string(), &[]);
    exposing.says(&format!("Nothing listens at localhost:{port} yet; start the service there."));
    exposing.says("in this network only, at 127.0.0.1:");
    exposing.says("README, \"Behind a home router\"");
}

#[test]
fn connect_prints_what_it_dials_and_a_hint_and_ends_without_delay() {
    let (home, away) = (Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    let (connected, _) = away.connect(&invite, &[]);
    connected.says(&format!("Connecting to {listen}"));
    connected.end();
    exposing.end();

    let again = away.start(&["connect", "web"]);
    again.line();
    again.says(&format!("Connecting to {listen}"));
    again.says("no connection yet: ");
    let begin = Instant::now();
    again.signal("-INT");
    let mut again = again;
    assert!(again.wait().success(), "{}", again.log());
    assert!(begin.elapsed() < Duration::from_millis(2_900), "{:?}", begin.elapsed());
}

#[test]
fn the_usual_port_is_tried_again_after_it_was_taken() {
    let (home, away) = (Machine::new(), Machine::new());
    // The service has another address, so that its port is free at the usual one.
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || echo(tcp));
        }
    });
    let (_exposing, invite) = home.expose(&target.to_string(), &[]);
    let (connected, usual) = away.connect(&invite, &[]);
    assert_eq!(usual.port(), target.port());
    connected.end();
    let taken = TcpListener::bind(usual).unwrap();
    let (connected, other) = away.connect("web", &[]);
    assert_ne!(other, usual);
    connected.says(&format!("{usual} is in use by another program; using {other} this time"));
    connected.end();
    drop(taken);
    let (_connected, again) = away.connect("web", &[]);
    assert_eq!(again, usual);
}

#[test]
fn an_advertised_name_has_the_port_that_is_listened_on() {
    let relay = Machine::new();
    let listen = free_udp();
    let at = listen.to_string();
    let arguments = ["relay", "--listen", &at, "--advertise", "relay.example", "--no-tcp"];
    let running = relay.start(&arguments);
    let line = running.line();
    assert!(line.starts_with(&format!("relay.example:{}", listen.port())), "{line}");
}

#[test]
fn a_port_that_is_open_to_the_network_is_warned_of_even_without_a_filter() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let port = free_tcp().port();
    let local = format!("0.0.0.0:{port}");
    let mut command = away.command(&["connect", &invite, "--local", &local]);
    let running = away.spawn(command.env("RUST_LOG", ""));
    assert_eq!(running.line(), local);
    running.says("gives \"web\" to every machine that reaches this port");
}

#[test]
fn a_name_given_to_a_connected_device_is_in_force_without_a_restart() {
    let (home, away) = (Machine::new(), Machine::new());
    let (listen, backend) = (free_udp(), echo_service());
    let text = format!(
        "listen = \"{listen}\"\n[[service]]\nname = \"web\"\ntcp = \"{backend}\"\n\
         [[service]]\nname = \"db\"\ntcp = \"{backend}\"\nallow = [\"laptop\"]\n"
    );
    let path = home.directory.write("connector.toml", &text);
    let connector = home.start(&["connector", "-c", path.to_str().unwrap()]);
    connector.says("the connector is up");
    let new =
        |arguments: &[&str]| home.told(&[&["invite", "new"], arguments].concat()).trim().to_owned();
    let (_web, _) = away.connect(&new(&["web"]), &[]);
    let (agent_port, known) = (free_tcp(), "[connector]\nknown = \"web\"\n");
    let forward = format!("{known}[[forward]]\nlisten = \"{agent_port}\"\nservice = \"db\"\n");
    let path = away.directory.write("agent.toml", &forward);
    let agent = away.start(&["agent", "-c", path.to_str().unwrap()]);
    agent.says("connected to");
    assert!(!common::echoes(agent_port), "it has no name yet");
    let (db, address) = away.connect(&new(&["db", "--device", "laptop"]), &[]);
    assert_echoes(address, &db);
    // The agent has the certificate and the connection from before.
    assert!(echoes_at_last(agent_port), "{}", agent.log());
}

#[test]
fn what_is_no_longer_used_can_be_forgotten() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &["--device", "laptop"]);
    let (connected, _) = away.connect(&invite, &[]);
    assert!(away.fails(&["forget", "web"], 2).contains("is forwarded here already"));
    connected.end();
    assert_eq!(away.told(&["forget", "web"]), "web is forgotten\n");
    assert!(away.fails(&["connect", "web"], 2).contains("there is no saved service"));
    let identities = std::fs::read_dir(away.home().join("identities")).unwrap();
    assert_eq!(identities.count(), 0);

    assert!(home.fails(&["id", "forget", "laptop"], 2).contains("revoke it first"));
    home.told(&["id", "revoke", "laptop"]);
    assert!(home.told(&["id", "forget", "laptop"]).contains("is forgotten"));
    assert!(home.devices().is_empty());
    assert!(home.fails(&["id", "forget", "laptop"], 2).contains("no device is called"));
    assert!(!home.registry()["revoked_pem"].as_str().unwrap().is_empty());
    assert_eq!(home.told(&["invite", "prune"]), "removed 1 invite\n");
    // Its name is free.
    home.told(&["invite", "new", "web", "--device", "laptop"]);
}
