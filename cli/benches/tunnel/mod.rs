//! The two programs measured, each as a pair of processes between a TCP port and the backend.
//!
//! It decides how each is started, and when it counts as ready: when a byte sent to its port comes
//! back. It never measures anything but the processes' CPU time and memory.

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

/// How long a pair may take to pass its first byte.
const READY_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// The minimal forwarder on quinn.
    Reference,
    /// The program of this package.
    Adit,
}

impl System {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Adit => "adit",
        }
    }
}

/// An agent and a connector, running.
pub(crate) struct Tunnel {
    system: System,
    entry: SocketAddr,
    agent: Process,
    connector: Process,
    _directory: Directory,
}

impl Tunnel {
    /// Starts both ends in front of the service at `backend`, and returns once a byte has passed.
    pub(crate) fn start(system: System, backend: SocketAddr) -> Result<Self> {
        let directory = Directory::create(system.as_str())?;
        let entry = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let quic = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let (connector, agent) = match system {
            System::Reference => (
                reference(&directory, "--reference-connector", quic, backend)?,
                reference(&directory, "--reference-agent", quic, entry)?,
            ),
            System::Adit => (
                adit(&directory, CONNECTOR, &connector_config(&directory, quic, backend)?)?,
                adit(&directory, AGENT, &agent_config(&directory, quic, entry)?)?,
            ),
        };
        let connector = Process::start(
            &format!("{} connector", system.as_str()),
            connector,
            directory.path("connector.log"),
        )?;
        let agent = Process::start(
            &format!("{} agent", system.as_str()),
            agent,
            directory.path("agent.log"),
        )?;
        let mut tunnel = Self { system, entry, agent, connector, _directory: directory };
        tunnel.wait_until_ready()?;
        Ok(tunnel)
    }

    pub(crate) const fn entry(&self) -> SocketAddr {
        self.entry
    }

    /// CPU time of both processes since their start, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(self.agent.cpu()? + self.connector.cpu()?)
    }

    /// Resident memory of both processes, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        Ok(self.agent.resident()? + self.connector.resident()?)
    }

    /// An error with its last words if either process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.connector.check()?;
        self.agent.check()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let cause = match pass_a_byte(self.entry) {
                Ok(()) => return Ok(()),
                Err(cause) => cause,
            };
            self.check()?;
            if Instant::now() > deadline {
                bail!(
                    "{} passed no byte within {READY_WITHIN:?}: {cause}\n{}\n{}",
                    self.system.as_str(),
                    self.connector.last_words(),
                    self.agent.last_words(),
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

fn connector_config(dir: &Directory, quic: SocketAddr, backend: SocketAddr) -> Result<String> {
    let mut out = format!("listen = \"{quic}\"\n");
    tls_section(&mut out, dir, CONNECTOR)?;
    write!(out, "\n[[service]]\nname = \"bulk\"\ntcp = \"{backend}\"\n")?;
    Ok(out)
}

fn agent_config(dir: &Directory, quic: SocketAddr, entry: SocketAddr) -> Result<String> {
    let mut out = String::new();
    tls_section(&mut out, dir, AGENT)?;
    write!(out, "\n[connector]\naddress = \"{quic}\"\nname = \"{CONNECTOR}\"\n")?;
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
