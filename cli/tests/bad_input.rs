//! Mistakes of a person and errors of a system: one sentence with the cause and the next step, the
//! right exit code, and no loss of data.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use common::people::{Machine, assert_echoes, sentence};
use common::{LIMIT, connect, echo, finish, free_udp, service, system};
use socket2::{Domain, Socket, Type};

fn echo_service() -> String {
    service(echo).to_string()
}

const GOOD: &str =
    "listen = \"127.0.0.1:0\"\n[[service]]\nname = \"web\"\ntcp = \"127.0.0.1:80\"\n";

/// Returns the error for a configuration, which is the same whether it is run or checked.
fn said_of(machine: &Machine, file: &Path) -> String {
    let file = file.to_str().unwrap();
    let said = machine.fails(&["connector", "-c", file], 2);
    assert_eq!(machine.fails(&["config", "verify", file], 2), said);
    assert!(!machine.home().exists(), "a mistake in the file makes nothing");
    said.strip_prefix(&format!("{file}: ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_unusable_configuration_has_an_exact_error() {
    let machine = Machine::new();
    let write = |text: &str| machine.directory.write("connector.toml", text);
    let missing = machine.directory.path("missing.toml");
    let said = said_of(&machine, &missing);
    assert!(said.starts_with("the configuration cannot be read: "), "{said}");
    assert!(said.ends_with("; check the path given to -c"), "{said}");

    let file = write(GOOD);
    mode(&file, 0o664);
    let expected = "others may write this file (mode 664); run: chmod go-w on it";
    assert_eq!(said_of(&machine, &file), expected);
    mode(&file, 0o600);

    let link = machine.directory.path("link.toml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let folder = machine.directory.path("shared");
    std::fs::create_dir(&folder).unwrap();
    mode(&folder, 0o777);
    let turned = folder.join("link.toml");
    std::os::unix::fs::symlink(&link, &turned).unwrap();
    let said = said_of(&machine, &turned);
    assert!(said.contains(" is a symbolic link in a directory that others may write"), "{said}");
    assert!(said.ends_with("; name the file itself"), "{said}");

    let said = said_of(&machine, &write("listen = 4433\n"));
    assert!(said.contains("listen"), "{said}");
    let said = said_of(&machine, &write("listen = \"127.0.0.1:0\"\n[[service]\n"));
    assert!(said.contains("line 2"), "{said}");
    let said = said_of(&machine, &write(&GOOD.replace("listen", "lisen")));
    assert!(said.ends_with("unknown key \"lisen\"; did you mean \"listen\"?"), "{said}");
    let said = said_of(&machine, &write("listen = \"127.0.0.1:0\"\n"));
    assert!(said.starts_with("there is no [[service]]; add one with "), "{said}");
}

#[test]
fn an_unreadable_configuration_has_an_exact_error() {
    let machine = Machine::new();
    let file = machine.directory.write("connector.toml", GOOD);
    mode(&file, 0o000);
    let Some(mut command) = system::as_a_plain_user() else { return };
    machine.at_home(command.args(["connector", "-c"]).arg(&file));
    let said = sentence(&finish(&mut command), 2);
    assert!(said.contains(": the configuration cannot be read: Permission denied"), "{said}");
    assert!(said.ends_with("; make it readable for this user"), "{said}");
}

#[test]
fn a_port_that_stays_in_use_is_named_with_what_to_do() {
    let (home, away) = (Machine::new(), Machine::new());
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let said = home.fails(&["expose", "3000", "--listen", &listen], 5);
    assert!(said.starts_with(&format!("{listen}: cannot use this UDP address: ")), "{said}");
    assert!(said.ends_with("; choose another, or end what uses it"), "{said}");

    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = taken.local_addr().unwrap().to_string();
    let said = away.fails(&["connect", &invite, "--local", &local], 5);
    assert!(said.starts_with(&format!("{local}: cannot listen on this TCP address: ")), "{said}");
    assert!(said.ends_with("; choose another with --local"), "{said}");
    away.connect("web", &[]).0.end();
}

#[test]
fn a_backend_that_refuses_resets_the_client_and_is_named() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_held, nobody) = held();
    let (exposing, invite) = home.expose(&nobody, &[]);
    let connected = away.start(&["connect", &invite]);
    let mut tcp = connect(connected.address());
    assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let said = format!("backend_unavailable: {nobody}: Connection refused");
    exposing.says(&said);
    connected.says("backend_unavailable: the connector cannot reach the service");
    // Its own local port is the usual one, which is taken by the service's here.
    let log = connected.log();
    let mut refusals = log.lines().filter(|line| line.contains("refused a connection"));
    assert!(!refusals.any(|line| line.contains(&nobody)), "{log}");
}

/// Returns a TCP port that is bound, and on which no process listens.
fn held() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address.to_string())
}

