//! Permissions and their duration: roles, revocation and expiry while connected, renewal and
//! rotation under traffic, and PEM files that another program maintains.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::people::{Machine, Running, assert_echoes};
use common::{
    LIMIT, bounded, carries, echo, echoes, free_tcp, free_udp, is_cut_off, run, service, stream,
    within,
};

/// The time within which a revocation takes effect.
const A_SECOND: Duration = Duration::from_secs(1);

/// Life of a certificate that ends within a test: its renewal is due a third of that before its
/// end, which a busy machine needs for three polls of a second and for the exchange itself.
const SHORT: Duration = Duration::from_secs(12);

fn echo_service() -> String {
    service(echo).to_string()
}

/// Returns how much later than on an idle machine something may be: as long as twenty trivial
/// commands take now on this machine.
fn lateness() -> Duration {
    let start = Instant::now();
    run(&["--version"]);
    20 * start.elapsed()
}

fn device_of(home: &Machine) -> String {
    home.devices()[0]["id"].as_str().unwrap().to_owned()
}

/// Starts an agent for a connector, with one forward. Returns its local port.
fn agent(
    machine: &Machine,
    tls: &str,
    to: &str,
    name: &str,
    service: &str,
) -> (Running, SocketAddr) {
    let port = free_tcp();
    let text = format!(
        "{tls}[connector]\naddress = \"{to}\"\nname = \"{name}\"\n\
         [[forward]]\nlisten = \"{port}\"\nservice = \"{service}\"\n"
    );
    let path = machine.directory.write(&format!("agent-{}.toml", port.port()), &text);
    (machine.start(&["agent", "-c", path.to_str().unwrap()]), port)
}

/// Returns a section that names the certificate of a mesh as an external one.
fn tls_of(identity: &std::path::Path, ca: &std::path::Path) -> String {
    let (identity, ca) = (identity.display(), ca.display());
    format!("[tls]\nca = \"{ca}\"\ncertificate = \"{identity}\"\nkey = \"{identity}\"\n")
}

#[test]
fn a_device_cannot_pass_for_a_connector() {
    let (home, rogue, away) = (Machine::new(), Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    rogue.connect(&invite, &[]).0.end();
    let device = device_of(&home);
    away.connect(home.told(&["invite", "new"]).trim(), &[]).0.end();
    exposing.end();

    let (identity, listen) = (rogue.membership(), free_udp().to_string());
    let tls = tls_of(&identity, &identity.with_file_name("ca.pem"));
    let text =
        format!("listen = \"{listen}\"\n{tls}[[service]]\nname = \"web\"\ntcp = \"127.0.0.1:9\"\n");
    let path = rogue.directory.write("connector.toml", &text);
    let connector = rogue.start(&["connector", "-c", path.to_str().unwrap()]);
    connector.says("the connector is up");
    let victim = away.membership();
    let tls = tls_of(&victim, &victim.with_file_name("ca.pem"));
    let (mut agent, _) = agent(&away, &tls, &listen, &device, "web");
    let said = agent.ends_with(3);
    assert!(
        said.starts_with("unauthenticated: ") && said.contains("; check the certificates"),
        "{said}"
    );
}

#[test]
fn a_connectors_certificate_opens_no_service() {
    let home = Machine::new();
    let listen = free_udp().to_string();
    let (exposing, _) = home.expose_at(&listen, &echo_service(), &[]);
    let own = home.json(&["id", "show", "--json"])["own"]["names"][0].as_str().unwrap().to_owned();
    let mesh = home.home().join("mesh");
    let tls = tls_of(&mesh.join("identity.pem"), &mesh.join("ca.pem"));
    let (agent, port) = agent(&home, &tls, &listen, &own, "web");
    let refused = bounded(|| {
        let _ = echoes(port);
        agent.log().contains("is for agents, and this certificate is for a connector").then_some(())
    });
    assert!(refused.is_some(), "{}", agent.log());
    assert!(!echoes(port));
    exposing.says("forbidden: \"web\" is for agents");
}

/// Revokes the only device, and checks that its stream ends, new ones do not begin, and its process
/// ends, all within a second.
fn revoke(
    home: &Machine,
    connected: &mut Running,
    address: SocketAddr,
    by: impl FnOnce(&[&str]) -> String,
) -> String {
    let mut tcp = stream(address);
    let before = lateness();
    let told = by(&["id", "revoke", &device_of(home)]);
    let start = Instant::now();
    assert!(is_cut_off(&mut tcp));
    let cut = start.elapsed();
    let limit = A_SECOND + before.max(lateness());
    assert!(cut < limit, "the stream ended only after {cut:?} of {limit:?}");
    assert!(!echoes(address), "it can still connect");
    let said = connected.ends_with(3);
    let ended = start.elapsed();
    eprintln!("revoked: the stream was cut after {cut:?}, the process ended within {ended:?}");
    assert!(said.starts_with("unauthenticated: ") && said.contains("revoked"), "{said}");
    assert!(
        said.ends_with("; if this device was revoked, ask for a new invite: adit invite new"),
        "{said}"
    );
    told
}

#[test]
fn a_device_revoked_while_connected_is_cut_off_within_a_second() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let (mut connected, address) = away.connect(&invite, &[]);
    let told = revoke(&home, &mut connected, address, |arguments| home.told(arguments));
    assert!(told.ends_with(" is revoked, and cut off\n"), "{told}");
    let mut again = away.start(&["connect", "web"]);
    assert!(again.ends_with(3).contains("revoked"));
    let said = home.fails(&["id", "revoke", "nobody"], 2);
    assert_eq!(said, "no device is called \"nobody\"; see: adit id show");
}

