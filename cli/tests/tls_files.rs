//! Certificates, keys and lists that another program maintains: in any usual form, replaced while
//! the program runs, expired while it is connected, and never trusted beyond the leaf.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::people::{Machine, Running, assert_echoes};
use common::{
    Authority, QUICK, connect, echo, echoes, echoes_at_last, free_tcp, free_udp, is_cut_off,
    service,
};

/// A connector and agents with PEM files of one authority, all on one machine.
struct World {
    machine: Machine,
    authority: Authority,
    listen: String,
}

impl World {
    fn new() -> Self {
        let listen = free_udp().to_string();
        Self { machine: Machine::new(), authority: Authority::new(), listen }
    }

    fn issue(&self, name: &str, life: Duration) -> String {
        self.authority.issue_for(&self.machine.directory, name, life)
    }

    /// Starts a connector with an echo for all, and one for "admin" alone.
    fn connector(&self, tls: &str) -> Running {
        let target = service(echo);
        let text = format!(
            "listen = \"{}\"\n{tls}{QUICK}[[service]]\nname = \"echo\"\ntcp = \"{target}\"\n\
             [[service]]\nname = \"secret\"\ntcp = \"{target}\"\nallow = [\"admin\"]\n",
            self.listen
        );
        let path = self.machine.directory.write("connector.toml", &text);
        let running = self.machine.start(&["connector", "-c", path.to_str().unwrap()]);
        running.says("the connector is up");
        running
    }

    /// Starts an agent with a port for each of the two; the first one echoes.
    fn agent(&self, tls: &str) -> (Running, [SocketAddr; 2]) {
        let (running, ports) = self.start_agent(tls);
        assert_echoes(ports[0], &running);
        (running, ports)
    }

    fn start_agent(&self, tls: &str) -> (Running, [SocketAddr; 2]) {
        let ports = [free_tcp(), free_tcp()];
        let text = format!(
            "{tls}{QUICK}[connector]\naddress = \"{}\"\nname = \"connector\"\n\
             [[forward]]\nlisten = \"{}\"\nservice = \"echo\"\n\
             [[forward]]\nlisten = \"{}\"\nservice = \"secret\"\n",
            self.listen, ports[0], ports[1]
        );
        let path = self.machine.directory.write(&format!("{}.toml", ports[0].port()), &text);
        (self.machine.start(&["agent", "-c", path.to_str().unwrap()]), ports)
    }
}

const A_DAY: Duration = Duration::from_secs(86_400);

/// A lifetime in which a busy machine has time to start a process that connects.
const SHORT: Duration = Duration::from_secs(12);

#[test]
fn certificates_beside_the_leaf_do_not_change_who_a_device_is() {
    let world = World::new();
    let _connector = world.connector(&world.issue("connector", A_DAY));
    let _admin = world.issue("admin", A_DAY);
    let tls = world.issue("laptop", A_DAY);
    let read = |name| std::fs::read_to_string(world.machine.directory.path(name)).unwrap();
    let chain = read("laptop.pem") + &read("admin.pem") + &read("laptop-ca.pem");
    world.machine.directory.write("laptop.pem", &chain);
    let (agent, ports) = world.agent(&tls);
    assert!(!echoes(ports[1]), "the filler is not who it is");
    agent.says("forbidden: laptop may not use \"secret\"");
}