/// Returns a listening socket that accepts no further connection.
fn full() -> (Socket, Vec<TcpStream>, String) {
    let (socket, address) = held();
    socket.listen(0).unwrap();
    let (to, soon) = (address.parse().unwrap(), Duration::from_secs(1));
    let waiting = (0..8).map_while(|_| TcpStream::connect_timeout(&to, soon).ok()).collect();
    (socket, waiting, address)
}

#[test]
fn a_backend_that_stalls_is_given_up_after_ten_seconds() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_socket, _waiting, stalled) = full();
    let (exposing, invite) = home.expose(&stalled, &[]);
    let connected = away.start(&["connect", &invite]);
    let address = connected.address();
    let mut tcp = connect(address);
    let start = Instant::now();
    assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let took = start.elapsed();
    assert!(took.as_secs() >= 9, "given up after {took:?}");
    exposing.says(&format!("backend_unavailable: {stalled}: no answer within 10s"));
}

#[test]
fn either_half_of_a_backend_connection_outlives_the_other() {
    let (home, away) = (Machine::new(), Machine::new());
    let (heard, hears) = std::sync::mpsc::channel();
    let backend = service(move |mut tcp: TcpStream| {
        tcp.write_all(b"that is all")?;
        tcp.shutdown(Shutdown::Write)?;
        let mut rest = String::new();
        tcp.read_to_string(&mut rest)?;
        let _ = heard.send(rest);
        Ok(())
    });
    let (_exposing, invite) = home.expose(&backend.to_string(), &[]);
    let connected = away.start(&["connect", &invite]);
    let mut tcp = connect(connected.address());
    let mut all = String::new();
    tcp.read_to_string(&mut all).unwrap();
    assert_eq!(all, "that is all");
    tcp.write_all(b"and thanks").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hears.recv_timeout(LIMIT).unwrap(), "and thanks");
}

#[test]
fn two_programs_on_one_identity_are_one_too_many_and_the_first_is_named() {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    let listen = free_udp().to_string();
    let said = home.fails(&["expose", "3000", "--listen", &listen], 2);
    assert!(
        said.contains(&format!(" is in use by the adit of process {}; end ", exposing.id())),
        "{said}"
    );
    let (connected, address) = away.connect(&invite, &[]);
    let said = away.fails(&["connect", "web"], 2);
    let id = connected.id();
    let expected =
        format!("\"web\" is forwarded here already, by the adit of process {id}; use that ");
    assert!(said.starts_with(&expected), "{said}");
    assert_echoes(address, &connected);
}

#[test]
fn a_machine_without_a_network_retries_until_there_is_one() {
    let (home, away) = (Machine::new(), Machine::new());
    let listen = free_udp().to_string();
    let (exposing, invite) = home.expose_at(&listen, &echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    exposing.end();
    let waiting = away.start(&["connect", "web"]);
    let address = waiting.address();
    std::thread::sleep(Duration::from_millis(500));
    let (_exposing, _) = home.expose_at(&listen, &echo_service(), &[]);
    assert_echoes(address, &waiting);
}

#[test]
fn names_that_do_not_resolve_and_addresses_without_a_route_are_tried_again() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    for at in ["nowhere.invalid:4433", "[100::1]:9", "240.0.0.1:9"] {
        let known = away.home().join("known/web.json");
        let before = std::fs::read_to_string(&known).unwrap();
        let mut shown: serde_json::Value = serde_json::from_str(&before).unwrap();
        shown["addresses"] = serde_json::json!([at]);
        std::fs::write(&known, shown.to_string()).unwrap();
        let mut waiting = away.start(&["connect", "web", "--give-up-after", "2s"]);
        waiting.line();
        let said = waiting.ends_with(4);
        assert_eq!(
            said,
            "no connection for 2s; check that the connector runs and that UDP reaches it"
        );
        std::fs::write(&known, before).unwrap();
    }
    away.connect("web", &[]).0.end();
}
