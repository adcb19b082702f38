//! The systems that are measured, each as a few processes between a TCP port and the backend.
//!
//! It decides how each is started, and when it counts as ready: when a byte sent to its port comes
//! back over the intended path. It measures only the processes' CPU time and memory.

mod pki;
mod process;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pki::{AGENT, CA, CONNECTOR, Directory};
use process::Process;
use serde_json::Value;

/// The relay's part in file names.
const RELAY: &str = "relay";
/// Time until a path that was discovered through a relay has its largest packets: the MTU is probed
/// again after 10 s, since probes that pass the relay are lost.
const WIDE_AFTER: Duration = Duration::from_secs(12);
/// How long it may take until the first byte passes over the intended path.
const READY_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// The minimal forwarder on quinn.
    Reference,
    /// The program of this package.
    Adit,
    /// The same, discovered through a relay and direct from then on.
    Direct,
    /// The same, always through a relay.
    Relayed,
}

impl System {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Adit => "adit",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }

    const fn has_relay(self) -> bool {
        matches!(self, Self::Direct | Self::Relayed)
    }
}

/// An agent and a connector, running, and their relay if they have one.
pub(crate) struct Tunnel {
    system: System,
    entry: SocketAddr,
    /// The agent last.
    processes: Vec<Process>,
    directory: Directory,
}

impl Tunnel {
    /// Starts both ends in front of the service at `backend`. Returns once a byte has passed.
    pub(crate) fn start(system: System, backend: SocketAddr) -> Result<Self> {
        let directory = Directory::create(system.as_str())?;
        let entry = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let quic = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut tunnel = Self { system, entry, processes: Vec::new(), directory };
        let paths = if system.has_relay() { tunnel.start_relay()? } else { String::new() };
        let dir = &tunnel.directory;
        let (connector, agent) = match system {
            System::Reference => (
                reference(dir, "--reference-connector", quic, backend)?,
                reference(dir, "--reference-agent", quic, entry)?,
            ),
            System::Adit | System::Direct | System::Relayed => (
                adit(dir, CONNECTOR, &connector_config(dir, &paths, quic, backend)?)?,
                adit(dir, AGENT, &agent_config(dir, &paths, quic, entry)?)?,
            ),
        };
        tunnel.add(CONNECTOR, connector)?;
        tunnel.add(AGENT, agent)?;
        tunnel.wait_until_ready()?;
        if system == System::Direct {
            std::thread::sleep(WIDE_AFTER);
        }
        Ok(tunnel)
    }

    fn add(&mut self, role: &str, command: Command) -> Result<()> {
        let name = format!("{} {role}", self.system.as_str());
        let log = self.directory.path(&format!("{role}.log"));
        self.processes.push(Process::start(&name, command, log)?);
        Ok(())
    }

    /// Starts a relay. Returns its section for the files of the others.
    fn start_relay(&mut self) -> Result<String> {
        let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut relay = Command::new(env!("CARGO_BIN_EXE_adit"));
        relay.args(["relay", "--discovery-port", "0", "--no-tcp", "--listen"]);
        relay
            .arg(listen.to_string())
            .args(["--mbits-per-client", "100000"])
            .env("ADIT_HOME", self.directory.path("relay-home"));
        self.add(RELAY, relay)?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let said = std::fs::read_to_string(self.directory.path("relay.log"))?;
            let mut lines = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = lines.find(|line| line.starts_with(&listen.to_string())) {
                let direct = self.system == System::Direct;
                return Ok(format!("relays = [{:?}]\ndirect = {direct}\n", line.trim()));
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!("the relay said no address within {READY_WITHIN:?}\n{said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) const fn entry(&self) -> SocketAddr {
        self.entry
    }

    /// Returns the CPU time of all processes since their start, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Returns the resident memory of all processes, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.processes.iter().map(Process::resident).sum()
    }

    /// Returns an error with the end of its log if any process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Returns an error unless packets take the intended path.
    pub(crate) fn check_path(&self) -> Result<()> {
        if !self.system.has_relay() {
            return Ok(());
        }
        let mut status = Command::new(env!("CARGO_BIN_EXE_adit"));
        status.args(["status", "--json"]).env("ADIT_HOME", self.directory.path("home"));
        let output = status.output().context("asking for the path")?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let processes = status["processes"].as_array().map_or(&[][..], Vec::as_slice);
        let peers = processes.iter().filter_map(|process| process["peers"].as_array()).flatten();
        let classes: Vec<&str> = peers.filter_map(|peer| peer["path"]["class"].as_str()).collect();
        if classes.len() < 2 || classes.iter().any(|class| *class != self.system.as_str()) {
            bail!("packets of {} go by {classes:?}", self.system.as_str());
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let is_ready = pass_a_byte(self.entry).map_err(Into::into);
            let cause = match is_ready.and_then(|()| self.check_path()) {
                Ok(()) => return Ok(()),
                Err(cause) => cause,
            };
            self.check()?;
            if Instant::now() > deadline {
                let words: Vec<String> = self.processes.iter().map(Process::log_tail).collect();
                bail!(
                    "{} was not ready within {READY_WITHIN:?}: {cause}\n{}",
                    self.system.as_str(),
                    words.join("\n"),
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn pass_a_byte(entry: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(entry)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])
}

fn reference(
    directory: &Directory,
    end: &str,
    quic: SocketAddr,
    tcp: SocketAddr,
) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg(end).arg(directory.root());
    command.arg("--quic").arg(quic.to_string()).arg("--tcp").arg(tcp.to_string());
    Ok(command)
}

fn adit(directory: &Directory, role: &str, config: &str) -> Result<Command> {
    let path = directory.path(&format!("{role}.toml"));
    std::fs::write(&path, config)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.arg(role).arg("-c").arg(path).env("ADIT_HOME", directory.path("home"));
    Ok(command)
}

fn connector_config(
    dir: &Directory,
    paths: &str,
    quic: SocketAddr,
    backend: SocketAddr,
) -> Result<String> {
    let mut out = format!("listen = \"{quic}\"\n{paths}");
    tls_section(&mut out, dir, CONNECTOR)?;
    write!(out, "\n[[service]]\nname = \"bulk\"\ntcp = \"{backend}\"\n")?;
    Ok(out)
}

fn agent_config(
    dir: &Directory,
    paths: &str,
    quic: SocketAddr,
    entry: SocketAddr,
) -> Result<String> {
    let mut out = paths.to_owned();
    tls_section(&mut out, dir, AGENT)?;
    writeln!(out, "\n[connector]\nname = \"{CONNECTOR}\"")?;
    if paths.is_empty() {
        writeln!(out, "address = \"{quic}\"")?;
    }
    write!(out, "\n[[forward]]\nlisten = \"{entry}\"\nservice = \"bulk\"\n")?;
    Ok(out)
}

fn tls_section(out: &mut String, dir: &Directory, name: &str) -> Result<()> {
    let show = |path: PathBuf| path.display().to_string();
    let (certificate, key) = dir.identity(name);
    writeln!(out, "\n[tls]\nca = {:?}", show(dir.path(CA)))?;
    writeln!(out, "certificate = {:?}\nkey = {:?}", show(certificate), show(key))?;
    Ok(())
}
