//! Revocations that meet an obstacle: no descriptor, a damaged file beside them, a list that is
//! none. Each is in force as soon as it can be read, and none is lifted by accident.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::net::SocketAddr;
use std::process::Command;

use common::people::{Machine, Running, assert_echoes};
use common::{
    Authority, Directory, QUICK, carries, connect, echo, echoes, free_tcp, free_udp, is_cut_off,
    service, stream,
};

fn device_of(home: &Machine) -> String {
    home.devices()[0]["id"].as_str().unwrap().to_owned()
}

/// Sets the soft limit on descriptors of a running process.
fn limit_files(process: u32, soft: u32) {
    let arguments = [format!("--pid={process}"), format!("--nofile={soft}:")];
    let set = Command::new("prlimit").args(arguments).status().unwrap();
    assert!(set.success(), "the limit of a process cannot be set");
}

#[test]
fn a_revocation_without_descriptors_is_in_force_once_there_are_some() {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&service(echo).to_string(), &[]);
    let (mut connected, address) = away.connect(&invite, &[]);
    let mut tcp = stream(address);
    limit_files(exposing.id(), 4);
    let said = home.fails(&["id", "revoke", &device_of(&home)], 5);
    assert!(said.contains(" is revoked, but the connector that runs here (process "), "{said}");
    assert!(said.contains(" did not confirm that it cut the device off: "), "{said}");
    exposing.says("the list of devices cannot be used: ");
    assert!(carries(&mut tcp), "nobody can know of it yet");
    limit_files(exposing.id(), 1_024);
    assert!(is_cut_off(&mut tcp));
    assert!(connected.ends_with(3).contains("revoked"));
    assert!(!echoes(address));
    exposing.says("the list of devices is in use again, after ");
}

#[test]
fn a_process_that_has_used_up_its_descriptors_applies_a_revocation() {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&service(echo).to_string(), &[]);
    let (mut connected, address) = away.connect(&invite, &[]);
    let mut tcp = stream(address);
    let open = std::fs::read_dir(format!("/proc/{}/fd", exposing.id())).unwrap();
    let highest = open.map(|fd| fd.unwrap().file_name().into_string().unwrap());
    let highest = highest.map(|fd| fd.parse::<u32>().unwrap()).max().unwrap();
    limit_files(exposing.id(), highest + 1);
    let _fill: Vec<_> = (0..8).map(|_| connect(address)).collect();
    let _ = home.run(&["id", "revoke", &device_of(&home)]);
    assert!(is_cut_off(&mut tcp));
    assert!(connected.ends_with(3).contains("revoked"));
}

#[test]
fn a_damaged_file_beside_the_list_does_not_hold_up_a_revocation() {
    for name in ["identity.pem", "ca.pem"] {
        let (home, away) = (Machine::new(), Machine::new());
        let (exposing, invite) = home.expose(&service(echo).to_string(), &[]);
        let (mut connected, address) = away.connect(&invite, &[]);
        let mut tcp = stream(address);
        let device = device_of(&home);
        let damaged = home.home().join("mesh").join(name);
        let kept = std::fs::read(&damaged).unwrap();
        std::fs::write(&damaged, "no certificate").unwrap();
        exposing.says("the new certificate cannot be used: ");
        if name == "ca.pem" {
            // A list is signed with it.
            std::fs::write(&damaged, kept).unwrap();
        }
        let told = home.told(&["id", "revoke", &device]);
        assert!(told.ends_with(" is revoked, and cut off\n"), "{told}");
        assert!(is_cut_off(&mut tcp));
        assert!(connected.ends_with(3).contains("revoked"));
    }
}

#[test]
fn an_allowed_name_does_not_outlive_its_device() {
    let (home, away) = (Machine::new(), Machine::new());
    let (listen, target) = (free_udp().to_string(), service(echo));
    home.expose_at(&listen, &target.to_string(), &[]).0.end();
    let text = format!(
        "listen = \"{listen}\"\n[[service]]\nname = \"web\"\ntcp = \"{target}\"\nallow = [\"laptop\"]\n"
    );
    let path = home.directory.write("connector.toml", &text);
    let exposing = home.start(&["connector", "-c", path.to_str().unwrap()]);
    exposing.says("the connector is up");
    let invite = home.told(&["invite", "new", "--device", "laptop"]);
    let (connected, address) = away.connect(invite.trim(), &[]);
    // The registry alone knows of this revocation: its list is an earlier one.
    let mut registry = home.registry();
    let devices = registry["devices"].as_array_mut().unwrap();
    let device = devices.iter_mut().find(|device| device["role"] == "agent").unwrap();
    device["revoked"] = 1.into();
    let mut tcp = stream(address);
    let path = home.home().join("mesh/registry.json");
    std::fs::write(&path, registry.to_string()).unwrap();
    assert!(is_cut_off(&mut tcp));
    assert!(!echoes(address), "{}", connected.log());
}