/// Runs openssl. Returns `None`, and prints so, where it is not installed.
fn openssl(arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("openssl").args(arguments).output() else {
        eprintln!("SKIPPED: keys of all forms, because openssl is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn keys_are_taken_in_all_three_usual_forms() {
    let world = World::new();
    let forms: [(&str, &[&str], &str); 3] = [
        ("connector", &["genrsa", "-traditional", "2048"], "BEGIN RSA PRIVATE KEY"),
        ("sec1", &["ecparam", "-name", "prime256v1", "-genkey", "-noout"], "BEGIN EC PRIVATE KEY"),
        ("pkcs8", &["genpkey", "-algorithm", "ED25519"], "BEGIN PRIVATE KEY"),
    ];
    let mut connector = None;
    for (name, arguments, begin) in forms {
        let Some(key) = openssl(arguments) else { return };
        assert!(key.contains(begin), "{name}: {}", key.lines().next().unwrap());
        let path = world.machine.directory.write(&format!("{name}.key"), &key);
        let public = openssl(&["pkey", "-pubout", "-in", path.to_str().unwrap()]).unwrap();
        let tls = world.authority.issue_to(&world.machine.directory, name, &path, &public);
        match &connector {
            None => connector = Some(world.connector(&tls)),
            Some(_) => drop(world.agent(&tls)),
        }
    }
}

#[test]
fn files_that_were_replaced_are_used_without_a_restart_and_broken_ones_are_not() {
    let world = World::new();
    let tls = world.issue("connector", A_DAY);
    let mut connector = world.connector(&tls);
    let (mut agent, ports) = world.agent(&world.issue("laptop", A_DAY));
    let mut tcp = connect(ports[0]);
    let mut carries = || {
        let mut answer = [0];
        tcp.write_all(b"!").is_ok() && tcp.read_exact(&mut answer).is_ok()
    };
    assert!(carries());

    world.machine.directory.write("laptop.pem", "no certificate");
    agent.says("the new certificate cannot be used: ");
    assert!(carries(), "the old one is in use");

    world.issue("desk", A_DAY);
    for (new, old) in [("desk.pem", "laptop.pem"), ("desk.key", "laptop.key")] {
        let path = |name| world.machine.directory.path(name);
        std::fs::rename(path(new), path(old)).unwrap();
    }
    agent.says("the new certificate is in use");
    assert!(carries(), "the stream goes on under the old one");
    connector.kill();
    let connector = world.connector(&tls);
    assert_echoes(ports[0], &agent);
    connector.says("desk connected from 127.0.0.1:");
    assert!(agent.is_running());
}

#[test]
fn a_certificate_on_the_list_of_the_revoked_is_cut_off_once_it_is_there() {
    let world = World::new();
    let directory = &world.machine.directory;
    world.authority.revoke(directory, "crl.pem", &["other"]);
    let tls = world.issue("connector", A_DAY) + "revoked = \"crl.pem\"\n";
    let connector = world.connector(&tls);
    let (mut agent, ports) = world.agent(&world.issue("laptop", A_DAY));
    let (_other, _) = world.agent(&world.issue("tablet", A_DAY));
    let mut tcp = connect(ports[0]);
    let fresh = world.authority.revoke(directory, "new.pem", &["other", "laptop"]);
    std::fs::rename(fresh, directory.path("crl.pem")).unwrap();
    assert!(is_cut_off(&mut tcp));
    let said = agent.ends_with(3);
    assert!(said.starts_with("unauthenticated: ") && said.contains("revoked"), "{said}");
    connector.says("laptop disconnected: unauthenticated: the certificate was revoked");

    directory.write("crl.pem", "no list");
    let (_third, _) = world.agent(&world.issue("phone", A_DAY));
}

#[test]
fn a_device_whose_certificate_ends_while_it_is_connected_is_cut_off() {
    let world = World::new();
    let connector = world.connector(&world.issue("connector", A_DAY));
    let (mut agent, ports) = world.agent(&world.issue("laptop", SHORT));
    let mut tcp = connect(ports[0]);
    assert!(is_cut_off(&mut tcp));
    let said = agent.ends_with(3);
    assert!(said.contains("not valid at the time of its clock"), "{said}");
    assert!(said.ends_with("; set the clock that is wrong, or renew the certificate"), "{said}");
    connector.says("laptop disconnected: unauthenticated: the certificate has expired");
}

#[test]
fn a_connector_whose_certificate_ends_while_it_is_connected_is_left_until_it_has_another() {
    let world = World::new();
    let _connector = world.connector(&world.issue("connector", SHORT));
    let (mut agent, ports) = world.agent(&world.issue("laptop", A_DAY));
    let mut tcp = connect(ports[0]);
    assert!(is_cut_off(&mut tcp));
    agent.says("no connection to connector: unauthenticated: the peer's certificate is not valid at the time");
    agent.says("; set the clock that is wrong, or renew the certificate; attempt 2 in ");
    world.issue("connector", A_DAY);
    assert!(echoes_at_last(ports[0]) && agent.is_running(), "{}", agent.log());
}

#[test]
fn a_certificate_that_was_renewed_in_its_file_carries_on_when_the_old_one_ends() {
    let world = World::new();
    let connector = world.issue("connector", SHORT);
    let _connector = world.connector(&connector);
    let (mut agent, ports) = world.agent(&world.issue("laptop", SHORT + Duration::from_secs(1)));
    let end = Instant::now() + SHORT + Duration::from_secs(3);
    for name in ["connector", "laptop"] {
        world.issue(name, A_DAY);
    }
    agent.says("the new certificate is in use");
    while Instant::now() < end {
        assert_echoes(ports[0], &agent);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(agent.is_running());
    agent.says("the certificate has expired");
}
