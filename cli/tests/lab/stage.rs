//! The program in the lab: a relay on the internet, a connector behind one router, an agent behind
//! another, each started as a person would start it.
//!
//! It decides the commands and the fields of `adit status` to read; tests decide what happens
//! between.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::common::people::{Machine, Running};
use super::common::{echo, echoes, within};
use super::namespace::Namespace;
use super::nat::Kind;
use super::net::{Net, Public, Site};

/// Longest wait for a path to be found, or to be left: an idle machine needs two seconds, and a
/// busy one several times as long.
pub(crate) const USUAL_LIMIT: Duration = Duration::from_secs(30);

/// The TCP and UDP port of the relay.
const RELAY_PORT: &str = "4433";

/// The path between two peers, as `adit status` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathClass {
    Direct,
    Relayed,
}

/// The relay's side of the lab.
pub(crate) struct Stage {
    pub(crate) net: Net,
    pub(crate) server: Public,
    machine: Machine,
    relay: Option<Running>,
    /// The address that the relay prints.
    pub(crate) address: String,
}

/// A site, with the machine of the person there and its running program.
pub(crate) struct Party {
    running: Option<Running>,
    machine: Machine,
    pub(crate) site: Site,
    /// The URL of the HTTP proxy in the environment of its program.
    pub(crate) proxy: Option<String>,
}

/// Returns true if the program has relays, and prints so if not.
fn has_relays() -> bool {
    let help = Command::new(env!("CARGO_BIN_EXE_adit")).args(["relay", "--help"]).output();
    let has = help.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("SKIPPED: relays in the network lab, because this program has none");
    }
    has
}

impl Stage {
    /// Returns a running relay. Returns `None`, and prints so, where that is impossible.
    pub(crate) fn new() -> Option<Self> {
        if !has_relays() {
            return None;
        }
        let mut net = Net::new()?;
        let server = net.public("relay", &[10, 11]);
        let address = String::new();
        let mut stage = Self { net, server, machine: Machine::new(), relay: None, address };
        stage.start_relay();
        Some(stage)
    }

    /// Starts the relay, which keeps its key over restarts.
    pub(crate) fn start_relay(&mut self) {
        let at = self.server.addresses[0].to_string();
        let arguments = ["relay", "--listen", RELAY_PORT, "--advertise", &at];
        let relay = start_in(&self.server.inside, &self.machine, &arguments);
        let address = relay.line();
        let same = self.address.is_empty() || self.address == address;
        assert!(same, "the relay was {} and is {address}", self.address);
        (self.address, self.relay) = (address, Some(relay));
    }

    /// Kills the relay, as a crash would.
    pub(crate) fn kill_relay(&mut self) {
        self.relay.take().unwrap().kill();
    }

    /// Returns what the relay has written to stderr.
    pub(crate) fn relay_log(&self) -> String {
        self.relay.as_ref().map(|relay| relay.log()).unwrap_or_default()
    }
}

impl Party {
    pub(crate) fn at(site: Site) -> Self {
        Self { running: None, machine: Machine::new(), site, proxy: None }
    }

    /// Exposes a local port under the name "web" by the relay. Returns the invite.
    pub(crate) fn expose(&mut self, port: u16, stage: &Stage) -> String {
        self.expose_with(port, stage, &[])
    }

    /// Exposes the same with more arguments.
    pub(crate) fn expose_with(&mut self, port: u16, stage: &Stage, more: &[&str]) -> String {
        let target = port.to_string();
        let usual = ["expose", &target, "--name", "web", "--relay", &stage.address];
        self.start(&[&usual, more].concat())
    }

    /// Returns the stdout of a command at the site's machine.
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.machine.run(arguments).stdout).unwrap()
    }

    /// Ends the site's program as a person does.
    pub(crate) fn end(&mut self) {
        self.running.take().unwrap().end();
    }

    /// Redeems an invite. Returns the local address once it can be used.
    pub(crate) fn connect(&mut self, invite: &str) -> SocketAddr {
        let said = self.start(&["connect", invite]);
        said.parse().unwrap_or_else(|_| panic!("no address: {said}"))
    }

    /// Starts the program at the site. Returns its first line.
    fn start(&mut self, arguments: &[&str]) -> String {
        let mut command = program_in(&self.site.host, &self.machine, arguments);
        if let Some(proxy) = &self.proxy {
            command.env("HTTPS_PROXY", proxy);
        }
        let running = self.machine.spawn(&mut command);
        let line = running.line();
        self.running = Some(running);
        line
    }

    /// Starts an echo service at the site. Returns its port.
    pub(crate) fn serve_echo(&self) -> u16 {
        self.site.host.enter(|| super::common::service(echo)).port()
    }

    /// Returns true if a byte comes back from the service within a time.
    pub(crate) fn echoes_within(&self, address: SocketAddr, limit: Duration) -> bool {
        let once = || self.site.host.enter(|| echoes(address)).then_some(());
        within(limit, once).is_some()
    }

    /// Returns the path to its peer, as `adit status --json` reports it.
    pub(crate) fn path_class(&self) -> Option<PathClass> {
        let output = self.machine.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let processes = status["processes"].as_array()?;
        let mut peers = processes.iter().filter_map(|p| p["peers"].as_array()).flatten();
        peers.find_map(|peer| match peer["path"]["class"].as_str()? {
            "direct" => Some(PathClass::Direct),
            _ => Some(PathClass::Relayed),
        })
    }

    /// Waits until its path is this one.
    ///
    /// # Panics
    /// If that takes too long.
    pub(crate) fn goes(&self, class: PathClass, limit: Duration) {
        let goes = within(limit, || (self.path_class() == Some(class)).then_some(()));
        let why = || self.machine.run(&["why"]).stdout;
        assert!(goes.is_some(), "not {class:?}: {}", String::from_utf8_lossy(&why()));
    }
}

/// Starts the program of a person's machine in a namespace.
pub(crate) fn start_in(inside: &Namespace, machine: &Machine, arguments: &[&str]) -> Running {
    machine.spawn(&mut program_in(inside, machine, arguments))
}

fn program_in(inside: &Namespace, machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = inside.command(env!("CARGO_BIN_EXE_adit"));
    machine.at_home(command.args(arguments));
    command
}

/// Starts a connector behind one kind of router and an agent behind another, and waits until bytes
/// come back.
pub(crate) fn connected(stage: &mut Stage, kinds: [Kind; 2]) -> (Party, Party, SocketAddr) {
    let mut connector = Party::at(stage.net.site(0, kinds[0]));
    let mut agent = Party::at(stage.net.site(1, kinds[1]));
    let port = connector.serve_echo();
    let invite = connector.expose(port, stage);
    let address = agent.connect(&invite);
    assert!(agent.echoes_within(address, USUAL_LIMIT), "{kinds:?}: nothing comes back");
    (connector, agent, address)
}

/// Starts a connector on a public host, without a relay, that exposes an echo service as "web".
/// Returns its machine and its program, and the first invite, which is printed once the mesh exists.
pub(crate) fn public_connector(net: &mut Net) -> (Public, Machine, Running, String) {
    let (server, web) = (net.public("server", &[10]), Machine::new());
    let port = server.inside.enter(|| super::common::service(echo)).port();
    let expose = ["expose", &port.to_string(), "--name", "web", "--listen", "4433"];
    let connector = start_in(&server.inside, &web, &expose);
    let invite = connector.line();
    (server, web, connector, invite)
}

/// Returns a free TCP port of a namespace.
pub(crate) fn free_port(inside: &Namespace) -> u16 {
    let listener = inside.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listener.local_addr().unwrap().port()
}