/// Starts a connector with PEM files, and an agent whose certificate is "laptop".
fn world(directory: &Machine, authority: &Authority) -> (Running, Running, SocketAddr) {
    let (folder, listen, port) = (&directory.directory, free_udp(), free_tcp());
    let tls = authority.issue(folder, "connector") + "revoked = \"crl.pem\"\n";
    let text = format!(
        "listen = \"{listen}\"\n{tls}{QUICK}[[service]]\nname = \"echo\"\ntcp = \"{}\"\n",
        service(echo)
    );
    let path = folder.write("connector.toml", &text);
    let connector = directory.start(&["connector", "-c", path.to_str().unwrap()]);
    connector.says("the connector is up");
    let text = format!(
        "{}{QUICK}[connector]\naddress = \"{listen}\"\nname = \"connector\"\n\
         [[forward]]\nlisten = \"{port}\"\nservice = \"echo\"\n",
        authority.issue(folder, "laptop")
    );
    let path = folder.write("agent.toml", &text);
    let agent = directory.start(&["agent", "-c", path.to_str().unwrap()]);
    (connector, agent, port)
}

/// Puts a list in its place in one step.
fn put(folder: &Directory, text: &str) {
    let new = folder.write("new.pem", text);
    std::fs::rename(new, folder.path("crl.pem")).unwrap();
}

#[test]
fn a_list_that_is_none_lifts_no_revocation() {
    let (machine, authority, other) = (Machine::new(), Authority::new(), Authority::new());
    let folder = &machine.directory;
    authority.revoke_as(folder, "crl.pem", &["laptop"], 7);
    let (connector, mut agent, _) = world(&machine, &authority);
    assert!(agent.ends_with(3).contains("revoked"));
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let older = read(authority.revoke_as(folder, "a.pem", &[], 6));
    let foreign = read(other.revoke_as(folder, "b.pem", &[], 8));
    for (text, why) in [
        ("", "there is no revocation list in it"),
        ("no list", "there is no revocation list in it"),
        (&older, "the list is older than the one in force"),
        (&foreign, "the signature is not that of its CA"),
    ] {
        put(folder, text);
        connector.says(&format!("crl.pem: {why}"));
        let path = folder.path("agent.toml");
        let mut again = machine.start(&["agent", "-c", path.to_str().unwrap()]);
        assert!(again.ends_with(3).contains("revoked"), "{why}");
    }
    std::fs::remove_file(folder.path("crl.pem")).unwrap();
    connector.says("crl.pem: the revocation list cannot be read");
    put(folder, &read(authority.revoke_as(folder, "c.pem", &[], 8)));
    connector.says("the new revocation list is in use again");
    let path = folder.path("agent.toml");
    let agent = machine.start(&["agent", "-c", path.to_str().unwrap()]);
    agent.says("connected to connector");
}

#[test]
fn an_empty_list_is_refused_at_the_start() {
    let (machine, authority) = (Machine::new(), Authority::new());
    let folder = &machine.directory;
    let tls = authority.issue(folder, "connector") + "revoked = \"crl.pem\"\n";
    folder.write("crl.pem", "");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n{tls}[[service]]\nname = \"a\"\ntcp = \"127.0.0.1:9\"\n"
    );
    let path = folder.write("connector.toml", &text);
    let said = machine.fails(&["connector", "-c", path.to_str().unwrap()], 2);
    assert!(said.contains("crl.pem: there is no revocation list in it; name a PEM file"), "{said}");
}

#[test]
fn a_list_is_in_force_while_the_certificate_is_being_replaced() {
    let (machine, authority) = (Machine::new(), Authority::new());
    let folder = &machine.directory;
    authority.revoke_as(folder, "crl.pem", &[], 1);
    let (connector, mut agent, port) = world(&machine, &authority);
    assert_echoes(port, &agent);
    let mut tcp = stream(port);
    folder.write("connector.pem", "half a certificate");
    connector.says("the new certificate cannot be used: ");
    let list = authority.revoke_as(folder, "new.pem", &["laptop"], 2);
    std::fs::rename(list, folder.path("crl.pem")).unwrap();
    assert!(is_cut_off(&mut tcp));
    assert!(agent.ends_with(3).contains("revoked"));
}
