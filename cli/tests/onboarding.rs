//! From an empty home to the first byte in two commands, as two people with a machine each
//! experience it: what the commands print, where an invite may be given, and what a device may do
//! then.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::people::{Machine, Running, assert_echoes};
use common::{LIMIT, connect, echo, free_tcp, free_udp, service, unix_service};

fn echo_service() -> String {
    service(echo).to_string()
}

/// Starts a connector with a file of its own, and waits until it is up.
fn connector(machine: &Machine, services: &str) -> Running {
    let text = format!("listen = \"{}\"\n{services}", free_udp());
    let path = machine.directory.write("connector.toml", &text);
    let running = machine.start(&["connector", "-c", path.to_str().unwrap()]);
    running.says("the connector is up");
    running
}

fn invite(machine: &Machine, arguments: &[&str]) -> String {
    machine.told(&[&["invite", "new"], arguments].concat()).trim().to_owned()
}

/// Returns true if a connection to a local port is broken off before a byte came back.
fn is_refused(address: std::net::SocketAddr) -> bool {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = tcp.write_all(b"?");
    tcp.read_exact(&mut [0]).is_err()
}

#[test]
fn two_commands_connect_and_later_a_name_is_enough() {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    let (connected, address) = away.connect(&invite, &[]);
    let mut tcp = connect(address);
    tcp.write_all(b"across").unwrap();
    let mut answer = [0; 6];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"across");
    assert!(exposing.is_silent() && connected.is_silent(), "one line each is on stdout");
    connected.says("Enrolled; from now on: adit connect web");
    drop(tcp);
    connected.end();

    let (again, same) = away.connect("web", &[]);
    assert_eq!(same, address, "its local port is the one it had");
    again.end();
    exposing.end();
}

#[test]
fn an_invite_may_come_by_standard_input_a_file_or_the_environment() {
    let home = Machine::new();
    let (_exposing, first) = home.expose(&echo_service(), &[]);
    let wait = |running: Running| assert_echoes(running.address(), &running);

    let away = Machine::new();
    let mut command = away.command(&["connect", "-"]);
    let file = away.directory.write("standard-input", &format!("\n  {first}\n"));
    wait(away.spawn_with(&mut command, std::fs::File::open(file).unwrap()));

    let away = Machine::new();
    let file = away.directory.write("invite.txt", &invite(&home, &[]));
    wait(away.start(&["connect", "--invite-file", file.to_str().unwrap()]));

    let away = Machine::new();
    let mut command = away.command(&["connect"]);
    wait(away.spawn(command.env("ADIT_INVITE", invite(&home, &[]))));
    assert_eq!(home.devices().len(), 3);
}

#[test]
fn a_name_goes_before_an_invite_that_stands_in_the_environment() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    let mut command = away.command(&["connect", "web"]);
    let running = away.spawn(command.env("ADIT_INVITE", "adit1_damaged"));
    assert_echoes(running.address(), &running);
}

#[test]
fn the_second_expose_keeps_the_ca_and_the_identity_of_the_first() {
    let home = Machine::new();
    let (exposing, _) = home.expose(&echo_service(), &[]);
    let kept = |machine: &Machine| {
        ["ca.key", "ca.pem", "identity.pem"]
            .map(|name| std::fs::read(machine.home().join("mesh").join(name)).unwrap())
    };
    let before = kept(&home);
    exposing.end();
    let (exposing, _) = home.expose(&echo_service(), &[]);
    assert!(kept(&home) == before);
    exposing.end();
}

#[test]
fn keys_and_the_home_are_their_owners_alone() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let (_connected, _) = away.connect(&invite, &[]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for machine in [&home, &away] {
        assert_eq!(mode(&machine.home()), 0o700);
        for (path, contents) in machine.files() {
            assert_eq!(mode(path.parent().unwrap()), 0o700, "{}", path.display());
            let has_key = String::from_utf8_lossy(&contents).contains("PRIVATE KEY");
            assert!(!has_key || mode(&path) == 0o600, "{}", path.display());
        }
    }
    let keys = |machine: &Machine| {
        let has_key = |file: &Vec<u8>| String::from_utf8_lossy(file).contains("PRIVATE KEY");
        machine.files().into_iter().filter(|(_, contents)| has_key(contents)).count()
    };
    assert_eq!((keys(&home), keys(&away)), (2, 1), "the CA's, the connector's and the device's");
}

