//! What the tests of the program share: certificates, configuration files, child processes that end
//! with their owner, and small TCP services. Every wait is bounded.

#![expect(dead_code, reason = "each test program uses its own part of this")]
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod authority;
pub(crate) mod clock;
pub(crate) mod people;
pub(crate) mod system;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use self::authority::Authority;

/// Longest wait for anything that is expected: it measures no speed, and only ends a test that
/// fails. A machine with four busy programs a core needs a tenth of it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Longest wait for a slow command, such as the demonstration.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);

/// A heartbeat that detects a dead peer within a few seconds, and that does not suspect a peer that
/// only waits for a processor.
pub(crate) const QUICK: &str =
    "[heartbeat]\ninterval = \"1s\"\nack_within = \"1s\"\ndead_after = \"3s\"\n";

/// A directory that is removed with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(role: &str, config: &Path, more: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_adit")).arg(role), config, more)
    }

    /// Starts it with a limit on open files.
    #[cfg(unix)]
    pub(crate) fn start_limited(role: &str, config: &Path, files: u32) -> Self {
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_adit"), role]);
        Self::spawn(&mut shell, config, &[])
    }

    /// Starts it as `nohup` does: it ignores SIGHUP.
    #[cfg(unix)]
    pub(crate) fn start_without_hangup(role: &str, config: &Path) -> Self {
        let script = "trap '' HUP && exec \"$0\" \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_adit"), role]);
        Self::spawn(&mut shell, config, &[])
    }

    /// Starts it so that SIGHUP ends it, even where the tests themselves run below `nohup`.
    #[cfg(target_os = "linux")]
    pub(crate) fn start_with_hangup(role: &str, config: &Path) -> Self {
        let mut env = Command::new("env");
        env.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_adit"), role]);
        Self::spawn(&mut env, config, &[])
    }

    fn spawn(command: &mut Command, config: &Path, more: &[&str]) -> Self {
        command
            .arg("-c")
            .arg(config)
            .args(more)
            .env_remove("RUST_LOG")
            .env("ADIT_HOME", config.with_file_name("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self::launch(command, config.with_extension("log"))
    }

    /// Starts a command and appends its stderr to a file.
    fn launch(command: &mut Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        Self { child: command.stderr(file).spawn().unwrap(), log }
    }

    /// Returns what it has written to stderr.
    pub(crate) fn log(&self) -> String {
        // A device that is not a file has no end.
        let is_file = self.log.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_file { fs::read_to_string(&self.log).unwrap_or_default() } else { String::new() }
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        match bounded(|| self.child.try_wait().unwrap()) {
            Some(status) => status,
            None => panic!("still running; it said:\n{}", self.log()),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it the signal to terminate.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits until its log contains a text.
    pub(crate) fn says(&self, text: &str) {
        let said = bounded(|| self.log().contains(text).then_some(()));
        assert!(said.is_some(), "it does not say \"{text}\":\n{}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Runs the program to its end, with an empty home.
pub(crate) fn run(arguments: &[&str]) -> Output {
    run_at(&Directory::new().path("home"), arguments)
}

/// Runs the program to its end, with a home.
pub(crate) fn run_at(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    finish(command.args(arguments).env_remove("RUST_LOG").env("ADIT_HOME", home))
}

/// Runs a command to its end, which it reaches within [`COMMAND_LIMIT`].
pub(crate) fn finish(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |from: &mut dyn Read| {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    };
    let (out, err, status) = std::thread::scope(|scope| {
        let out = scope.spawn(move || read(&mut stdout));
        let err = scope.spawn(move || read(&mut stderr));
        let status = within(COMMAND_LIMIT, || child.try_wait().unwrap());
        if status.is_none() {
            let _ = child.kill();
        }
        (out.join().unwrap(), err.join().unwrap(), status)
    });
    let _ = child.wait();
    let status = status.unwrap_or_else(|| panic!("no end: {}", String::from_utf8_lossy(&err)));
    Output { status, stdout: out, stderr: err }
}

/// Polls until there is a result, for as long as [`LIMIT`].
pub(crate) fn bounded<T>(ask: impl FnMut() -> Option<T>) -> Option<T> {
    within(LIMIT, ask)
}

/// Polls until there is a result, for as long as `limit`.
pub(crate) fn within<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        match ask() {
            None if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

/// Ports below those that systems assign by themselves (from 32,768 on Linux, from 49,152
/// elsewhere): no other socket gets one of them between its choice and its use.
const PORTS: std::ops::Range<u32> = 10_000..30_000;

/// Returns a TCP port of this test's own.
pub(crate) fn free_tcp() -> SocketAddr {
    free(|address| TcpListener::bind(address).is_ok())
}

/// Returns a UDP port of this test's own.
pub(crate) fn free_udp() -> SocketAddr {
    free(|address| UdpSocket::bind(address).is_ok())
}

/// Returns the next port that can be bound. Each is chosen once in a process; processes begin far
/// apart.
fn free(can_bind: impl Fn(SocketAddr) -> bool) -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(101);
    loop {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.try_into().unwrap()));
        if can_bind(address) {
            return address;
        }
    }
}

/// Starts a TCP service that handles each connection with a closure, for the life of the test.
pub(crate) fn service(
    treat: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let treat = treat.clone();
            std::thread::spawn(move || treat(tcp));
        }
    });
    address
}

/// Starts a service on a Unix socket that handles one connection after another with a closure.
#[cfg(unix)]
pub(crate) fn unix_service(
    path: &Path,
    treat: impl Fn(std::os::unix::net::UnixStream) -> io::Result<()> + Send + 'static,
) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || listener.incoming().try_for_each(|client| treat(client?)));
}

