//! People in the tests: each has a machine of their own, which is a home directory, and starts
//! `adit` there. The stdout of a command is read line by line.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use serde_json::Value;

use super::{Directory, LIMIT, Program, bounded, echoes, finish, free_udp};

/// A machine: a directory of its own, with a home in it.
pub(crate) struct Machine {
    pub(crate) directory: Directory,
    number: std::cell::Cell<u32>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { directory: Directory::new(), number: std::cell::Cell::new(0) }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path("home")
    }

    /// Returns `adit` with these arguments, at this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
        command.args(arguments);
        self.at_home(&mut command);
        command
    }

    /// Makes a command that ends in `adit` use this home, without the tests' own environment.
    pub(crate) fn at_home(&self, command: &mut Command) {
        for name in
            ["RUST_LOG", "ADIT_INVITE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(name);
        }
        command.env("ADIT_HOME", self.home());
    }

    /// Runs `adit` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments))
    }

    /// Returns the stdout of a command that succeeds.
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the one line of JSON on stdout of a command that succeeds.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.told(arguments);
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the error of a command that fails with `code`.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> String {
        sentence(&self.run(arguments), code)
    }

    /// Starts `adit`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(&mut self.command(arguments))
    }

    /// Starts a command that ends in `adit`.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        self.spawn_with(command, Stdio::null())
    }

    /// The same with something on its standard input.
    pub(crate) fn spawn_with(&self, command: &mut Command, input: impl Into<Stdio>) -> Running {
        command.stdin(input);
        self.launch(command, None)
    }

    /// Starts the same with its log in another place.
    pub(crate) fn spawn_logging_to(&self, command: &mut Command, log: &Path) -> Running {
        command.stdin(Stdio::null());
        self.launch(command, Some(log))
    }

    fn launch(&self, command: &mut Command, log: Option<&Path>) -> Running {
        self.number.set(self.number.get() + 1);
        let usual = || self.directory.path(&format!("{}.log", self.number.get()));
        Running::start(command, log.map_or_else(usual, Path::to_owned))
    }

    /// Exposes a service on a free port, under the name "web". Returns the invite as well.
    pub(crate) fn expose(&self, target: &str, more: &[&str]) -> (Running, String) {
        let listen = free_udp().to_string();
        self.expose_at(&listen, target, more)
    }

    /// Exposes the same on a given port.
    pub(crate) fn expose_at(&self, at: &str, target: &str, more: &[&str]) -> (Running, String) {
        let arguments = ["expose", target, "--name", "web", "--listen", at];
        let running = self.start(&[&arguments, more].concat());
        let invite = running.line();
        assert!(invite.starts_with("adit1_"), "{invite}");
        (running, invite)
    }

    /// Redeems an invite, or connects to a saved service by its name. Returns the local address,
    /// which echoes.
    pub(crate) fn connect(&self, to: &str, more: &[&str]) -> (Running, SocketAddr) {
        let running = self.start(&[&["connect", to], more].concat());
        let address = running.address();
        assert_echoes(address, &running);
        (running, address)
    }

    /// Returns the contents of this machine's registry.
    pub(crate) fn registry(&self) -> Value {
        let text = std::fs::read(self.home().join("mesh/registry.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Returns the devices of this machine's mesh, as `adit id show` lists them.
    pub(crate) fn devices(&self) -> Vec<Value> {
        let shown = self.json(&["id", "show", "--json"]);
        shown["devices"].as_array().unwrap().clone()
    }

    /// Returns the file of this machine's certificate in the only mesh that it is a member of.
    pub(crate) fn membership(&self) -> PathBuf {
        let mut all = std::fs::read_dir(self.home().join("identities")).unwrap();
        all.next().unwrap().unwrap().path().join("identity.pem")
    }

    /// Returns all files below the home, with their contents, in order.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        collect(&self.home(), &mut all);
        all.sort();
        all
    }
}

fn collect(directory: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), all);
        } else if kind.is_file() {
            all.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
}

/// Returns the one sentence on stderr of a command that ended with `code` and an empty stdout;
/// lines of the log may precede it.
pub(crate) fn sentence(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    one_sentence(&said)
}

fn one_sentence(said: &str) -> String {
    let mut sentences = said.lines().filter_map(|line| line.strip_prefix("adit: "));
    let sentence = sentences.next().unwrap_or_else(|| panic!("no sentence: {said}"));
    assert_eq!(sentences.next(), None, "{said}");
    assert!(said.ends_with(&format!("adit: {sentence}\n")), "it is not the last line: {said}");
    sentence.to_owned()
}

/// Waits until an echo comes through a local port.
pub(crate) fn assert_echoes(address: SocketAddr, running: &Running) {
    let up = bounded(|| echoes(address).then_some(()));
    assert!(up.is_some(), "nothing comes back from {address}:\n{}", running.log());
}

/// A running `adit`, and the lines of its stdout.
pub(crate) struct Running {
    program: Program,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        command.stdout(Stdio::piped());
        let mut program = Program::launch(command, log);
        let stdout = BufReader::new(program.child.stdout.take().unwrap());
        let (to, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|l| to.send(l))
        });
        Self { program, lines }
    }

    /// Returns the next line of stdout.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no line; log:\n{}", self.log()))
    }

    /// Returns the next line of stdout, as an address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.line().parse().unwrap()
    }

    /// Returns true if stdout has no more lines for now.
    pub(crate) fn is_silent(&self) -> bool {
        let more = self.lines.recv_timeout(std::time::Duration::from_millis(1));
        matches!(more, Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected))
    }

    /// Returns the error it ends with, and checks that its exit code is `code`.
    pub(crate) fn ends_with(&mut self, code: i32) -> String {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{}", self.log());
        one_sentence(&self.log())
    }

    /// Ends it gracefully.
    pub(crate) fn end(mut self) {
        self.terminate();
        assert!(self.wait().success(), "{}", self.log());
    }
}

impl Deref for Running {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}