#[test]
fn a_unix_socket_can_be_exposed() {
    let (home, away) = (Machine::new(), Machine::new());
    let socket = home.directory.path("app.sock");
    unix_service(&socket, |mut client| {
        let mut question = [0];
        client.read_exact(&mut question)?;
        client.write_all(&question)
    });
    let (_exposing, invite) = home.expose(&format!("unix:{}", socket.display()), &[]);
    away.connect(&invite, &[]);
}

#[test]
fn a_service_has_the_name_of_its_usual_port_and_that_port_where_it_is_free() {
    let (home, away) = (Machine::new(), Machine::new());
    let target = echo_service();
    let listen = free_udp().to_string();
    let exposing = home.start(&["expose", &target, "--listen", &listen, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&exposing.line()).unwrap();
    let port = target.rsplit(':').next().unwrap();
    assert_eq!(told["service"], format!("port-{port}"));
    let (_connected, address) = away.connect(told["invite"].as_str().unwrap(), &[]);
    assert_ne!(address.to_string(), target, "that port is taken on this machine");
    let asked = free_tcp();
    let again = Machine::new();
    let invite = invite(&home, &[]);
    let (_connected, address) = again.connect(&invite, &["--local", &asked.port().to_string()]);
    assert_eq!(address, asked);
}

#[test]
fn an_allow_list_lets_in_the_device_that_the_inviter_named_and_no_other() {
    let (home, laptop, other) = (Machine::new(), Machine::new(), Machine::new());
    let service = format!(
        "[[service]]\nname = \"web\"\ntcp = \"{}\"\nallow = [\"laptop\"]\n",
        echo_service()
    );
    let connecting = connector(&home, &service);
    laptop.connect(&invite(&home, &["web", "--device", "laptop"]), &[]);
    let running = other.start(&["connect", &invite(&home, &["web", "--device", "other"])]);
    let address = running.address();
    assert!(is_refused(address));
    running.says("the connector refused a connection");
    running.says("may not use \"web\"");
    connecting.says("may not use \"web\"");
    let said = home.fails(&["invite", "new", "web", "--device", "laptop"], 2);
    assert_eq!(said, "the name \"laptop\" is taken by another device");
    assert!(laptop.told(&["id", "show"]).contains(", laptop\n"));
}

#[test]
fn a_device_that_was_invited_to_one_service_cannot_use_another() {
    let (home, away) = (Machine::new(), Machine::new());
    let service = |name| format!("[[service]]\nname = \"{name}\"\ntcp = \"{}\"\n", echo_service());
    let _connecting = connector(&home, &(service("web") + &service("db")));
    let said = home.fails(&["invite", "new"], 2);
    assert!(said.contains("exposed: db, web; name one: adit invite new SERVICE"), "{said}");
    away.connect(&invite(&home, &["web"]), &[]).0.end();

    let (web, db) = (free_tcp(), free_tcp());
    let forward = |port, name| format!("[[forward]]\nlisten = \"{port}\"\nservice = \"{name}\"\n");
    let text =
        format!("[connector]\nknown = \"web\"\n{}{}", forward(web, "web"), forward(db, "db"));
    let path = away.directory.write("agent.toml", &text);
    let agent = away.start(&["agent", "-c", path.to_str().unwrap()]);
    assert_echoes(web, &agent);
    assert!(is_refused(db));
    agent.says("may not use \"db\"");

    away.connect(&invite(&home, &["db"]), &["--local", "0"]).0.end();
    assert_echoes(db, &agent);
    assert_eq!(home.devices().len(), 1, "it is the same device, with one service more");
}