/// Sends back what it receives.
pub(crate) fn echo(mut tcp: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match tcp.read(&mut buffer)? {
            0 => return tcp.shutdown(std::net::Shutdown::Write),
            count => tcp.write_all(&buffer[..count])?,
        }
    }
}

/// Returns a connection through the tunnel that has just carried a byte.
pub(crate) fn stream(address: SocketAddr) -> TcpStream {
    let mut tcp = connect(address);
    assert!(carries(&mut tcp));
    tcp
}

/// Returns true if an echo behind a connection answers.
pub(crate) fn carries(tcp: &mut TcpStream) -> bool {
    let mut answer = [0];
    tcp.write_all(b"!").is_ok() && tcp.read_exact(&mut answer).is_ok() && answer == *b"!"
}

/// Returns a connection to a local port. Its reads and writes end after [`LIMIT`].
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    tcp.set_write_timeout(Some(LIMIT)).unwrap();
    tcp
}

/// Returns true if a connection was cut off: it is over, and did not merely stay silent.
pub(crate) fn is_cut_off(tcp: &mut TcpStream) -> bool {
    match tcp.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Returns true if a byte comes back from an echo service, sooner or later.
pub(crate) fn echoes_at_last(address: SocketAddr) -> bool {
    bounded(|| echoes(address).then_some(())).is_some()
}

/// Returns true if a byte comes back from an echo service within a moment. On a busy machine
/// `false` is no proof of a failure: for what must work, poll as [`echoes_at_last`] does.
pub(crate) fn echoes(address: SocketAddr) -> bool {
    let Ok(mut tcp) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    tcp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = [0];
    tcp.write_all(b"?").is_ok() && tcp.read_exact(&mut answer).is_ok() && answer == *b"?"
}

/// A connector and an agent in processes of their own.
pub(crate) struct Tunnel {
    pub(crate) connector: Program,
    pub(crate) agent: Program,
    pub(crate) connector_config: PathBuf,
    /// Where the connector listens.
    pub(crate) listen: SocketAddr,
    pub(crate) ports: Vec<SocketAddr>,
    pub(crate) directory: Directory,
}

impl Tunnel {
    /// Starts both, with a local port for each named service. The first one echoes, so that it
    /// shows when the tunnel is up; `extra` goes into each `[[service]]`.
    pub(crate) fn start(services: &[(&str, SocketAddr, &str)]) -> Self {
        let services = services.iter().map(|&(name, address, extra)| {
            let service = format!("tcp = \"{address}\"\n{extra}\n");
            (name, if extra == "absent" { String::new() } else { service })
        });
        Self::start_written(&services.collect::<Vec<_>>())
    }

    /// Starts the same with the text of each `[[service]]` after its name; a service with an empty
    /// text has no section.
    pub(crate) fn start_written(services: &[(&str, String)]) -> Self {
        let (directory, authority) = (Directory::new(), Authority::new());
        let listen = free_udp();
        let mut connector = format!("listen = \"{listen}\"\n");
        connector += &authority.issue(&directory, "connector");
        connector += QUICK;
        let mut agent = authority.issue(&directory, "laptop");
        agent += QUICK;
        agent += &format!("[connector]\naddress = \"{listen}\"\nname = \"connector\"\n");
        let mut ports = Vec::new();
        for (name, service) in services {
            let port = free_tcp();
            if !service.is_empty() {
                connector += &format!("[[service]]\nname = \"{name}\"\n{service}\n");
            }
            agent += &format!("[[forward]]\nlisten = \"{port}\"\nservice = \"{name}\"\n");
            ports.push(port);
        }
        let connector_config = directory.write("connector.toml", &connector);
        let agent_config = directory.write("agent.toml", &agent);
        let tunnel = Self {
            connector: Program::start("connector", &connector_config, &[]),
            agent: Program::start("agent", &agent_config, &[]),
            connector_config,
            listen,
            ports,
            directory,
        };
        tunnel.wait_until_up();
        tunnel
    }

    /// Waits until the first service echoes.
    pub(crate) fn wait_until_up(&self) {
        assert!(echoes_at_last(self.ports[0]), "the tunnel does not come up");
    }
}