#[test]
fn an_unnotified_connector_applies_a_revocation_within_a_second() {
    let (home, away) = (Machine::new(), Machine::new());
    let (exposing, invite) = home.expose(&echo_service(), &[]);
    let (mut connected, address) = away.connect(&invite, &[]);
    std::fs::remove_dir_all(home.home().join("run")).unwrap();
    let told = revoke(&home, &mut connected, address, |arguments| home.fails(arguments, 5));
    let expected = format!(
        " is revoked, but the connector that runs here (process {}) did not confirm that it cut the \
         device off: it did not answer; look at its log, or end it",
        exposing.id()
    );
    assert!(told.ends_with(&expected), "{told}");
}

#[test]
fn a_connection_outlives_its_certificates_which_are_renewed_on_both_sides() {
    let (home, away) = (Machine::new(), Machine::new());
    let life = format!("{}s", SHORT.as_secs());
    let (_exposing, invite) = home.expose(&echo_service(), &["--certificate-life", &life]);
    let (mut connected, address) = away.connect(&invite, &[]);
    // The connector's own certificate is older than the setting for short ones.
    home.told(&["id", "rotate"]);
    let serials = || {
        let own = |machine: &Machine, what: &str| {
            let shown = machine.json(&["id", "show", "--json"]);
            shown.pointer(what).unwrap().as_str().unwrap().to_owned()
        };
        (own(&home, "/own/serial"), own(&away, "/memberships/0/serial"))
    };
    // The second renewal of each is due only when the first certificate is over.
    let (mut own, mut of_device) = (BTreeSet::new(), BTreeSet::new());
    let renewed = bounded(|| {
        assert_echoes(address, &connected);
        let (here, there) = serials();
        own.insert(here);
        of_device.insert(there);
        (own.len() >= 3 && of_device.len() >= 3).then_some(())
    });
    assert!(renewed.is_some(), "{own:?} {of_device:?}\n{}", connected.log());
    assert_echoes(address, &connected);
    assert!(connected.is_running(), "{}", connected.log());
    assert_eq!(home.devices().len(), 1);
}

#[test]
fn a_device_with_an_expired_certificate_is_cut_off_with_the_time() {
    let (home, away) = (Machine::new(), Machine::new());
    let life = format!("{}s", SHORT.as_secs());
    let (_exposing, invite) = home.expose(&echo_service(), &["--certificate-life", &life]);
    let (mut connected, address) = away.connect(&invite, &[]);
    let mut tcp = stream(address);
    let key = home.home().join("mesh/ca.key");
    std::fs::rename(&key, key.with_extension("away")).unwrap();
    assert!(is_cut_off(&mut tcp));
    let said = connected.ends_with(3);
    assert!(said.starts_with("this machine's certificate ended on 20"), "{said}");
    assert!(
        said.ends_with("set the clock if it is wrong, or ask for a new invite: adit invite new"),
        "{said}"
    );
    let log = connected.log();
    assert!(log.contains("this machine's certificate was not renewed: overloaded: "), "{log}");
}

#[test]
fn keys_are_exchanged_on_both_sides_while_a_stream_goes_on() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    let (connected, address) = away.connect(&invite, &[]);
    let mut tcp = stream(address);
    let key = |machine: &Machine, of: &str| machine.json(&["id", "show", "--json"])[of].to_string();
    let before = (key(&home, "own"), key(&away, "memberships"));
    for _ in 0..3 {
        home.told(&["id", "rotate"]);
        assert!(carries(&mut tcp));
        away.told(&["id", "rotate", "web"]);
        assert!(carries(&mut tcp));
        assert_echoes(address, &connected);
    }
    let after = (key(&home, "own"), key(&away, "memberships"));
    assert!(before.0 != after.0 && before.1 != after.1);
    assert!(carries(&mut tcp), "the stream goes on");
    let device = &home.devices()[0];
    assert_eq!(home.devices().len(), 1, "it is the same device");
    connected.end();
    away.connect("web", &[]).0.end();
    home.told(&["id", "revoke", device["id"].as_str().unwrap()]);
    assert!(away.start(&["connect", "web"]).ends_with(3).contains("revoked"));
}

#[test]
fn a_device_that_sleeps_past_a_rotation_of_the_connector_finds_it_again() {
    let (home, away) = (Machine::new(), Machine::new());
    let (_exposing, invite) = home.expose(&echo_service(), &[]);
    away.connect(&invite, &[]).0.end();
    home.told(&["id", "rotate"]);
    let up = within(LIMIT, || Some(away.connect("web", &[])));
    up.unwrap().0.end();
}
